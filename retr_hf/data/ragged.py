"""Sequences of different lengths, laid end to end: gathering them, and packing them into rows without padding."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np


def gather_ragged(values: np.ndarray, first: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The slices ``values[first[s] : first[s] + lengths[s]]``, end to end: [sum(lengths)]."""
    begin = np.cumsum(lengths) - lengths
    return values[np.arange(lengths.sum()) + np.repeat(first - begin, lengths)]


@dataclass(frozen=True)
class RaggedBatch:
    """S sequences end to end.

    tokens: [total] item ids, oldest first.
    lengths: [S].
    times: [total] int64, seconds, where the model reads them.
    owners: [S] whose history each sequence is a part of (``TrainingSequences.seen``), where that is known.
    labels: [total] what is asked for at each place (``data.cloze``), where that is not the next item.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    times: np.ndarray | None = None
    owners: np.ndarray | None = None
    labels: np.ndarray | None = None

    @property
    def first(self) -> np.ndarray:
        """[S] index of each sequence's first token."""
        return np.cumsum(self.lengths) - self.lengths

    def select(self, which: slice | np.ndarray) -> "RaggedBatch":
        """Some of the sequences, by slice or index."""
        taken = partial(gather_ragged, first=self.first[which], lengths=self.lengths[which])
        times, labels = (None if values is None else taken(values) for values in (self.times, self.labels))
        owners = None if self.owners is None else self.owners[which]
        return RaggedBatch(taken(self.tokens), self.lengths[which], times, owners, labels)

    def keep(self, mask: np.ndarray) -> "RaggedBatch":
        """The tokens where ``mask`` [total] holds; every sequence must keep at least one."""
        counts = np.add.reduceat(mask.astype(np.int64), self.first)
        times, labels = (None if values is None else values[mask] for values in (self.times, self.labels))
        return RaggedBatch(self.tokens[mask], counts, times, self.owners, labels)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in rows [R, W].

    row, column: [S] place of each sequence's first token.
    shape: (R, W).
    groups: (sequences, columns) of each group of the one row, in their order, or None.
    packed: whether a row may hold several sequences that are in no groups.
    """

    row: np.ndarray
    column: np.ndarray
    shape: tuple[int, int]
    groups: tuple[tuple[int, int], ...] | None = None
    packed: bool = False

    def places(self, lengths: np.ndarray) -> np.ndarray:
        """Flat index (row * W + column) of every token of every sequence, end to end: [total]."""
        starts = self.row * self.shape[1] + self.column
        begin = np.cumsum(lengths) - lengths
        return np.arange(lengths.sum()) + np.repeat(starts - begin, lengths)

    def ends(self, lengths: np.ndarray) -> np.ndarray:
        """Flat index of the last token of every sequence: [S]."""
        return self.row * self.shape[1] + self.column + lengths - 1


def one_per_row(lengths: np.ndarray) -> Layout:
    """Each sequence in a row of its own, padded on the right to the longest."""
    rows = np.arange(len(lengths))
    return Layout(rows, np.zeros_like(rows), (len(lengths), int(lengths.max(initial=1))))


def pack_rows(lengths: np.ndarray, width: int) -> Layout:
    """First-fit decreasing: several sequences a row of ``width``, so that little is padded.

    Works on the histogram of lengths: the loop runs over distinct lengths, not over sequences.

    Raises:
        ValueError: a sequence is longer than ``width``.
    """
    if lengths.max(initial=1) > width:
        raise ValueError(f"a sequence of {lengths.max()} tokens does not fit into rows of {width}")
    row, column = np.empty_like(lengths), np.empty_like(lengths)
    order = np.argsort(-lengths, kind="stable")
    free = np.empty(0, dtype=np.int64)
    for length, begin in zip(*np.unique(-lengths[order], return_index=True), strict=True):
        length, count = -length, int(np.sum(lengths == -length))
        fits = free // length
        used = np.clip(count - (np.cumsum(fits) - fits), 0, fits)
        left = count - used.sum()
        fresh = -(-left // (width // length))
        used = np.concatenate([used, np.clip(left - np.arange(fresh) * (width // length), 0, width // length)])
        free = np.concatenate([free, np.full(fresh, width, dtype=np.int64)])
        members = order[begin : begin + count]
        rows = np.repeat(np.arange(len(free)), used)
        nth = np.arange(count) - np.repeat(np.cumsum(used) - used, used)
        row[members] = rows
        column[members] = (width - free)[rows] + nth * length
        free = free - used * length
    return Layout(row, column, (len(free), width), packed=True)


def group_by_length(lengths: np.ndarray, waste: float = 0.04) -> Layout:
    """One row of groups of sequences of like length, longest first, each padded to its own longest.

    Starts with a group a length and merges the neighbours that cost least, as long as at most the share ``waste`` of
    the places is padding: few groups, little padding. The loop runs over distinct lengths, not over sequences.
    """
    distinct, group, counts = np.unique(-lengths, return_inverse=True, return_counts=True)
    columns, counts, first = -distinct, counts.copy(), np.arange(len(distinct))
    spare = lengths.sum() * waste / (1 - waste)
    while len(columns) > 1:
        cost = counts[1:] * (columns[:-1] - columns[1:])
        cheapest = int(cost.argmin())
        if cost[cheapest] > spare:
            break
        spare -= cost[cheapest]
        counts[cheapest] += counts[cheapest + 1]
        columns, counts, first = (np.delete(part, cheapest + 1) for part in (columns, counts, first))
    group = np.searchsorted(first, group, side="right") - 1  # [S] each sequence's merged group
    order = np.argsort(group, kind="stable")
    sizes = counts * columns
    nth = np.arange(len(lengths)) - np.repeat(np.cumsum(counts) - counts, counts)
    column = np.empty_like(lengths)
    column[order] = np.repeat(np.cumsum(sizes) - sizes, counts) + nth * np.repeat(columns, counts)
    groups = tuple(zip(counts.tolist(), columns.tolist(), strict=True))
    return Layout(np.zeros_like(lengths), column, (1, int(sizes.sum())), groups)


def layout_named(name: str, width: int) -> Callable[[np.ndarray], Layout]:
    """``"grouped"``, ``"packed"`` into rows of ``width``, or ``"padded"``: a function from lengths to a layout."""
    return {"grouped": group_by_length, "packed": partial(pack_rows, width=width), "padded": one_per_row}[name]
