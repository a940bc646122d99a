"""Parsers of clean lines: bytes of whole lines -> one row a line. Any dirty line makes the whole call fail.

`Spool.lines` then finds the dirty ones by halving. Strict here means: the number of fields, every type, no empty id.
"""

import io
from collections.abc import Collection, Mapping, Sequence

import polars as pl

from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .spool import Parse, not_a

EVENT = {USER_ID: pl.String, ITEM_ID: pl.String, RATING: pl.Float32, TIMESTAMP: pl.Int64}


def delimited(
    columns: Mapping[str, pl.DataType],
    required: Sequence[str],
    separator: str = ",",
    quoted: bool = True,
    optional: Sequence[str] = (),
) -> Parse:
    """Lines of separated fields.

    Args:
        columns: every field of a line, in order, and its type.
        required: the fields to return; none may be empty.
        separator: one or more characters; several are replaced by a control character first.
        quoted: fields may be in double quotes; a quoted field does not go over lines.
        optional: more fields to return, null where they are empty.
    """

    def parse(lines: bytes) -> pl.DataFrame:
        between = separator
        if len(separator) > 1:
            between = "\x1f"
            lines = lines.replace(separator.encode(), between.encode())
        quote = '"' if quoted and b'"' in lines else None
        options = {"has_header": False, "schema": columns, "separator": between, "quote_char": quote}
        try:
            frame = pl.read_csv(io.BytesIO(lines), **options)
        except (pl.exceptions.SchemaError, pl.exceptions.NoDataError) as error:
            raise ValueError(f"expected {len(columns)} fields separated by {separator!r}") from error
        return _filled(frame.select(*required, *optional), required)

    return parse


def json_objects(fields: Mapping[str, tuple[str, pl.DataType]], required: Sequence[str]) -> Parse:
    """One JSON object a line, of which some fields are read.

    Args:
        fields: our name -> (their name, type).
        required: of our names; none may be missing or null. The others may.
    """
    schema = dict(fields.values())

    def parse(lines: bytes) -> pl.DataFrame:
        frame = pl.read_ndjson(io.BytesIO(lines), schema=schema)
        frame = frame.select(pl.col(theirs).alias(ours) for ours, (theirs, _) in fields.items())
        return _filled(frame, required)

    return parse


def json_items(id_field: str, text_fields: Sequence[str], lists: Collection[str] = ()) -> Parse:
    """One JSON object an item -> item_id and the fields that make its text (see ``text_as_unisrec``).

    Args:
        id_field: their name of the item id.
        text_fields: their names of what makes the text.
        lists: those of their fields that are lists of strings.
    """
    types = {name: pl.List(pl.String) if name in lists else pl.String for name in text_fields}
    return json_objects({ITEM_ID: (id_field, pl.String)} | {name: (name, types[name]) for name in types}, [ITEM_ID])


def seconds(column: str, formats: str) -> pl.Expr:
    """A text column of dates or times (UTC) -> Int64 seconds since 1970; fails on any that is none."""
    return pl.col(column).str.to_datetime(formats, time_unit="ms").dt.epoch("s").alias(TIMESTAMP)


def _filled(frame: pl.DataFrame, required: Sequence[str]) -> pl.DataFrame:
    for name in required:
        column = frame[name]
        if column.null_count() or (column.dtype == pl.String and (column == "").any()):
            raise ValueError(f"no {name}")
        if column.dtype.is_float() and not column.is_finite().all():
            raise not_a(f"a finite {name}", str(column.filter(~column.is_finite())[0]).encode())
    return frame
