"""Cloze examples (BERT4Rec, Sun et al., CIKM 2019): histories with some of their items hidden. No torch.

    k = max(1, round(ρ n)) of n items are hidden, any as likely; of a share of the histories the last item alone, which
    is what the model is asked for afterwards

NOTE: drawn anew every epoch. The authors write ten maskings of every history into a file, and one with the last item
hidden: one in eleven, the default of ``cloze_last_share``. NOTE: they cut long histories into overlapping windows; here
an epoch reads one window, the last or a random one (``data.window``).
"""

from dataclasses import replace

import numpy as np

from .collators import IGNORED, LayOut, Rows
from .ragged import RaggedBatch, one_per_row
from .training_sequences import TrainingSequences

MASK = -1  # in input_ids: the body's own [mask]


class ClozeSequences(TrainingSequences):
    """Training sequences whose slices come with items hidden: at most ``max_length`` items, no target behind them.

    Args:
        share: ρ, hidden of a history. last_share: of the histories that hide their last item alone.
        others: as of ``TrainingSequences``.
    """

    def __init__(self, sequences, num_items, max_length: int, share: float, last_share: float, window: str = "last"):
        super().__init__(sequences, num_items, max_length - 1, window=window)
        self.share, self.last_share = share, last_share

    def slices(self, examples: np.ndarray, rng: np.random.Generator) -> RaggedBatch:
        """The examples with ``MASK`` in place of hidden items, and labels: the hidden items, elsewhere ``IGNORED``."""
        batch = super().slices(examples, rng)
        last_alone = rng.random(len(batch.lengths)) < self.last_share
        count = np.maximum(1, np.rint(self.share * batch.lengths)).astype(np.int64)
        order = rng.random(len(batch.tokens))
        order[batch.first + batch.lengths - 1] -= last_alone  # the last one first, and no other
        count[last_alone] = 1
        owner = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
        rank = np.empty(len(order), dtype=np.int64)
        rank[np.lexsort((order, owner))] = np.arange(len(order)) - batch.first[owner]
        hidden = rank < count[owner]
        labels = np.where(hidden, batch.tokens, IGNORED)
        return replace(batch, tokens=np.where(hidden, MASK, batch.tokens), labels=labels)


class ClozeCollator:
    """Rows of histories with hidden items; the targets are the hidden items, where they are hidden.

    Args:
        lay_out: where histories lie in rows.
    """

    def __init__(self, lay_out: LayOut = one_per_row):
        self.lay_out = lay_out

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, labels [R, W], with packing position_ids, with groups length_groups."""
        batch = whole.select(mine)
        rows = Rows(batch, self.lay_out)
        return rows.arrays() | {"labels": rows.place(batch.labels, IGNORED)}

    def counts(self, whole: RaggedBatch) -> dict[str, int]:
        """num_items_in_batch: hidden items of the global batch."""
        return {"num_items_in_batch": int((whole.labels != IGNORED).sum())}
