"""A prepared domain opened for looking: its splits, and every user's whole history once."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ..domain import PreparedDomain, Sequences
from ..schema import SPLITS, TRAIN, USER_ID

_TYPES = {USER_ID: pl.String}  # of an empty split too
_LONGEST_TITLE = 60  # letters of an item's text in an example


@dataclass(frozen=True)
class Events:
    """What a look reads. U users, T interactions of their whole histories.

    Attributes:
        domain: it comes from.
        splits: name -> the rows of that split.
        whole: [U] the longest row of each user, whichever split it is in: what ``statistics`` counts as interactions.
        users: [U] raw ids of ``whole``.
        item_ids, texts: [I] of the catalogue, index i in place i - 1.
    """

    domain: PreparedDomain
    splits: dict[str, Sequences]
    whole: Sequences
    users: list[str]
    item_ids: list[str]
    texts: list[str]

    @cached_property
    def rows(self) -> np.ndarray:
        """[T] int64 the row of ``whole`` that each interaction belongs to."""
        return np.repeat(np.arange(len(self.whole)), self.whole.lengths)

    @cached_property
    def train_counts(self) -> np.ndarray:
        """[I + 1] how often each item index occurs in training."""
        return np.bincount(self.splits[TRAIN].item_ids, minlength=self.domain.num_items + 1)

    def item(self, index: int) -> str:
        """An example to show: the raw id of an item index, and how its text begins."""
        text = " ".join(self.texts[index - 1].split())
        text = text if len(text) <= _LONGEST_TITLE else text[: _LONGEST_TITLE - 1].rstrip(" .,;:-") + "…"
        return f"item {self.item_ids[index - 1]}" + (f" “{text}”" if text else "")

    def user(self, row: int) -> str:
        """An example to show: the raw id of a row of ``whole``."""
        return f"user {self.users[row]}"


def open_events(domain: PreparedDomain) -> Events:
    """Reads the interactions and the items of a domain, without its vectors.

    Raises:
        DataError: a split is missing.
        ValueError: the catalogue is damaged.
    """
    splits = {name: domain.split(name) for name in SPLITS}
    rows = pl.concat(
        pl.DataFrame({USER_ID: domain.user_ids(name), "length": sequences.lengths}, schema_overrides=_TYPES)
        for name, sequences in splits.items()
    ).with_row_index("row")
    longest = rows.sort("length", descending=True, maintain_order=True).unique(USER_ID, keep="first").sort("row")
    catalog = domain.catalog(embeddings=False)
    whole = _end_to_end(list(splits.values())).select(longest["row"].to_numpy().astype(np.int64))
    return Events(domain, splits, whole, longest[USER_ID].to_list(), catalog.item_ids, catalog.texts)


def _end_to_end(parts: list[Sequences]) -> Sequences:
    lengths = np.concatenate([part.lengths for part in parts])
    timed = all(part.timestamps is not None for part in parts)
    return Sequences(
        np.concatenate([part.item_ids for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([part.timestamps for part in parts]) if timed else None,
    )
