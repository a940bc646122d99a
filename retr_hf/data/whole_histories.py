"""All that a prepared domain knows of each user: what a shop recommends from, and trains on to serve."""

import numpy as np
import polars as pl

from .domain import PreparedDomain, Sequences
from .schema import SPLITS


def whole_histories(domain: PreparedDomain) -> tuple[list[str], Sequences]:
    """Each user's longest row over the splits, of which every one is the beginning of the user's history.

    Returns:
        [U] raw user ids in the order of the splits, and their histories, oldest first, nothing held back; with times
        where the source has them.
    """
    splits = [domain.split(name) for name in SPLITS]
    rows = pl.concat(
        pl.DataFrame(
            {"user": domain.user_ids(name), "split": place, "row": np.arange(len(split)), "length": split.lengths},
            schema={"user": pl.String, "split": pl.Int8, "row": pl.Int64, "length": pl.Int64},
        )
        for place, (name, split) in enumerate(zip(SPLITS, splits, strict=True))
    )
    # Where a source cuts its rows to one length the later split has the newer end.
    longest = rows.group_by("user", maintain_order=True).agg(pl.all().sort_by("length", "split", "row").last())
    parts = [
        split.select(longest.filter(pl.col("split") == place)["row"].to_numpy()) for place, split in enumerate(splits)
    ]
    item_ids = np.concatenate([part.item_ids for part in parts])
    timed = all(part.timestamps is not None for part in parts)
    times = np.concatenate([part.timestamps for part in parts]) if timed else None
    offsets = np.append(0, np.cumsum(np.concatenate([part.lengths for part in parts])))
    by_split = np.argsort(longest["split"].to_numpy(), kind="stable")
    return longest["user"].to_list(), Sequences(item_ids, offsets, times).select(np.argsort(by_split, kind="stable"))
