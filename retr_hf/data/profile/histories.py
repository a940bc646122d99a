"""Histories: how long they are, what a maximum length would cut, and what stands in them twice."""

from dataclasses import dataclass

import numpy as np

from ..ragged import gather_ragged
from ..schema import TRAIN
from .events import Events
from .part import Part

MAX_LENGTHS = (50, 100, 200)  # what recipes and papers read: RETR and UniSRec 50, SASRec on MovieLens 200
SECONDS_A_DAY = 86_400
SHORTEST_TWIN = 5  # interactions: two users may well agree in fewer


@dataclass(frozen=True)
class HistoryProfile:
    """U users, T interactions, whole histories (the last target included).

    Attributes:
        lengths, users: distinct lengths, ascending, and how many users have each.
        cut_users: max_length -> users whose history before the last target is longer.
        cut_events: max_length -> interactions that a model never reads then: it sees N items and the target.
        longest: its user, and its share of all interactions.
        median: length.
        without_target: training rows of one item, which train nothing.
        repeated: interactions with an item that the user had touched before.
        same_again: steps from one item to the very same, of all steps.
        identical: interactions with the same user, item and time as another; None without times.
        by_day: all times are midnights, so that "the same time" is the same day.
        twins: users with the very same history as another user, of those with at least 5 interactions.
        examples: name of a count -> a user or two.
    """

    lengths: np.ndarray
    users: np.ndarray
    cut_users: dict[int, Part]
    cut_events: dict[int, Part]
    longest: tuple[str, Part]
    median: float
    without_target: Part
    repeated: Part
    same_again: Part
    identical: Part | None
    by_day: bool
    twins: Part
    examples: dict[str, list[str]]


def profile_histories(events: Events) -> HistoryProfile:
    """The numbers of the histories of a domain; two sorts of T integers are the whole cost."""
    whole = events.whole
    length, total = whole.lengths, len(whole.item_ids)
    lengths, users = np.unique(length, return_counts=True)
    surplus = {limit: np.maximum(length - limit - 1, 0) for limit in MAX_LENGTHS}
    again = np.flatnonzero((whole.item_ids[1:] == whole.item_ids[:-1]) & (events.rows[1:] == events.rows[:-1])) + 1
    repeated, identical = _repeats(events)
    twins, whole_enough = _twins(events)
    longest = int(length.argmax())
    examples = {"same_again": again[:1], "identical": [] if identical is None else identical[:1]}
    examples = {
        name: [f"{events.user(events.rows[event])}, {events.item(whole.item_ids[event])}" for event in found]
        for name, found in examples.items()
    }
    return HistoryProfile(
        lengths=lengths,
        users=users,
        cut_users={limit: Part(int((cut > 0).sum()), len(whole)) for limit, cut in surplus.items()},
        cut_events={limit: Part(int(cut.sum()), total) for limit, cut in surplus.items()},
        longest=(events.user(longest), Part(int(length[longest]), total)),
        median=float(np.median(length)),
        without_target=Part(int((events.splits[TRAIN].lengths < 2).sum()), len(events.splits[TRAIN])),
        repeated=Part(repeated, total),
        same_again=Part(len(again), total - len(whole)),
        identical=None if identical is None else Part(len(identical), total),
        by_day=whole.timestamps is not None and not (whole.timestamps % SECONDS_A_DAY).any(),
        twins=Part(len(twins), whole_enough),
        examples=examples | {"twins": [events.user(row) for row in twins[:2]]},
    )


def _repeats(events: Events) -> tuple[int, np.ndarray | None]:
    """How many interactions repeat an earlier one of their user, and which of them at the same time."""
    whole = events.whole
    key = events.rows * (events.domain.num_items + 1) + whole.item_ids
    order = np.argsort(key, kind="stable")  # equal keys keep their order in time
    key = key[order]
    same = key[1:] == key[:-1]
    if whole.timestamps is None:
        return int(same.sum()), None
    later = order[1:][same]
    return len(later), np.sort(later[whole.timestamps[later] == whole.timestamps[order[:-1][same]]])


def _twins(events: Events) -> tuple[np.ndarray, int]:
    """Rows whose history another user has too, twins side by side; and how many rows were long enough to be asked.

    Histories are compared by a 64-bit fingerprint, the sum over places p of random(item) * random(p), odd, mod 2^64:
    for U users the probability of any false pair is about U^2 / 2^65.
    """
    asked = np.flatnonzero(events.whole.lengths >= SHORTEST_TWIN)
    if not len(asked):
        return asked, 0
    lengths = events.whole.lengths[asked]
    items = gather_ragged(events.whole.item_ids, events.whole.offsets[asked], lengths)
    first = np.cumsum(lengths) - lengths
    draw = np.random.default_rng(0)
    of_item, of_place = (draw.integers(2**64, size=n, dtype=np.uint64) | np.uint64(1) for n in _sizes(events, lengths))
    places = np.arange(len(items)) - np.repeat(first, lengths)
    fingerprint = np.add.reduceat(of_item[items] * of_place[places], first)
    _, group, size = np.unique(fingerprint, return_inverse=True, return_counts=True)
    twins = np.flatnonzero(size[group] > 1)
    return asked[twins[np.argsort(group[twins], kind="stable")]], len(asked)


def _sizes(events: Events, lengths: np.ndarray) -> tuple[int, int]:
    return events.domain.num_items + 1, int(lengths.max())
