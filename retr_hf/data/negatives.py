"""Sampled negatives: for every evaluated user, items the user never touched, uniformly without replacement."""

import numpy as np

_BLOCK = 2**16  # rows sampled at once: bounds the memory to a few hundred MB at 100 candidates
_SEARCHED = 2**10  # rows looked up at once: what they touched fits the cache


def sample_negatives(
    rows: np.ndarray, items: np.ndarray, num_rows: int, num_items: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws ``min(count, number of untouched items)`` distinct untouched items for every row, all rows at once.

    Ranks are drawn in the *complement* of what a row touched (no rejection, so a user who touched nearly everything
    costs as much as any other) by R. Floyd's algorithm ("A sample of brilliance", CACM 1987): its loop runs over the
    candidates, never over the users.

    Args:
        rows: [touched] row of each touched pair, 0-based; repeats are fine.
        items: [touched] its item, 1-based.
        num_rows: number of rows U.
        num_items: number of items I; candidates lie in 1..I.
        count: candidates wanted a row, such as 100.
        rng: the source of randomness.

    Returns:
        values [total] int32 candidates in random order, row after row, and offsets [U + 1] int64.
    """
    pairs = np.asarray(rows, np.int64) * (num_items + 1) + np.asarray(items, np.int64)
    pairs.sort()  # np.unique hashes first since numpy 2.3, which takes ten times as long on pairs nearly in order
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    values, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for first in range(0, num_rows, _BLOCK):
        last = min(first + _BLOCK, num_rows)
        begin, end = np.searchsorted(pairs, np.array([first, last]) * (num_items + 1))
        row, item = np.divmod(pairs[begin:end] - first * (num_items + 1), num_items + 1)
        block_values, block_counts = _sample_block(row, item, last - first, num_items, count, rng)
        values.append(block_values)
        counts.append(block_counts)
    return np.concatenate(values), np.cumsum(np.concatenate(counts))


def _sample_block(
    row: np.ndarray, item: np.ndarray, num_rows: int, num_items: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct touched pairs sorted by row, then item -> values [total] int32 and how many each row has [num_rows]."""
    touched = np.bincount(row, minlength=num_rows)
    start = np.concatenate([[0], np.cumsum(touched)])
    available = num_items - touched

    ranks = np.empty((num_rows, count), np.int32)  # [U, count] rank among the row's untouched items; -1 = none left
    for step in range(count):
        top = available - count + step  # Floyd: draw from 0..top; if taken, take top itself
        ranks[:, step] = np.where(top >= 0, rng.integers(0, np.maximum(top, 0) + 1), -1)
    ordered = np.sort(ranks, axis=1)
    repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
    again, last = ranks[repeated], (available - count)[repeated]  # few rows of a large catalogue; the others are done
    for step in range(1, count):
        taken = (again[:, :step] == again[:, step, None]).any(axis=1) & (last + step >= 0)
        again[taken, step] = last[taken] + step
    ranks[repeated] = again
    ranks = rng.permuted(ranks, axis=1)

    # The r-th touched item of a row has (item - 1 - r) untouched ones before it; so the untouched item of rank k is
    # k + 1 + #{touched items with at most k untouched ones before them}.
    before = row * (num_items + 1) + (item - 1 - (np.arange(len(item)) - start[row]))
    values = ranks + 1
    for first in range(0, num_rows, _SEARCHED):
        part = slice(first, first + _SEARCHED)
        owner = np.arange(first, first + len(ranks[part]))[:, None]
        begin, end = start[owner[0, 0]], start[owner[-1, 0] + 1]
        found = np.searchsorted(before[begin:end], owner * (num_items + 1) + ranks[part], side="right")
        values[part] += (found + begin - start[owner]).astype(np.int32)
    keep = ranks >= 0
    return values[keep], keep.sum(axis=1)
