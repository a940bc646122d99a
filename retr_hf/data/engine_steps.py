"""The steps of a preparation over any engine of `engines`: which interactions count, k-core, order.

They are those of `log_options`, and the domain is the same, byte for byte. Where that holds ids as codes of a
dictionary, these number a user (an item) by the row of the log where it stands first: one join over the strings, no
dictionary that all machines would have to share, and users sort in order of first appearance. K-core and order then
work on columns of int64. What comes back to this machine are the survivors as integers and each name once; they are a
log of their own, smaller and in order, and go on like any other.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import narwhals as nw
import polars as pl

from .core import counted_k_core
from .engines import ROW, Engine
from .log_options import WITHOUT_METADATA, LogOptions, domain_of_log, nothing_in_common
from .readers.raw import RawDomain, RawLog
from .schema import ITEM_ID, RATING, TIMESTAMP, USER_ID

_USER, _ITEM = "user", "item"  # int64: the row where it stands first
_SIDES = ((_USER, USER_ID), (_ITEM, ITEM_ID))
_COUNT = "count"
_DUPLICATES = "duplicate_interactions"


def domain_by_engine(engine: Engine, log: RawLog, options: LogOptions | None = None, k_core: int = 0) -> RawDomain:
    """``log_options.domain_of_log``, by an engine.

    Args:
        engine: of ``open_engine``.
        log, options, k_core: as there.

    Raises:
        DataError: as there.
    """
    options = options or LogOptions()
    options.check(log)
    dropped = {**log.dropped, "item_rows_doubled": 0}
    events = _chosen(engine, log, options, dropped)
    if options.duplicates != "all":
        events = engine.keep(_without_duplicates(events, options.duplicates), "distinct")
    survivors = _survivors(engine, engine.keep(_with_numbers(events), "chosen"), k_core, dropped)
    survivors = survivors.lazy().with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.String))
    domain = domain_of_log(replace(log, events=survivors, dropped=dropped))
    return replace(
        domain,
        options=domain.options | options.told(),
        dropped={**domain.dropped, _DUPLICATES: dropped[_DUPLICATES]},
        k_core=k_core,
    )


def numbered(engine: Engine, events: pl.LazyFrame) -> nw.LazyFrame:
    """What polars scans, for the engine: written once more, with the number of each row."""
    path = Path(mkdtemp(dir=engine.folder)) / "numbered.parquet"
    events.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64)).sink_parquet(path, compression="lz4")
    return engine.scan(path)


def _chosen(engine: Engine, log: RawLog, options: LogOptions, dropped: dict[str, int]) -> nw.LazyFrame:
    events = log.events if isinstance(log.events, nw.LazyFrame) else numbered(engine, log.events)
    left = _count(events)
    for what, column, holds, bound in options.bounds():
        events = events.filter(holds(nw.col(column), nw.lit(bound, nw.Float32) if column == RATING else bound))
        left = _record(what, left, _count(events), dropped)
    if options.with_metadata:
        listed = log.items.select(ITEM_ID).collect(engine="streaming").unique()
        listed_here = events.join(engine.table(listed), on=ITEM_ID, how="semi")
        before, left = left, _record(WITHOUT_METADATA, left, _count(listed_here), dropped)
        if before and not left:
            raise nothing_in_common(replace(log, events=_here(events.select(nw.col(ITEM_ID).min())).lazy()))
        events = listed_here
    dropped[_DUPLICATES] = left  # less what will stay
    rated = options.duplicates == "identical"
    return events if rated else events.drop(RATING, strict=False)


def _without_duplicates(events: nw.LazyFrame, policy: str) -> nw.LazyFrame:
    if policy == "identical":
        events = events.unique([name for name in events.collect_schema() if name != ROW], keep="first", order_by=[ROW])
    elif policy in ("first", "last"):
        events = events.unique([USER_ID, ITEM_ID], keep=policy, order_by=_order(events))
    elif policy == "consecutive":
        before = nw.col(ITEM_ID).shift(1).over(USER_ID, order_by=_order(events))
        events = events.filter(~(nw.col(ITEM_ID) == before).fill_null(False))
    return events.drop(RATING, strict=False)


def _with_numbers(events: nw.LazyFrame) -> nw.LazyFrame:
    numbers = [events.group_by(name).agg(nw.col(ROW).min().alias(side)) for side, name in _SIDES]
    for of_side, (_, name) in zip(numbers, _SIDES, strict=True):
        events = events.join(of_side, on=name, how="inner")
    return events


def _survivors(engine: Engine, named: nw.LazyFrame, k: int, dropped: dict[str, int]) -> pl.DataFrame:
    """The k-core here, as ``RawLog.events``, each user's interactions together and in order."""
    left = _count(named)
    dropped[_DUPLICATES] -= left
    # number and name of every user and item, off the row where it stands first
    names = [named.filter(nw.col(ROW) == nw.col(side)).select(side, name) for side, name in _SIDES]
    before = (left, *map(_count, names))
    events = named.drop(USER_ID, ITEM_ID)
    if k and left:
        events = _k_core(engine, events, left, k)
        names = [
            frame.join(events.select(side).unique(), on=side, how="semi")
            for frame, (side, _) in zip(names, _SIDES, strict=True)
        ]
    rows = _here(events.sort(_USER, *_order(events)).drop(ROW))
    for (side, column), of_side in zip(_SIDES, names, strict=True):
        of_side = _here(of_side.sort(side))
        ids = of_side[column].cast(pl.Categorical(pl.Categories.random()))
        rows = rows.with_columns(ids.gather(of_side[side].search_sorted(rows[side]))).drop(side)
    return counted_k_core(rows, k, dropped, before) if k and left else rows


def _k_core(engine: Engine, events: nw.LazyFrame, left: int, k: int) -> nw.LazyFrame:
    while True:
        for side, _ in _SIDES:
            counts = events.group_by(side).agg(nw.len().alias(_COUNT))
            events = events.join(counts.filter(nw.col(_COUNT) >= k).select(side), on=side, how="semi")
        events = engine.keep(events, "core")
        before, left = left, _count(events)
        if left in (before, 0):
            return events


def _order(events: nw.LazyFrame) -> list[str]:
    return [name for name in (TIMESTAMP, ROW) if name in events.collect_schema()]


def _here(frame: nw.LazyFrame) -> pl.DataFrame:
    return frame.collect("polars").to_native()


def _count(frame: nw.LazyFrame) -> int:
    return int(_here(frame.select(nw.len().alias(_COUNT))).item())


def _record(what: str, before: int, after: int, dropped: dict[str, int]) -> int:
    dropped[what] = before - after
    return after
