"""The k-core of a log, on integers.

Ids are polars categoricals (see `log_options`), so that their codes are there already and a round of the k-core is two
counts and two look-ups of uint32 columns, without a string or a hash.
"""

import numpy as np
import polars as pl

from ..errors import DataError
from .schema import ITEM_ID, USER_ID

_COUNTED = 2**25  # rows: numpy counts in int64, so that a block takes 256 MB


def k_core_filter(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """Keeps the rows whose user and whose item both have at least ``k`` rows left, to the fixed point.

    Args:
        interactions: one row an interaction, with ``user_id`` and ``item_id``; order is kept.
        k: smallest count that stays.
    """
    users, items = codes_of(interactions[USER_ID]), codes_of(interactions[ITEM_ID])
    rows = None  # of ``interactions``; None: all of them
    while True:
        keep = (counts_of(users) >= k)[users]
        keep &= (counts_of(items) >= k)[items]
        if keep.all():
            return interactions if rows is None else interactions[rows]
        rows = np.flatnonzero(keep).astype(np.uint32) if rows is None else rows[keep]
        users, items = users[keep], items[keep]


def counted_k_core(
    interactions: pl.DataFrame, k: int, dropped: dict[str, int], before: tuple[int, int, int] | None = None
) -> pl.DataFrame:
    """``k_core_filter``, what it drops counted in ``dropped``.

    before: interactions, users and items that there were, where ``interactions`` lack some that cannot be in the core.

    Raises:
        DataError: nothing survives.
    """
    before = before or _sizes(interactions)
    after = k_core_filter(interactions, k)
    if after.is_empty():
        rows, users, items = before
        raise DataError(
            f"no interaction survives the {k}-core: expected users and items with at least {k} interactions each, got "
            f"{rows:,} interactions of {users:,} users with {items:,} items; pass a smaller --k-core (0 keeps "
            "everything)"
        )
    for what, had, left in zip(("interactions", "users", "items"), before, _sizes(after), strict=True):
        dropped[f"{what}_outside_the_{k}_core"] = had - left
    return after


def coded(ids: pl.Series) -> pl.Series:
    """Strings as categoricals of their own dictionary (one for the process would grow with every domain)."""
    return ids if isinstance(ids.dtype, pl.Categorical) else ids.cast(pl.Categorical(pl.Categories.random()))


def codes_of(ids: pl.Series) -> np.ndarray:
    """[n] uint32 codes, below the number of ids of the dictionary; UInt32 are codes already."""
    return (ids if ids.dtype == pl.UInt32 else coded(ids).to_physical()).to_numpy()


def first_rows(ids: pl.Series) -> np.ndarray:
    """[codes] uint32: the row where an id stands first, by its code."""
    codes = codes_of(ids)
    first = np.zeros(int(codes.max(initial=0)) + 1, np.uint32)
    for start in reversed(range(0, len(codes), _COUNTED)):  # of equal codes the last assignment holds: the first row
        block = codes[start : start + _COUNTED][::-1]
        first[block] = np.arange(start + len(block) - 1, start - 1, -1)
    return first


def counts_of(codes: np.ndarray) -> np.ndarray:
    """[codes] int64: how often each code stands in ``codes`` [n]."""
    counts = np.zeros(int(codes.max(initial=0)) + 1, np.int64)
    for start in range(0, len(codes), _COUNTED):
        counts += np.bincount(codes[start : start + _COUNTED], minlength=len(counts))
    return counts


def _sizes(interactions: pl.DataFrame) -> tuple[int, int, int]:
    """Interactions, users, items."""
    users, items = (np.count_nonzero(counts_of(codes_of(interactions[name]))) for name in (USER_ID, ITEM_ID))
    return interactions.height, int(users), int(items)
