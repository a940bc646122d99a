"""Which kind of behaviours a router keeps: those of rare items or of popular ones, the newest or the oldest."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .histories import Routings

PARTS = 5  # of the behaviours, from the rarest items to the most popular
AGES = (1, 2, 3, 4, 5, 10, 20, 50)  # last age of a part; older ones make another


class Part(NamedTuple):
    """Behaviours of one kind.

    Attributes:
        label: what they have in common, "9-18".
        behaviours: how many there are.
        kept: share of them on the pathway, a number a block.
        keep_probability: their mean α, a number a block.
    """

    label: str
    behaviours: int
    kept: list[float]
    keep_probability: list[float]


def by_popularity(found: Routings, sequences, counts: np.ndarray) -> list[Part]:
    """Behaviours by how often their item was bought in training, in five parts of about as many behaviours each.

    Behaviours of one item are in one part, so there are fewer parts where few items make most of the behaviours.

    Args:
        found: the routes of some histories (``histories.routings``), at least one behaviour.
        sequences: those it was found for; ``item_ids`` [total].
        counts: int [M], training interactions of each item.
    """
    bought = counts[sequences.item_ids[found.places]]
    bounds = np.quantile(bought, np.arange(1, PARTS) / PARTS, method="inverted_cdf")
    return list(_parts(found, bought, np.unique(bounds)))


def by_age(found: Routings, sequences) -> list[Part]:
    """Behaviours by age: 1 is the last one before the target; arguments as for ``by_popularity``, and ``offsets``
    [U + 1] of the sequences, whose last item is the target."""
    offsets = np.asarray(sequences.offsets)
    ends = offsets[np.searchsorted(offsets, found.places, side="right")]
    return list(_parts(found, ends - 1 - found.places, np.array(AGES)))


def _parts(found: Routings, values: np.ndarray, bounds: np.ndarray) -> Iterator[Part]:
    """Behaviours whose value is at most the first bound, then at most the second, and so on; empty parts left out."""
    part_of = np.searchsorted(bounds, values, side="left")
    for part in range(len(bounds) + 1):
        inside = part_of == part
        if not inside.any():
            continue
        least, most = values[inside].min(), values[inside].max()
        kept, alpha = (
            [round(float(block), 4) for block in each[:, inside].mean(axis=1, dtype=np.float64)]
            for each in (found.routes, found.keep_probabilities)
        )
        yield Part(f"{least}" if least == most else f"{least}-{most}", int(inside.sum()), kept, alpha)
