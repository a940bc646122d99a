"""Popularity: how unevenly the interactions fall on the items."""

from dataclasses import dataclass

import numpy as np

from ..schema import TEST, VALIDATION
from .events import Events
from .part import Part

TOP = 10  # the list that a popularity recommender shows everybody
HEAD = 0.01  # of the items
_POINTS = 200  # of a curve


@dataclass(frozen=True)
class PopularityProfile:
    """Over whole histories. I items of the catalogue, in descending order of their interactions.

    Attributes:
        ranks, counts: some points of the rank-frequency curve; the first and the last item touched are among them.
        items, interactions: the Lorenz curve: the share of the least popular items -> their share of interactions.
        gini: 1 - 2 * the area under the Lorenz curve: 0 where all items are equal, towards 1 where one has everything.
        head_items: the most popular 1 % of the items, at least one: in a small catalogue that is more.
        head: interactions with these.
        top_items: the ten items most frequent in training.
        top: targets of validation and test among these: HR@10 of popularity.
        untouched: items without any interaction.
        examples: the two most popular items.
    """

    ranks: np.ndarray
    counts: np.ndarray
    items: np.ndarray
    interactions: np.ndarray
    gini: float
    head_items: Part
    head: Part
    top_items: Part
    top: Part
    untouched: Part
    examples: list[str]


def profile_popularity(events: Events) -> PopularityProfile:
    """The numbers of the items of a domain."""
    count = np.bincount(events.whole.item_ids, minlength=events.domain.num_items + 1)[1:]
    order = np.argsort(-count, kind="stable")
    descending = count[order]
    total, items, touched = int(count.sum()), len(count), int((count > 0).sum())
    head_items = max(1, round(HEAD * items))
    cumulated = np.concatenate([[0], np.cumsum(descending[::-1])]) / total
    share = np.linspace(0, 1, _POINTS + 1)
    ranks = np.unique(np.geomspace(1, touched, _POINTS).round().astype(np.int64))
    best = np.argsort(-events.train_counts[1:], kind="stable")[:TOP] + 1
    targets = np.concatenate(
        [split.item_ids[split.offsets[1:] - 1] for split in (events.splits[VALIDATION], events.splits[TEST])]
    )
    examples = [f"{events.item(row + 1)}: {count[row]:,} interactions" for row in order[:2]]
    return PopularityProfile(
        ranks=ranks,
        counts=descending[ranks - 1],
        items=share,
        interactions=np.interp(share, np.linspace(0, 1, items + 1), cumulated),
        gini=float(1 - (cumulated[1:] + cumulated[:-1]).sum() / items),  # trapezoids of width 1 / items
        head_items=Part(head_items, items),
        head=Part(int(descending[:head_items].sum()), total),
        top_items=Part(len(best), items),
        top=Part(int(np.isin(targets, best).sum()), len(targets)),
        untouched=Part(items - touched, items),
        examples=examples,
    )
