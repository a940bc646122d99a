"""What S3-Rec reads in pre-training: histories with items hidden, with a segment hidden, and segments alone. No torch.

Zhou et al., CIKM 2020. MASK stands in ``input_ids`` where an item is hidden. Every prefix of the training histories is
an example, as in the authors' code (``TrainingSequences`` with ``every_step=False``).
"""

from pathlib import Path

import numpy as np
import polars as pl

from ..errors import DataError
from ..model.item_catalog import ItemCatalog
from .cloze import MASK
from .collators import LayOut, NextItemCollator, Rows
from .ragged import RaggedBatch, one_per_row
from .training_sequences import TrainingSequences


def read_attributes(path: str | Path, catalog: ItemCatalog) -> np.ndarray:
    """Which attributes each item of a catalogue has: bool [num_items + 1, A], row 0 padding.

    path: parquet with item_id and attributes, a list of ids. An item that the file does not name has none.

    Raises:
        DataError: no such columns, or no item of the catalogue in the file.
    """
    try:
        pairs = pl.read_parquet(path, columns=["item_id", "attributes"])
        pairs = pairs.explode("attributes").drop_nulls("attributes")
    except (pl.exceptions.PolarsError, OSError) as error:
        why = str(error).partition("\n")[0]  # below it polars shows its plan
        raise DataError(f"{path}: expected a parquet file with item_id and attributes (lists): {why}") from error
    items = np.asarray(catalog.index_of(pairs["item_id"].cast(pl.String).to_list()), dtype=np.int64)
    _, attributes = np.unique(pairs["attributes"].to_numpy(), return_inverse=True)
    if not (items > 0).any():
        raise DataError(f"{path}: none of its items is in the catalogue; expected the ids of the domain's items")
    has = np.zeros((len(catalog) + 1, int(attributes.max()) + 1), dtype=bool)
    has[items, attributes] = True
    has[0] = False
    return has


class S3RecCollator(NextItemCollator):
    """Batches of the four objectives.

    Args:
        num_items: items of the catalogue.
        sequences: the training sequences; other segments are runs of all their items, end to end.
        share: of the items hidden for AAP, MIP and MAP; the last item of a history always is.
        lay_out: where histories lie in rows.
    """

    def __init__(self, num_items: int, sequences: TrainingSequences, share: float = 0.2, lay_out: LayOut = one_per_row):
        super().__init__(num_items, every_step=False, negatives=True, lay_out=lay_out, seen=sequences.seen())
        self.corpus, self.share = sequences.item_ids, share

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, item_ids (nothing hidden), negative_ids, and the same histories with a segment
        hidden, with it alone and with another in its place: hidden_segment_ids, segment_ids, other_segment_ids [R, W];
        sequence_ends [S], with groups length_groups."""
        lengths, total = whole.lengths, len(whole.tokens)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        nth = np.arange(total) - whole.first[owner]
        hidden = rng.random(total) < self.share
        hidden[whole.first + lengths - 1] = True
        size = rng.integers(1, lengths // 2 + 1)  # a history has two items at least
        start = rng.integers(0, lengths - size + 1)
        inside = (nth >= start[owner]) & (nth < (start + size)[owner])
        run = rng.integers(0, len(self.corpus) - size + 1)
        other = self.corpus[np.where(inside, run[owner] + nth - start[owner], 0)]
        values = {
            "input_ids": np.where(hidden, MASK, whole.tokens),
            "item_ids": whole.tokens,
            "negative_ids": self._draw_negatives(whole, rng),
            "hidden_segment_ids": np.where(inside, MASK, whole.tokens),
            "segment_ids": np.where(inside, whole.tokens, MASK),
            "other_segment_ids": np.where(inside, other, MASK),
        }
        rows = Rows(whole.select(mine), self.lay_out)
        placed = {name: rows.place(RaggedBatch(each, lengths).select(mine).tokens, 0) for name, each in values.items()}
        return rows.arrays() | placed | {"sequence_ends": rows.ends()}

    def counts(self, whole: RaggedBatch) -> dict[str, int]:
        """num_items_in_batch: histories of the global batch."""
        return {"num_items_in_batch": len(whole.lengths)}
