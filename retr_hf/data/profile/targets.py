"""Targets: how the splits are cut, which targets training has never seen, which the user has seen already."""

from dataclasses import dataclass

import numpy as np

from ..domain import Sequences
from ..schema import SPLITS, TEST, TRAIN, VALIDATION
from .events import Events
from .part import Part

FAR = (1, 5, 20)  # steps back from the target: the last item, the last few, a screen of them
PLACES = ("the last item", "2 - 5 back", "6 - 20 back", "further back", "nowhere: new to the user")


@dataclass(frozen=True)
class TargetProfile:
    """Of validation and test, ``of[split]`` each.

    Attributes:
        rows: split -> rows, train included.
        events: interactions in training; of the other splits, the targets are the rows.
        cold: split -> targets whose item is in no training row.
        cold_items: distinct items among the cold targets of both splits.
        untrained: items of the catalogue that are in no training row.
        seen: split -> targets that stand in their own history.
        last: split -> targets that are the last item of their history.
        places: [5] where the test targets stand in their own history, the latest occurrence of each: ``PLACES``.
        examples: "cold", "seen" -> an item or two, a user.
    """

    rows: dict[str, int]
    events: int
    cold: dict[str, Part]
    cold_items: int
    untrained: Part
    seen: dict[str, Part]
    last: dict[str, Part]
    places: np.ndarray
    examples: dict[str, list[str]]


def profile_targets(events: Events) -> TargetProfile:
    """The numbers of the splits of a domain."""
    trained = events.train_counts > 0
    trained[0] = True  # an index that is no item is nobody's fault here
    evaluated = {name: events.splits[name] for name in (VALIDATION, TEST)}
    targets = {name: split.item_ids[split.offsets[1:] - 1] for name, split in evaluated.items()}
    cold = {name: items[~trained[items]] for name, items in targets.items()}
    back = {name: _steps_back(split) for name, split in evaluated.items()}
    never = np.unique(np.concatenate(list(cold.values())))
    users = events.domain.user_ids(TEST)
    return TargetProfile(
        rows={name: len(events.splits[name]) for name in SPLITS},
        events=len(events.splits[TRAIN].item_ids),
        cold={name: Part(len(items), len(targets[name])) for name, items in cold.items()},
        cold_items=len(never),
        untrained=Part(int((~trained).sum()), events.domain.num_items),
        seen={name: Part(int((steps > 0).sum()), len(steps)) for name, steps in back.items()},
        last={name: Part(int((steps == 1).sum()), len(steps)) for name, steps in back.items()},
        places=_places(back[TEST]),
        examples={
            "cold": [events.item(item) for item in never[:2]],
            "seen": [
                f"user {users[row]}, {events.item(targets[TEST][row])}" for row in np.flatnonzero(back[TEST] > 0)[:1]
            ],
        },
    )


def _steps_back(rows: Sequences) -> np.ndarray:
    """[rows] from the target back to its latest occurrence in the history, 1 the item before it; 0 where it is new."""
    if not len(rows):
        return np.zeros(0, np.int64)
    ends = np.repeat(rows.offsets[1:] - 1, rows.lengths)
    steps = ends - np.arange(rows.offsets[0], rows.offsets[-1])
    never = len(steps) + 1
    steps[(rows.item_ids != rows.item_ids[ends]) | (steps == 0)] = never
    nearest = np.minimum.reduceat(steps, rows.offsets[:-1])
    return np.where(nearest == never, 0, nearest)


def _places(steps: np.ndarray) -> np.ndarray:
    """[5] how many targets are in each of ``PLACES``."""
    place = np.where(steps > 0, np.searchsorted(FAR, steps), len(FAR) + 1)
    return np.bincount(place, minlength=len(PLACES))
