"""A log that is stored as parquet already, on a cluster's disks: an engine scans it where it is, nothing is copied.

    user_id   string or integer
    item_id   string or integer
    timestamp integer, seconds since 1970 (may be absent; in SQL: unix_timestamp(time))
    rating    number (may be absent)

in parquet files of one layout, such as a job on the cluster writes. The order of the log, which decides between equal
times and who came first, is that of the files by their addresses and of the rows in each file. A shuffled write has
lost the order of its source: there, write a time fine enough. What is dropped: rows without a user, an item or a time.
"""

from collections.abc import Mapping

import narwhals as nw
import polars as pl

from ...errors import DataError
from ..engines import FILE, PLACE, ROW, Engine
from ..schema import ITEM_ID, RATING, TEXT, TIMESTAMP, USER_ID
from .epochs import check_latest
from .raw import RawLog

_TYPES = {USER_ID: nw.String, ITEM_ID: nw.String, TIMESTAMP: nw.Int64, RATING: nw.Float32}
_ROWS_IN_A_FILE = 2**40


def read_stored(
    interactions: str, engine: Engine, *, items: str | None = None, columns: Mapping[str, str] | None = None
) -> RawLog:
    """Opens the log; its ``events`` are the engine's.

    Args:
        interactions: a folder of parquet files, a file, or a pattern; a path or an address (s3://, hdfs://, ...) as the
            engine takes it.
        engine: of ``open_engine``.
        items: parquet with ``item_id`` and ``text`` that polars can scan: a path, or s3://, gs://, az://, https://.
        columns: other names in the files, ours -> theirs.

    Raises:
        DataError: columns that are missing or of another type; times in milliseconds.
    """
    names = {ours: (columns or {}).get(ours, ours) for ours in _TYPES}
    stored = engine.files(interactions)
    schema = stored.collect_schema()
    wanted = {ours: theirs for ours, theirs in names.items() if theirs in schema}
    if missing := [names[ours] for ours in (USER_ID, ITEM_ID) if ours not in wanted]:
        raise DataError(
            f"{interactions}: expected columns {names[USER_ID]} and {names[ITEM_ID]}; {', '.join(missing)} missing, "
            f"the files have {', '.join(name for name in schema if name not in (FILE, PLACE))}; see --columns"
        )
    for ours, theirs in wanted.items():
        _check_type(interactions, ours, theirs, schema[theirs])
    events = _numbered(engine, stored).select(
        ROW, *(nw.col(theirs).cast(_TYPES[ours]).alias(ours) for ours, theirs in wanted.items())
    )
    if RATING in wanted:  # NaN, which is more than every number, as no rating
        events = events.with_columns(nw.when(~nw.col(RATING).is_nan()).then(nw.col(RATING)).alias(RATING))
    dropped = {}
    rows = _count(events)
    for name in wanted:
        if name != RATING:
            events = events.filter(nw.col(name) != "" if _TYPES[name] == nw.String else ~nw.col(name).is_null())
            before, rows = rows, _count(events)
            dropped[f"interactions_without_{name}"] = before - rows
    if TIMESTAMP in wanted:
        latest = _one(events.select(nw.col(TIMESTAMP).max()))
        check_latest(interactions, latest, "divide them where they are written, milliseconds by 1000")
    return RawLog(
        events=events,
        items=pl.scan_parquet(items).select(pl.col(ITEM_ID, TEXT).cast(pl.String)) if items else None,
        reader="stored",
        options={"interactions": interactions, "items": items, "columns": dict(columns or {})},
        dropped=dropped,
        ordered="by time; equal times keep the order of the files' addresses and of their rows",
    )


def _numbered(engine: Engine, stored: nw.LazyFrame) -> nw.LazyFrame:
    """``row`` of ``file`` and ``place``; the files are few enough to be numbered here."""
    files = stored.select(FILE).unique().sort(FILE).collect("polars").to_native().with_row_index(ROW)
    files = files.with_columns(pl.col(ROW).cast(pl.Int64) * _ROWS_IN_A_FILE)
    return stored.join(engine.table(files), on=FILE, how="inner").with_columns(nw.col(ROW) + nw.col(PLACE))


def _check_type(address: str, ours: str, theirs: str, dtype: nw.dtypes.DType) -> None:
    textual, whole, number = dtype == nw.String, dtype.is_integer(), dtype.is_numeric()
    fits = {TIMESTAMP: whole, RATING: number}.get(ours, textual or whole)
    if not fits:
        wanted = {TIMESTAMP: "integers, seconds since 1970", RATING: "numbers"}.get(ours, "strings or integers")
        raise DataError(f"{address}: column {theirs!r}: expected {wanted}, got {dtype}; cast it where it is written")


def _count(frame: nw.LazyFrame) -> int:
    return int(_one(frame.select(nw.len())))


def _one(frame: nw.LazyFrame) -> int | None:
    """The value of one row with one column."""
    return frame.collect("polars").to_native().item()
