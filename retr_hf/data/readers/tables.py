"""Plain tables: a log (`user_id, item_id[, timestamp]`) or sequences (`user_id, item_ids[, timestamps]`), and items.

Parquet, csv, tsv or jsonl (one JSON object a line), the last three also gzipped. The dirt it cleans, and what it keeps:

- ids are read as strings always (007 stays "007" in a csv); a float id column is refused, for "5.0" is not "5";
- a log is sorted by time within each user; equal timestamps keep file order (stable), and without a timestamp column
  file order is the order; users stay in order of first appearance;
- rows without a user, an item or (where the column exists) a timestamp are dropped and counted;
- repeated interactions of a user with an item are kept: they are behaviour;
- items without a row in the item table get the text "" and are counted by `prepare`; rows of the item table without an
  id are dropped and counted, two rows with one id are an error;
- one text column is taken as it is. Several are cleaned as UniSRec does and joined by blanks (see `join_text`).
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..log_options import sequences_of
from ..schema import ITEM_ID, ITEM_IDS, TEXT, TIMESTAMP, TIMESTAMPS, USER_ID
from .raw import RawDomain

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # timestamps a second
_LATEST_SECOND = 10**11  # the year 5138: larger "seconds" are milliseconds
_NAME_COLUMNS = "name them with --columns, such as --columns user_id=reviewerID item_id=asin"
_LONGEST_FIELD = 2000  # characters; UniSRec empties longer text fields


def read_tables(
    interactions: str | Path,
    items: str | Path | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    text_columns: Sequence[str] = (TEXT,),
    timestamp_unit: str = "s",
    whole_catalogue: bool = False,
) -> RawDomain:
    """Reads a domain from one table of interactions and, where there is one, a table of items.

    Args:
        interactions: one row an interaction or one row a user; told apart by the columns. Lists are list columns in
            parquet and jsonl, and separated by blanks in csv and tsv.
        items: table with ``item_id`` and the text columns. None: ids only, every text is "".
        columns: our name -> the name in the files, of ``user_id``, ``item_id``, ``timestamp``, ``item_ids``,
            ``timestamps``; for example ``{"user_id": "reviewerID", "item_id": "asin"}``.
        text_columns: columns of the item table that make the text.
        timestamp_unit: "s", "ms", "us" or "ns" since 1970; date columns need no unit. Stored as seconds.
        whole_catalogue: keep all rows of the item table, also items nobody touched.

    Raises:
        DataError: a file that does not exist or cannot be read, missing columns, wrong types, no rows, doubled items
            or users.
    """
    names = {key: key for key in (USER_ID, ITEM_ID, TIMESTAMP, ITEM_IDS, TIMESTAMPS)}
    if unknown := set(columns or {}) - set(names):
        raise DataError(f"columns: expected the names {', '.join(names)}; got {', '.join(sorted(unknown))}")
    if timestamp_unit not in UNITS:
        raise DataError(f"timestamp_unit: expected one of {', '.join(UNITS)}; got {timestamp_unit!r}")
    names |= columns or {}
    interactions = Path(interactions)
    table = _read(interactions)
    as_sequences = names[ITEM_IDS] in table.columns
    _require(interactions, table, [names[USER_ID], names[ITEM_IDS] if as_sequences else names[ITEM_ID]], _NAME_COLUMNS)

    log, dropped = (_explode_sequences if as_sequences else _select_log)(interactions, table, names)
    log = _clean_log(interactions, log, timestamp_unit, dropped)
    item_table = _read_items(Path(items), names[ITEM_ID], text_columns, dropped) if items else _no_items()
    return RawDomain(
        sequences=sequences_of(log),
        items=item_table,
        reader="tables",
        inputs=[interactions] + ([Path(items)] if items else []),
        options={
            "columns": {key: value for key, value in names.items() if key != value},
            "text_columns": list(text_columns) if items else [],
            "timestamp_unit": timestamp_unit,
            "whole_catalogue": whole_catalogue,
        },
        dropped=dropped,
        whole_catalogue=whole_catalogue,
    )


def join_text(items: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Several text fields -> one text an item, cleaned as UniSRec's preprocessing does.

    Each field: lists joined by blanks; HTML entities decoded; quotes, CR and LF dropped; the dots it ends with become
    one dot (which is added where there is none); 2,000 characters or more make it empty. Fields are joined by a blank.
    NOTE: UniSRec writes a lone "." for an empty field; ours leaves it out.

    Args:
        items: the item table.
        columns: its text columns, String or List(String), in the order they are joined.

    Returns:
        [rows] String.
    """
    fields = []
    for column in columns:
        field = items[column]
        if isinstance(field.dtype, pl.List):
            field = field.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
        field = field.cast(pl.String).fill_null("")
        if field.str.contains("&", literal=True).any():
            field = field.map_elements(html.unescape, return_dtype=pl.String)
        field = field.str.replace_all(r'["\r\n]', "").str.strip_chars().str.replace(r"\.+$", "")
        field += "."
        fields.append(field.set(~field.str.len_chars().is_between(2, _LONGEST_FIELD - 1), None).alias(column))
    return pl.DataFrame(fields).select(pl.concat_str(pl.all(), separator=" ", ignore_nulls=True)).to_series()


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: expected a table (parquet, csv, tsv or jsonl), but there is no such file")
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()
    readers = {
        ".parquet": lambda: pl.read_parquet(path, hive_partitioning=False),
        ".csv": lambda: pl.read_csv(path, infer_schema=False),
        ".tsv": lambda: pl.read_csv(path, infer_schema=False, separator="\t", quote_char=None),
        ".jsonl": lambda: pl.read_ndjson(path, infer_schema_length=None),
    }
    if kind not in readers:
        raise DataError(f"{path}: expected a file ending in {', '.join(readers)} (or .gz after it), got {path.name!r}")
    try:
        table = readers[kind]()
    except pl.exceptions.NoDataError as error:
        raise DataError(f"{path}: expected a table with a header, but the file is empty") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: expected {kind[1:]}, but it cannot be read as that: {error}") from error
    if table.is_empty():
        raise DataError(f"{path}: expected rows, but the table has none (columns: {', '.join(table.columns)})")
    return table


def _require(path: Path, table: pl.DataFrame, wanted: Sequence[str], remedy: str) -> None:
    if missing := [column for column in wanted if column not in table.columns]:
        raise DataError(
            f"{path}: expected columns {', '.join(wanted)}; {', '.join(missing)} missing, the file has "
            f"{', '.join(table.columns)}; {remedy}"
        )


def _ids(path: Path, column: pl.Series) -> pl.Series:
    """An id column as String; "" counts as missing."""
    textual = column.dtype in (pl.String, pl.Categorical, pl.Enum)
    if not (textual or column.dtype.is_integer() or column.dtype == pl.Null):
        raise DataError(
            f"{path}: column {column.name!r}: expected ids as strings or integers, got {column.dtype}; "
            "write them as strings (floats come from integer columns with gaps)"
        )
    column = column.cast(pl.String)
    return column.set(column == "", None)


def _select_log(path: Path, table: pl.DataFrame, names: dict[str, str]) -> tuple[pl.DataFrame, dict[str, int]]:
    log = [_ids(path, table[names[key]]).alias(key) for key in (USER_ID, ITEM_ID)]
    if names[TIMESTAMP] in table.columns:
        log.append(table[names[TIMESTAMP]].alias(TIMESTAMP))
    return pl.DataFrame(log), {}


def _explode_sequences(path: Path, table: pl.DataFrame, names: dict[str, str]) -> tuple[pl.DataFrame, dict[str, int]]:
    lists = [_lists(path, table[names[ITEM_IDS]]).alias(ITEM_ID)]
    if names[TIMESTAMPS] in table.columns:
        lists.append(_lists(path, table[names[TIMESTAMPS]]).alias(TIMESTAMP))
    users = _ids(path, table[names[USER_ID]]).alias(USER_ID)
    doubled = users.filter(users.is_duplicated() & users.is_not_null()).unique(maintain_order=True)
    if doubled.len():
        raise DataError(
            f"{path}: expected one row a user, but {doubled.len():,} users have several, such as "
            f"{doubled.head(3).to_list()}; join their rows, or write one row an interaction (user_id, item_id)"
        )
    frame = pl.DataFrame([users, *lists])
    lengths = frame.select(pl.exclude(USER_ID).list.len().fill_null(0))
    if lengths.width == 2 and (unequal := int((lengths[ITEM_ID] != lengths[TIMESTAMP]).sum())):
        raise DataError(f"{path}: expected one timestamp an item, but {unequal:,} rows have lists of different lengths")
    filled = lengths[ITEM_ID] > 0
    log = frame.filter(filled).explode(pl.exclude(USER_ID))
    return log.with_columns(_ids(path, log[ITEM_ID])), {"users_without_items": int((~filled).sum())}


def _lists(path: Path, column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        return column.str.extract_all(r"\S+")
    if not isinstance(column.dtype, (pl.List, pl.Array)):
        raise DataError(
            f"{path}: column {column.name!r}: expected lists (in csv separated by blanks), got {column.dtype}"
        )
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _clean_log(path: Path, log: pl.DataFrame, unit: str, dropped: dict[str, int]) -> pl.DataFrame:
    for column in (USER_ID, ITEM_ID, TIMESTAMP):
        if column in log.columns:
            dropped[f"interactions_without_{column}"] = log[column].null_count()
            log = log.filter(pl.col(column).is_not_null())
    if log.is_empty():
        raise DataError(f"{path}: expected interactions, but no row has a user, an item and (if given) a timestamp")
    if TIMESTAMP in log.columns:
        log = log.with_columns(_seconds(path, log[TIMESTAMP], unit))
    return log


def _seconds(path: Path, times: pl.Series, unit: str) -> pl.Series:
    """Int64 seconds since 1970. Sub-second order is lost only between equal seconds, where file order decides."""
    if times.dtype in (pl.Date, pl.Datetime):
        return times.dt.epoch("s").cast(pl.Int64)
    numbers = times.cast(pl.Float64, strict=False) if times.dtype == pl.String else times
    if not numbers.dtype.is_numeric() or numbers.null_count():
        example = times.filter(numbers.is_null()).head(1).to_list() if numbers.null_count() else [str(times.dtype)]
        raise DataError(
            f"{path}: timestamps: expected numbers (see --timestamp-unit) or a date column, got {example[0]!r}"
        )
    if unit == "s" and numbers.max() > _LATEST_SECOND:
        raise DataError(
            f"{path}: timestamps: expected seconds since 1970, got {numbers.max():.0f}, which would be after the year "
            "5000; pass --timestamp-unit ms (or us, ns)"
        )
    return (numbers // UNITS[unit]).cast(pl.Int64)


def _read_items(path: Path, id_column: str, text_columns: Sequence[str], dropped: dict[str, int]) -> pl.DataFrame:
    table = _read(path)
    _require(path, table, [id_column], _NAME_COLUMNS)
    _require(path, table, text_columns, "name the text columns with --text-columns, such as --text-columns title brand")
    for column in text_columns:
        dtype = table.schema[column]
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        if isinstance(inner, (pl.Struct, pl.List, pl.Object)) or inner == pl.Binary:
            raise DataError(f"{path}: text column {column!r}: expected text or lists of text, got {dtype}")
    single = len(text_columns) == 1 and not isinstance(table.schema[text_columns[0]], pl.List)
    text = table[text_columns[0]].cast(pl.String) if single else join_text(table, text_columns)
    items = pl.DataFrame([_ids(path, table[id_column]).alias(ITEM_ID), text.alias(TEXT)])
    dropped["item_rows_without_item_id"] = items[ITEM_ID].null_count()
    items = items.filter(pl.col(ITEM_ID).is_not_null()).with_columns(pl.col(TEXT).fill_null(""))
    doubled = items.filter(pl.col(ITEM_ID).is_duplicated())[ITEM_ID].unique(maintain_order=True)
    if doubled.len():
        raise DataError(
            f"{path}: expected one row an item, but {doubled.len():,} ids have several, such as "
            f"{doubled.head(3).to_list()}; keep one row each"
        )
    return items


def _no_items() -> pl.DataFrame:
    return pl.DataFrame(schema={ITEM_ID: pl.String, TEXT: pl.String})
