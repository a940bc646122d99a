"""RawLog -> RawDomain: which interactions count (ratings, dates, metadata, duplicates, k-core), one sequence a user.

The order of the steps is fixed and told in the counts: rating, dates, metadata, duplicates, k-core; the split comes
after, in `prepare`. A user's interactions are ordered by time, equal times by file order (``RawLog.ordered``); users
come in order of first appearance in the file.

One path for small and large logs. Ids become categoricals (uint32 codes of a dictionary) while polars' streaming engine
scans, so no column of id strings is ever whole in memory: 8 bytes an interaction, 16 with its time, plus the
dictionaries. Filters, k-core and order then work on integers, and only of survivors are the texts read. polars, because
it reads the spool already; DuckDB would be a second engine, and pyarrow has no dictionary across batches that grows.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import numpy as np
import polars as pl

from ..errors import DataError
from .core import coded, codes_of, counted_k_core, first_rows
from .readers.raw import RawDomain, RawLog
from .schema import ITEM_ID, ITEM_IDS, RATING, TEXT, TIMESTAMP, TIMESTAMPS, USER_ID

_ROW = "row"
_FIRST = "first"
DUPLICATES = {
    "all": "keep all: repeats are behaviour",
    "identical": "drop rows that agree in everything (user, item, rating, time), as UniSRec does",
    "first": "keep a user's first interaction with an item",
    "last": "keep a user's last interaction with an item",
    "consecutive": "drop interactions with the item that the user touched just before",
}


@dataclass(frozen=True)
class LogOptions:
    """What of a log is kept.

    Attributes:
        min_rating: interactions rated lower are dropped; None: every rating is an interaction, as in the papers.
        since, until: dates (YYYY-MM-DD, UTC); kept is since <= time < until.
        with_metadata: drop interactions with items that have no row in the item table.
        duplicates: a key of DUPLICATES; k-core counts what it leaves.
    """

    min_rating: float | None = None
    since: str | None = None
    until: str | None = None
    with_metadata: bool = False
    duplicates: str = "all"


def domain_of_log(log: RawLog, options: LogOptions | None = None, k_core: int = 0) -> RawDomain:
    """What is kept of a log, grouped by user; ``item_ids`` are lists of categoricals.

    Args:
        log: the log.
        options: what to keep; by default everything.
        k_core: see ``write_domain``; here it spares the grouping of what will not survive.

    Raises:
        DataError: an option asks for what the log lacks, or nothing is left.
    """
    options = options or LogOptions()
    _check(log, options)
    dropped = dict(log.dropped)
    columns = _needed(log, options)
    of_items = pl.Categorical(pl.Categories.random())
    types = {USER_ID: pl.Categorical(pl.Categories.random()), ITEM_ID: of_items}
    events = log.events.select(pl.col(name).cast(types[name]) if name in types else name for name in columns)
    events = events.collect(engine="streaming")
    listed = _listed(log, of_items)
    dropped["item_rows_doubled"] = listed.len() - listed.n_unique()
    for what, condition in _conditions(options, listed):
        kept = events.filter(condition)
        dropped[f"interactions_{what}"] = events.height - kept.height
        events = kept
    before = events.height
    events = _without_duplicates(events, options.duplicates).drop(RATING, strict=False)
    dropped["duplicate_interactions"] = before - events.height
    if events.is_empty():
        told = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in dropped.items() if count)
        raise DataError(f"{log.reader}: expected interactions, but none is left; dropped: {told or 'nothing'}")
    first = first_rows(events[USER_ID])
    events = counted_k_core(events, k_core, dropped) if k_core else events
    sequences = sequences_of(events, first)
    items = _items(log, None if log.whole_catalogue else events[ITEM_ID].unique())
    dropped["rows_of_the_item_table_not_used"] = listed.n_unique() - items.height
    return RawDomain(
        sequences=sequences,
        items=items,
        reader=log.reader,
        inputs=log.inputs,
        options={**log.options, "ordered": log.ordered, **_told(options)},
        dropped=dropped,
        whole_catalogue=log.whole_catalogue,
        k_core=k_core,
    )


def sequences_of(events: pl.DataFrame, first: np.ndarray | None = None) -> pl.DataFrame:
    """One row a user, oldest interaction first; equal (or no) times keep the row order.

    Args:
        events: ``user_id``, ``item_id``[, ``timestamp``].
        first: [codes] where the users stood first, by their codes; users come in this order. By default here.
    """
    users = coded(events[USER_ID])
    first = first_rows(users) if first is None else first
    names = {ITEM_ID: ITEM_IDS, TIMESTAMP: TIMESTAMPS}
    aligned = [name for name in names if name in events.columns]
    events = events.select(pl.Series(_FIRST, first[codes_of(users)]), users.alias(USER_ID), *aligned)
    events = events.sort([_FIRST, *aligned[1:]], maintain_order=True)
    rows = events.group_by(_FIRST, maintain_order=True).agg(pl.col(USER_ID).first(), *aligned)
    rows = rows.select(pl.col(USER_ID).cast(pl.String), *aligned)
    return rows.rename({name: names[name] for name in aligned})


def _needed(log: RawLog, options: LogOptions) -> list[str]:
    """Columns of the log to hold; ratings only where they decide."""
    rated = options.min_rating is not None or options.duplicates == "identical"
    return [name for name in log.events.collect_schema().names() if name != RATING or rated]


def _listed(log: RawLog, of_items: pl.DataType) -> pl.Series:
    """The ids of the item table, in the dictionary of the interactions."""
    items = _no_items().lazy() if log.items is None else log.items
    return items.select(pl.col(ITEM_ID).cast(of_items)).collect(engine="streaming")[ITEM_ID]


def _items(log: RawLog, occurring: pl.Series | None) -> pl.DataFrame:
    """The first row of every item, of those that occur."""
    if log.items is None:
        return _no_items()
    items = log.items
    if occurring is not None:
        ids = occurring.cast(pl.String).to_frame(ITEM_ID).lazy()
        items = items.join(ids, on=ITEM_ID, how="semi", maintain_order="left")
    return items.collect(engine="streaming").unique(ITEM_ID, keep="first", maintain_order=True)


def _check(log: RawLog, options: LogOptions) -> None:
    columns = log.events.collect_schema().names()
    if options.duplicates not in DUPLICATES:
        raise DataError(f"duplicates: expected one of {', '.join(DUPLICATES)}; got {options.duplicates!r}")
    if options.min_rating is not None and RATING not in columns:
        raise DataError(f"min_rating: {log.reader} has no ratings; leave out --min-rating")
    if (options.since or options.until) and TIMESTAMP not in columns:
        raise DataError(f"since, until: {log.reader} has no times; leave out --since and --until")
    if options.with_metadata and log.items is None:
        raise DataError("with_metadata: expected an item table to join with, got none; pass --items FILE")


def _conditions(options: LogOptions, item_ids: pl.Series) -> list[tuple[str, pl.Expr]]:
    conditions = []
    if options.min_rating is not None:
        conditions.append((f"rated_below_{options.min_rating:g}", pl.col(RATING) >= options.min_rating))
    if options.since:
        conditions.append((f"before_{options.since}", pl.col(TIMESTAMP) >= seconds_of(options.since)))
    if options.until:
        conditions.append((f"from_{options.until}_on", pl.col(TIMESTAMP) < seconds_of(options.until)))
    if options.with_metadata:
        conditions.append(("with_items_without_metadata", pl.col(ITEM_ID).is_in(item_ids.implode())))
    return conditions


def _without_duplicates(events: pl.DataFrame, policy: str) -> pl.DataFrame:
    if policy == "all":
        return events
    if policy == "identical":
        return events.unique(keep="first", maintain_order=True)
    events = events.with_row_index(_ROW)
    events = events.sort([name for name in (TIMESTAMP, _ROW) if name in events.columns])
    if policy == "consecutive":
        same = (pl.col(ITEM_ID) == pl.col(ITEM_ID).shift().over(USER_ID)).fill_null(False)
        events = events.filter(~same)
    else:
        events = events.unique([USER_ID, ITEM_ID], keep=policy, maintain_order=True)
    return events.sort(_ROW).drop(_ROW)


def seconds_of(date: str) -> int:
    """YYYY-MM-DD (UTC) as seconds since 1970; raises DataError."""
    try:
        return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp())
    except ValueError as error:
        raise DataError(f"date: expected YYYY-MM-DD, such as 2019-01-01, got {date!r}") from error


def _told(options: LogOptions) -> dict[str, object]:
    """The options that differ from the default."""
    default = asdict(LogOptions())
    return {key: value for key, value in asdict(options).items() if value != default[key]}


def _no_items() -> pl.DataFrame:
    return pl.DataFrame(schema={ITEM_ID: pl.String, TEXT: pl.String})
