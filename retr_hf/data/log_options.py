"""RawLog -> RawDomain: which interactions count (ratings, dates, metadata, duplicates), then one sequence a user.

The order of the steps is fixed and told in the counts: rating, dates, metadata, duplicates; k-core and split come
after, in `prepare`. A user's interactions are ordered by time, equal times by file order (``RawLog.ordered``); users
come in order of first appearance in the file.
"""

from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import polars as pl

from ..errors import DataError
from .readers.raw import RawDomain, RawLog
from .schema import ITEM_ID, ITEM_IDS, RATING, TEXT, TIMESTAMP, TIMESTAMPS, USER_ID

_ROW = "row"
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


def domain_of_log(log: RawLog, options: LogOptions | None = None) -> RawDomain:
    """Collects a log and groups it by user. NOTE: in memory.

    Raises:
        DataError: an option asks for what the log lacks, or nothing is left.
    """
    options = options or LogOptions()
    _check(log, options)
    dropped = dict(log.dropped)
    events = log.events.collect(engine="streaming").with_row_index(_ROW)
    items = log.items.collect(engine="streaming") if log.items is not None else _no_items()
    doubled = items.height - items[ITEM_ID].n_unique()
    dropped["item_rows_doubled"] = doubled
    items = items.unique(ITEM_ID, keep="first", maintain_order=True) if doubled else items
    for what, condition in _conditions(options, items[ITEM_ID]):
        kept = events.filter(condition)
        dropped[f"interactions_{what}"] = events.height - kept.height
        events = kept
    kept = _without_duplicates(events, options.duplicates)
    dropped["duplicate_interactions"] = events.height - kept.height
    if kept.is_empty():
        told = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in dropped.items() if count)
        raise DataError(f"{log.reader}: expected interactions, but none is left; dropped: {told or 'nothing'}")
    return RawDomain(
        sequences=sequences_of(kept),
        items=items,
        reader=log.reader,
        inputs=log.inputs,
        options={**log.options, "ordered": log.ordered, **_told(options)},
        dropped=dropped,
        whole_catalogue=log.whole_catalogue,
    )


def sequences_of(events: pl.DataFrame) -> pl.DataFrame:
    """One row a user in order of first appearance, oldest interaction first; equal (or no) times keep the row order."""
    if TIMESTAMP not in events.columns:
        return events.group_by(USER_ID, maintain_order=True).agg(pl.col(ITEM_ID).alias(ITEM_IDS))
    in_time = [
        pl.col(column).sort_by(TIMESTAMP, maintain_order=True).alias(name)
        for column, name in ((ITEM_ID, ITEM_IDS), (TIMESTAMP, TIMESTAMPS))
    ]
    return events.group_by(USER_ID, maintain_order=True).agg(in_time)


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
        return events.unique(pl.exclude(_ROW), keep="first", maintain_order=True)
    order = [name for name in (TIMESTAMP, _ROW) if name in events.columns]
    events = events.sort(order)
    if policy == "consecutive":
        same = (pl.col(ITEM_ID) == pl.col(ITEM_ID).shift().over(USER_ID)).fill_null(False)
        return events.filter(~same).sort(_ROW)
    return events.unique([USER_ID, ITEM_ID], keep=policy, maintain_order=True).sort(_ROW)


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
