"""RawLog -> RawDomain: which interactions count (ratings, dates, metadata, duplicates, k-core), one sequence a user.

The order of the steps is fixed and told in the counts: rating, dates, metadata, duplicates, k-core; the split comes
after, in `prepare`. A user's interactions are ordered by time, equal times by file order (``RawLog.ordered``); users
come in order of first appearance in the file.

One path for small and large logs: filters, k-core and order work on integers (see `user_parts`), no column of id
strings is ever whole in memory, and only of survivors are the texts read. polars, because it reads the spool already;
DuckDB would be a second engine, and pyarrow has no dictionary across batches that grows.
"""

import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial

import polars as pl

from ..errors import DataError
from .core import codes_of, counted_k_core
from .readers.raw import RawDomain, RawLog
from .schema import ITEM_ID, ITEM_IDS, RATING, TEXT, TIMESTAMP, TIMESTAMPS, USER_ID
from .user_parts import FIRST, kept_events

WITHOUT_METADATA = "interactions_with_items_without_metadata"
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

    def check(self, log: RawLog) -> None:
        """Raises DataError where an option asks for what the log lacks."""
        columns = log.events.collect_schema().names()
        if self.duplicates not in DUPLICATES:
            raise DataError(f"duplicates: expected one of {', '.join(DUPLICATES)}; got {self.duplicates!r}")
        if self.min_rating is not None and RATING not in columns:
            raise DataError(f"min_rating: {log.reader} has no ratings; leave out --min-rating")
        if (self.since or self.until) and TIMESTAMP not in columns:
            raise DataError(f"since, until: {log.reader} has no times; leave out --since and --until")
        if self.with_metadata and log.items is None:
            raise DataError("with_metadata: expected an item table to join with, got none; pass --items FILE")

    def bounds(self) -> list[tuple[str, str, Callable, float]]:
        """What is dropped by one column alone: its name in the counts, the column, and the comparison that keeps."""
        bounds = []
        if self.min_rating is not None:
            bounds.append(("interactions_without_a_rating", RATING, operator.gt, float("-inf")))
            bounds.append((f"interactions_rated_below_{self.min_rating:g}", RATING, operator.ge, self.min_rating))
        if self.since:
            bounds.append((f"interactions_before_{self.since}", TIMESTAMP, operator.ge, seconds_of(self.since)))
        if self.until:
            bounds.append((f"interactions_from_{self.until}_on", TIMESTAMP, operator.lt, seconds_of(self.until)))
        return bounds

    def told(self) -> dict[str, object]:
        """The options that differ from the default."""
        default = asdict(LogOptions())
        return {key: value for key, value in asdict(self).items() if value != default[key]}


def domain_of_log(log: RawLog, options: LogOptions | None = None, k_core: int = 0) -> RawDomain:
    """What is kept of a log, grouped by user; ``item_ids`` are lists of categoricals.

    Args:
        log: the log.
        options: what to keep; by default everything.
        k_core: see ``write_domain``; here it spares the grouping of what will not survive.

    Raises:
        DataError: an option asks for what the log lacks, nothing is left, or none of what is left is in the item
            table.
    """
    options = options or LogOptions()
    options.check(log)
    dropped = dict(log.dropped)
    of_items = pl.Categorical(pl.Categories.random())
    listed = _listed(log, of_items)  # held to the end: the dictionary goes with its last column
    num_listed = listed.n_unique()
    dropped["item_rows_doubled"] = listed.len() - num_listed
    kept = kept_events(
        log.events.select(_needed(log, options)),
        of_items,
        _conditions(options, num_listed),
        partial(_without_duplicates, policy=options.duplicates),
        k_core,
    )
    dropped |= kept.dropped
    if not kept.before[0]:
        if dropped.get(WITHOUT_METADATA):
            raise nothing_in_common(log)
        told = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in dropped.items() if count)
        raise DataError(f"{log.reader}: expected interactions, but none is left; dropped: {told or 'nothing'}")
    events, users, before = kept.events, kept.users, kept.before
    del kept  # what is not in the core goes before the lists are made
    events = counted_k_core(events, k_core, dropped, before) if k_core else events
    if log.items is not None and not (codes_of(events[ITEM_ID]) < num_listed).any():
        raise nothing_in_common(log)
    sequences = _sequences(events, users)
    items = _items(log, None if log.whole_catalogue else events[ITEM_ID].unique())
    dropped["rows_of_the_item_table_not_used"] = num_listed - items.height
    return RawDomain(
        sequences=sequences,
        items=items,
        reader=log.reader,
        inputs=log.inputs,
        options={**log.options, "ordered": log.ordered, **options.told()},
        dropped=dropped,
        whole_catalogue=log.whole_catalogue,
        k_core=k_core,
        strangers=_strangers(log) if (codes_of(events[ITEM_ID]) >= num_listed).any() else (),
    )


def _strangers(log: RawLog) -> list[str]:
    """Three ids of the item table that the log does not name: perhaps the two spell ids differently."""
    if log.items is None:
        return []
    named = log.events.select(pl.col(ITEM_ID).cast(pl.String)).unique()
    return log.items.select(ITEM_ID).join(named, on=ITEM_ID, how="anti").head(3).collect().to_series().to_list()


def nothing_in_common(log: RawLog) -> DataError:
    """The error where no interaction that is kept is with an item of the item table: an id of either, to compare."""
    listed = log.items.select(ITEM_ID)
    others = log.events.select(pl.col(ITEM_ID).cast(pl.String)).join(listed, on=ITEM_ID, how="anti")
    of_log = others.select(pl.col(ITEM_ID).min()).collect(engine="streaming").item()
    of_table = listed.head(1).collect().to_series().to_list()
    return DataError(
        f"{log.reader}: expected an item table with the items of the log, but it has none of those that are kept: the "
        f"log names items such as {of_log!r}, the table {', '.join(map(repr, of_table)) or 'none at all'}; name the "
        "columns that hold the same ids (tables: --columns item_id=... and --items-id), write the ids alike, or leave "
        "out --items for a domain of ids only"
    )


def _sequences(events: pl.DataFrame, users: pl.DataFrame) -> pl.DataFrame:
    """One row a user, in the order of first appearance; ``events`` and ``users`` as of ``Kept``."""
    names = {name: plural for name, plural in ((ITEM_ID, ITEM_IDS), (TIMESTAMP, TIMESTAMPS)) if name in events.columns}
    rows = events.with_columns(pl.col(USER_ID).set_sorted()).group_by(USER_ID, maintain_order=True)
    rows = rows.agg(pl.col(name).alias(plural) for name, plural in names.items())
    rows = rows[users[FIRST].gather(rows[USER_ID]).arg_sort()]
    return rows.with_columns(users[USER_ID].gather(rows[USER_ID]))


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


def _conditions(options: LogOptions, num_listed: int) -> list[tuple[str, pl.Expr]]:
    """Names and conditions of what is kept; the items of the item table have the codes below ``num_listed``."""
    conditions = [(what, holds(pl.col(column), bound)) for what, column, holds, bound in options.bounds()]
    if options.with_metadata:
        conditions.append((WITHOUT_METADATA, pl.col(ITEM_ID).to_physical() < num_listed))
    return conditions


def _without_duplicates(events: pl.DataFrame, row: str, policy: str) -> pl.DataFrame:
    """``events`` in file order, numbered by their column ``row``."""
    if policy == "all":
        return events
    if policy == "identical":
        same = [name for name in events.columns if name != row]
        return events.unique(same, keep="first", maintain_order=True)
    events = events.sort([name for name in (TIMESTAMP, row) if name in events.columns])
    if policy == "consecutive":
        same = (pl.col(ITEM_ID) == pl.col(ITEM_ID).shift().over(USER_ID)).fill_null(False)
        events = events.filter(~same)
    else:
        events = events.unique([USER_ID, ITEM_ID], keep=policy, maintain_order=True)
    return events.sort(row)


def seconds_of(date: str) -> int:
    """YYYY-MM-DD (UTC) as seconds since 1970; raises DataError."""
    try:
        return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp())
    except ValueError as error:
        raise DataError(f"date: expected YYYY-MM-DD, such as 2019-01-01, got {date!r}") from error


def _no_items() -> pl.DataFrame:
    return pl.DataFrame(schema={ITEM_ID: pl.String, TEXT: pl.String})
