"""The sampled candidates of a domain: what each evaluated user touched in any split, and draws from the rest."""

from collections.abc import Iterator

import numpy as np
import polars as pl
import pyarrow as pa

from .negatives import distinct, sample_negatives, touched_pairs
from .schema import ITEM_IDS, NEGATIVES, TEST, USER_ID, VALIDATION

_ROW_GROUP = 2**16  # rows drawn, and written, at once: the block of `sample_negatives`, on which its numbers depend
_ENTRIES = 2**21  # entries of lists laid out at once: about 50 MB


def negatives_of_splits(
    splits: dict[str, pl.DataFrame], num_items: int, count: int, seed: int
) -> Iterator[tuple[str, Iterator[pa.Table]]]:
    """Candidates of validation and test, untouched by the user in *any* split or row; a row group at a time.

    Memory is that of the distinct items of a row group's users in each split: a user's rows, which repeat one another,
    are laid out once and some at a time, not once for each row that is evaluated.

    Args:
        splits: name -> ``user_id`` and ``item_ids``, lists of indices from 1; names beside the three splits count too.
        num_items: items of the catalogue.
        count: candidates a row; fewer only where the catalogue has no more.
        seed: of the draws.

    Yields:
        The split and its tables of ``user_id`` and ``negatives``, at least one.
    """
    streams = np.random.default_rng(seed).spawn(2)
    for split, rng in zip((VALIDATION, TEST), streams, strict=True):
        yield split, _tables(splits, split, num_items, count, rng)


def _tables(
    splits: dict[str, pl.DataFrame], split: str, num_items: int, count: int, rng: np.random.Generator
) -> Iterator[pa.Table]:
    names = splits[split][USER_ID]
    users = names.unique(maintain_order=True).to_frame().with_row_index("user")
    rows = names.to_frame().join(users, on=USER_ID, maintain_order="left")["user"].to_numpy()
    touched = _Touched(splits, users, num_items)
    for first in range(0, max(len(rows), 1), _ROW_GROUP):
        part = rows[first : first + _ROW_GROUP]
        pairs = touched.pairs(part.min(initial=users.height), part.max(initial=0) + 1)
        values, offsets = sample_negatives(pairs, part, num_items, count, rng)
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))
        yield pa.table({USER_ID: names[first : first + _ROW_GROUP].to_arrow().cast(pa.string()), NEGATIVES: lists})


class _Touched:
    """Where the lists of each user stand in each split, not the items: only those that are asked for are copied.

    users: ``user_id`` and the number ``user``, from 0; others are left out.
    """

    def __init__(self, splits: dict[str, pl.DataFrame], users: pl.DataFrame, num_items: int):
        self.num_items = num_items
        self.lists = [
            (
                rows[ITEM_IDS],
                rows.select(USER_ID, pl.col(ITEM_IDS).list.len().cast(pl.Int64).alias("entries"))
                .with_row_index("place")
                .join(users, on=USER_ID)
                .sort("user"),
            )
            for rows in splits.values()
        ]

    def pairs(self, first: int, end: int) -> np.ndarray:
        """``touched_pairs`` of the users from ``first`` up to, not with, ``end``."""
        found = []
        for lists, places in self.lists:
            begin, stop = (places["user"].search_sorted(user) for user in (first, end))
            blocks = places[begin:stop].with_columns(block=pl.col("entries").cum_sum() // _ENTRIES)
            for block in blocks.partition_by("block", maintain_order=True):
                laid = block.select("user", lists.gather(block["place"])).explode(ITEM_IDS)
                found.append(touched_pairs(laid["user"].to_numpy(), laid[ITEM_IDS].to_numpy(), self.num_items))
        return distinct(np.concatenate(found)) if found else np.empty(0, np.int64)
