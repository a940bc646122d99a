"""Sampled negatives: for every evaluated row, items its user never touched, uniformly without replacement."""

import numpy as np

_BLOCK = 2**16  # rows sampled at once: bounds the memory to a few hundred MB at 100 candidates
_SEARCHED = 2**10  # rows looked up at once: what they touched fits the cache


def touched_pairs(users: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """Who touched what, as one number a pair: user * (num_items + 1) + item, int64, distinct and ascending.

    Args:
        users: [touched] number of the user of each touched item, from 0.
        items: [touched] the item, 1-based; repeats are fine.
        num_items: number of items I.
    """
    return distinct(np.asarray(users, np.int64) * (num_items + 1) + np.asarray(items, np.int64))


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Numbers from 0 -> each of them once, ascending; what is given is sorted in its place."""
    numbers.sort()  # np.unique hashes first since numpy 2.3, which takes ten times as long on pairs nearly in order
    return numbers[np.diff(numbers, prepend=-1) > 0]


def sample_negatives(
    pairs: np.ndarray, rows: np.ndarray, num_items: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws ``min(count, number of untouched items)`` distinct untouched items for every row, all rows at once.

    Ranks are drawn in the *complement* of what a user touched (no rejection, so a user who touched nearly everything
    costs as much as any other) by R. Floyd's algorithm ("A sample of brilliance", CACM 1987): its loop runs over the
    candidates, never over the users. What a user touched is held once, however many rows the user has.

    Args:
        pairs: ``touched_pairs``; those of users without a row are not looked at.
        rows: [U] number of each row's user; memory is least where they ascend.
        num_items: number of items I; candidates lie in 1..I.
        count: candidates wanted a row, such as 100.
        rng: the source of randomness.

    Returns:
        values [total] int32 candidates in random order, row after row, and offsets [U + 1] int64.
    """
    values, counts = [np.empty(0, np.int32)], [np.zeros(1, np.int64)]
    for first in range(0, len(rows), _BLOCK):
        owners = np.asarray(rows[first : first + _BLOCK], np.int64)
        low, high = owners.min(), owners.max() + 1
        begin, end = np.searchsorted(pairs, np.array([low, high]) * (num_items + 1))
        user, item = np.divmod(pairs[begin:end] - low * (num_items + 1), num_items + 1)
        block_values, block_counts = _sample_block(user, item, owners - low, num_items, count, rng)
        values.append(block_values)
        counts.append(block_counts)
    return np.concatenate(values), np.cumsum(np.concatenate(counts))


def _sample_block(
    user: np.ndarray, item: np.ndarray, owners: np.ndarray, num_items: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Distinct touched pairs sorted by user, then item, and each row's user, owners [U] -> values [total] int32 and how
    many each row has [U]."""
    touched = np.bincount(user, minlength=owners.max() + 1)
    start = np.concatenate([[0], np.cumsum(touched)])
    available = num_items - touched[owners]

    ranks = np.empty((len(owners), count), np.int32)  # [U, count] rank among the row's untouched items; -1 = none left
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

    # The r-th touched item of a user has (item - 1 - r) untouched ones before it; so the untouched item of rank k is
    # k + 1 + #{touched items with at most k untouched ones before them}.
    before = user * (num_items + 1) + (item - 1 - (np.arange(len(item)) - start[user]))
    values = ranks + 1
    for first in range(0, len(owners), _SEARCHED):
        part = slice(first, first + _SEARCHED)
        owner = owners[part, None]
        begin, end = start[owner.min()], start[owner.max() + 1]
        found = np.searchsorted(before[begin:end], owner * (num_items + 1) + ranks[part], side="right")
        values[part] += (found + begin - start[owner]).astype(np.int32)
    keep = ranks >= 0
    return values[keep], keep.sum(axis=1)
