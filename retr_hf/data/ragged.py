"""Sequences of different lengths, laid end to end: gathering them, and packing them into rows without padding."""

from dataclasses import dataclass

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
    """

    tokens: np.ndarray
    lengths: np.ndarray

    @property
    def first(self) -> np.ndarray:
        """[S] index of each sequence's first token."""
        return np.cumsum(self.lengths) - self.lengths

    def select(self, which: slice | np.ndarray) -> "RaggedBatch":
        """Some of the sequences, by slice or index."""
        lengths = self.lengths[which]
        return RaggedBatch(gather_ragged(self.tokens, self.first[which], lengths), lengths)

    def keep(self, mask: np.ndarray) -> "RaggedBatch":
        """The tokens where ``mask`` [total] holds; every sequence must keep at least one."""
        counts = np.add.reduceat(mask.astype(np.int64), self.first)
        return RaggedBatch(self.tokens[mask], counts)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie in rows [R, W].

    row, column: [S] place of each sequence's first token.
    shape: (R, W).
    """

    row: np.ndarray
    column: np.ndarray
    shape: tuple[int, int]

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
    return Layout(row, column, (len(free), width))
