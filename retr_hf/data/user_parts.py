"""The kept interactions of a log, collected one part of the users at a time, so that memory is bounded by what is kept.

A user belongs to the part that the hash of its id names, with all of its interactions. Filters, duplicates, order and
the first step of the k-core (most users of a shop's log come once or twice) look at one user at a time, and are
therefore exact on a part. Strings become codes of a dictionary while polars' streaming engine scans: a part's users
have one of their own, which ends with the part; only the items have one for the whole log. What stays of a part is
8 bytes an interaction, 16 with its time, and the names of its users.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from .core import codes_of, counts_of, first_rows
from .schema import ITEM_ID, RATING, TIMESTAMP, USER_ID

_PART = 2**24  # rows of the log in a part, about: 1 GB. Larger dictionaries are slower, each part is one more scan
_ROW = "row"
FIRST = "first"


@dataclass(frozen=True)
class Kept:
    """What is kept of a log.

    Attributes:
        events: one row an interaction, those of a user together, oldest first; equal (or no) times keep file order.
            ``user_id``: UInt32 row of ``users``, ``item_id``: Categorical[, ``timestamp``].
        users: ``user_id``: String, ``first``: UInt32, the row of the log where the user stands first of what is kept.
        dropped: interactions that each condition dropped, and the policy of duplicates, name -> count.
        before: interactions, users and items before the users with fewer than k interactions went.
    """

    events: pl.DataFrame
    users: pl.DataFrame
    dropped: Counter
    before: tuple[int, int, int]


def kept_events(
    events: pl.LazyFrame,
    of_items: pl.DataType,
    conditions: Sequence[tuple[str, pl.Expr]],
    without_duplicates: Callable[[pl.DataFrame, str], pl.DataFrame],
    k: int,
) -> Kept:
    """Scans a log once for each part of its users.

    Args:
        events: as of ``RawLog``.
        of_items: the categorical that the items become.
        conditions: what is dropped where it does not hold, in this order, with the names of the counts.
        without_duplicates: drops duplicates of a frame of whole users in file order, whose column ``row`` (its name
            is the second argument) counts the rows of the log.
        k: users with fewer interactions go; 0 keeps all.
    """
    height = events.select(pl.len()).collect(engine="streaming").item()
    parts = max(1, -(-height // _PART))
    kept, users, dropped, num_users = [], [], Counter(), 0
    interactions, distinct, items = 0, 0, np.zeros(0, np.int64)
    for part in range(parts):
        frame = _part(events, part, parts, of_items)
        for what, condition in conditions:
            fewer = frame.filter(condition)
            dropped[what] += frame.height - fewer.height
            frame = fewer
        height = frame.height
        frame = without_duplicates(frame, _ROW).drop(RATING, strict=False)
        dropped["duplicate_interactions"] += height - frame.height
        of_users, of_its_items = counts_of(codes_of(frame[USER_ID])), counts_of(codes_of(frame[ITEM_ID]))
        interactions += frame.height
        distinct += int(np.count_nonzero(of_users))
        items = _added(items, of_its_items)
        first = frame[_ROW].to_numpy()
        first = first[first_rows(frame[USER_ID])] if len(first) else first
        if k:
            frame = frame.filter(of_users[codes_of(frame[USER_ID])] >= k)
        frame, names = _by_user(frame, first, num_users)
        num_users += names.height
        kept.append(frame)
        users.append(names)
    return Kept(pl.concat(kept), pl.concat(users), dropped, (interactions, distinct, int(np.count_nonzero(items))))


def _part(events: pl.LazyFrame, part: int, parts: int, of_items: pl.DataType) -> pl.DataFrame:
    events = events.with_row_index(_ROW)
    if parts > 1:
        events = events.filter(pl.col(USER_ID).hash(0) % parts == part)
    codes = {USER_ID: pl.Categorical(pl.Categories.random()), ITEM_ID: of_items}
    return events.with_columns(pl.col(name).cast(codes[name]) for name in codes).collect(engine="streaming")


def _by_user(events: pl.DataFrame, first: np.ndarray, start: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A part's interactions user by user, and its users, numbered from ``start`` on.

    first: [codes] the row of the log where a user stands first.
    """
    users = codes_of(events[USER_ID])
    events = events.select(pl.Series(FIRST, first[users]), pl.exclude(_ROW))
    for name in (TIMESTAMP, FIRST):  # one after the other, both stable: half the time of both at once
        events = events.sort(name, maintain_order=True) if name in events.columns else events
    begins = (events[FIRST] != events[FIRST].shift()).fill_null(True)
    names = events.filter(begins).select(pl.col(USER_ID).cast(pl.String), FIRST)
    numbers = (np.cumsum(begins.to_numpy()) + (start - 1)).astype(np.uint32)
    return events.select(pl.Series(USER_ID, numbers), pl.exclude(USER_ID, FIRST)), names


def _added(total: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sums of counts by code, of which later ones know more codes."""
    longer, shorter = (total, counts) if len(total) >= len(counts) else (counts, total)
    longer[: len(shorter)] += shorter
    return longer
