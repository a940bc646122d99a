"""RecBole's atomic files of a log: `X.inter` and `X.item`, tab-separated, with a header of `name:type`.

From https://github.com/RUCAIBox/RecSysDatasets, which converts public data sets: the terms are those of each data set.
`write_recbole` makes the same files of a prepared domain. (`X.train.inter` and siblings are the reader `atomic`.)

    user_id:token  item_id:token  rating:float  timestamp:float

The dirt, and what becomes of it: as the conversion left it; times are floats, stored as whole seconds; equal times keep
file order. Only the named fields are read, whatever else is there.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .blocks import read_blocks
from .item_text import text_as_unisrec
from .line_formats import delimited
from .raw import UNTIMED, RawLog
from .spool import Spool


def read_recbole(
    inputs: Sequence[Path],
    spool: Spool,
    *,
    items: Path | None = None,
    text_fields: Sequence[str] = ("title",),
    user_field: str = "user_id",
    item_field: str = "item_id",
    time_field: str = "timestamp",
    rating_field: str = "rating",
) -> RawLog:
    """Reads the interactions.

    Args:
        inputs: X.inter
        spool: where the compact copy goes.
        items: X.item; without it a domain of ids only
        text_fields: fields of the items that make the text, cleaned and joined as UniSRec does
        user_field: name of the user
        item_field: name of the item
        time_field: name of the time; without such a field the file order is the order
        rating_field: name of the rating, read where it is there

    Raises:
        DataError: missing fields; see ``Spool.lines``.
    """
    names = _header(inputs[0])
    wanted = {USER_ID: user_field, ITEM_ID: item_field, RATING: rating_field, TIMESTAMP: time_field}
    wanted = {ours: theirs for ours, theirs in wanted.items() if theirs in names or ours in (USER_ID, ITEM_ID)}
    events = spool.lines(
        "events", inputs, _parser(inputs[0], names, wanted), what=" ".join(names), first_line=_is(names)
    )
    texts = None
    if items:
        fields = _header(items)
        parse = _parser(items, fields, {ITEM_ID: item_field} | {name: name for name in text_fields})
        texts = spool.lines(
            "items", [items], parse, what=" ".join(fields), first_line=_is(fields),
            then=text_as_unisrec(text_fields, spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=texts,
        reader="recbole",
        inputs=[*inputs, *([items] if items else [])],
        options={"fields": wanted, "text_fields": list(text_fields) if items else []},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by time; equal times keep file order" if TIMESTAMP in wanted else UNTIMED,
    )


def _header(path: Path) -> list[str]:
    """Names without their types."""
    first = next(read_blocks(path)).lines.partition(b"\n")[0].decode(errors="replace")
    return [name.partition(":")[0] for name in first.split("\t")]


def _is(names: list[str]):
    def first_line(path: Path, line: bytes) -> bool:
        if _header(path) != names:
            raise DataError(f"{path}: expected the fields {', '.join(names)}, as in the first file; got {line[:100]!r}")
        return True

    return first_line


def _parser(path: Path, names: list[str], wanted: dict[str, str]):
    if missing := [theirs for theirs in wanted.values() if theirs not in names]:
        raise DataError(
            f"{path}: expected the fields {', '.join(wanted.values())}; {', '.join(missing)} missing, the file has "
            f"{', '.join(names)}; name others with --user-field, --item-field, --text-fields"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: expected every field once, got {', '.join(names)}")
    types = {wanted.get(RATING): pl.Float32, wanted.get(TIMESTAMP): pl.Float64}
    required = [theirs for ours, theirs in wanted.items() if ours in (USER_ID, ITEM_ID, RATING, TIMESTAMP)]
    optional = [theirs for theirs in wanted.values() if theirs not in required]
    read = delimited({name: types.get(name, pl.String) for name in names}, required, "\t", False, optional)

    def parse(lines: bytes) -> pl.DataFrame:
        frame = read(lines).select(pl.col(theirs).alias(ours) for ours, theirs in wanted.items())
        return frame.with_columns(pl.col(TIMESTAMP).cast(pl.Int64)) if TIMESTAMP in wanted else frame

    return parse
