"""Ragged sequences -> the arrays a model reads; one class a training task. No torch: plain NumPy arrays.

Every collator is called with the sequences of the global micro-batch, a generator for its random choices, and the slice
of sequences that this process reads; ``counts`` tells what the losses are divided by, given those of the global batch.
Sequences that have times give ``times`` [R, W] beside ``input_ids`` (and ``view_times``), 0 where there is no item.
Sequences hold global item ids (``TrainingSequences``), history and targets together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .ragged import Layout, RaggedBatch, one_per_row
from .schema import PADDING_INDEX

IGNORED = -100  # label of a step that is no target
LayOut = Callable[[np.ndarray], Layout]  # lengths -> places: one_per_row, group_by_length, or pack_rows at a width


class TextTables:
    """Text vectors of several catalogues under global ids.

    Args:
        tables: per domain [num_items + 1, T] float32, row 0 padding (``ItemCatalog.item_table``).
    """

    def __init__(self, tables: Sequence[np.ndarray]):
        self.tables = tables
        self.id_offsets = np.concatenate([[0], np.cumsum([len(table) - 1 for table in tables])])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """[M] ascending global ids (0 allowed first) -> [M, T]."""
        bounds = np.searchsorted(ids, self.id_offsets, side="right")
        pieces = [self.tables[0][:1].repeat(bounds[0], axis=0)]
        for table, offset, start, stop in zip(self.tables, self.id_offsets, bounds, bounds[1:], strict=False):
            pieces.append(table[ids[start:stop] - offset])
        return np.concatenate(pieces)


class NextItemCollator:
    """Histories and their next items, for the recommendation head on one catalogue.

    Softmax reads the whole catalogue, so ``input_ids`` are catalogue indices. With ``negatives`` (BPR) each target gets
    one item drawn uniformly among those not in the part of the history that is read, a new one every epoch.

    Args:
        num_items: items of the catalogue.
        every_step: every item after the first is a target; otherwise the last one alone.
        lay_out: where histories lie in rows.
    """

    def __init__(self, num_items: int, every_step: bool = True, negatives: bool = False, lay_out: LayOut = one_per_row):
        self.num_items, self.every_step, self.negatives = num_items, every_step, negatives
        self.lay_out = lay_out

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, labels [R, W], with packing position_ids, with groups length_groups, with
        negatives negative_ids."""
        negatives = self._draw_negatives(whole, rng) if self.negatives else None
        batch = whole.select(mine)
        inputs, targets = _inputs_and_targets(batch)
        rows = _Rows(inputs, self.lay_out)
        arrays = rows.arrays()
        labels = targets.tokens if self.every_step else _last_only(targets)
        arrays["labels"] = rows.place(labels, IGNORED)
        if negatives is not None:
            _, drawn = _inputs_and_targets(RaggedBatch(negatives, whole.lengths).select(mine))
            arrays["negative_ids"] = rows.place(drawn.tokens, PADDING_INDEX)
        return arrays

    def counts(self, whole: RaggedBatch) -> dict[str, int]:
        """num_items_in_batch: targets of the global batch."""
        return {"num_items_in_batch": _num_targets(whole, self.every_step)}

    def _draw_negatives(self, whole: RaggedBatch, rng: np.random.Generator) -> np.ndarray:
        """One item per token, not in the token's own sequence: drawn, and drawn again where it was."""
        owner = np.repeat(np.arange(len(whole.lengths)), whole.lengths)
        width = self.num_items + 1
        taken = np.unique(owner * width + whole.tokens)
        if np.bincount(taken // width).max() >= self.num_items:
            raise ValueError(f"a history holds all {self.num_items} items: no negative can be drawn for BPR")
        drawn = rng.integers(1, width, len(whole.tokens))
        clash = np.isin(owner * width + drawn, taken)
        while clash.any():
            drawn[clash] = rng.integers(1, width, int(clash.sum()))
            clash[clash] = np.isin(owner[clash] * width + drawn[clash], taken)
        return drawn


class PreTrainingCollator:
    """Histories of several domains, their unique items as a text table, and an augmented view of each history.

    View (UniSRec, section 2.4.2): one coin a batch; with probability ``item_drop_batches`` each item is dropped with
    probability ``drop`` (the first is kept), otherwise each item's text vector is replaced, with probability ``drop``,
    by that of its word-dropped text. Without ``word_drop_tables`` every view drops items.

    Args:
        tables: text vectors under global ids.
        word_drop_tables: the same for word-dropped texts, or None.
        views: whether to make views at all (sequence-sequence term).
    """

    def __init__(
        self,
        tables: TextTables,
        word_drop_tables: TextTables | None = None,
        every_step: bool = True,
        views: bool = True,
        lay_out: LayOut = one_per_row,
        drop: float = 0.2,
        item_drop_batches: float = 0.9,
    ):
        self.tables, self.word_drop_tables = tables, word_drop_tables
        self.every_step, self.views, self.lay_out = every_step, views, lay_out
        self.drop, self.item_drop_batches = drop, item_drop_batches

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, labels [R, W], text_embeddings [M, T], table_item_ids [M], sequence_ends [S],
        with packing position_ids, with groups length_groups, with views view_* of the same kind."""
        by_item = self.word_drop_tables is None or rng.random() < self.item_drop_batches
        chosen = rng.random(len(whole.tokens)) < self.drop
        batch = whole.select(mine)
        chosen = RaggedBatch(chosen, whole.lengths).select(mine).tokens

        ids, table_rows = np.unique(batch.tokens, return_inverse=True)
        ids, table_rows = np.concatenate([[PADDING_INDEX], ids]), table_rows + 1
        text = self.tables.rows(ids)
        inputs, targets = _inputs_and_targets(replace(batch, tokens=table_rows))
        rows = _Rows(inputs, self.lay_out)
        arrays = rows.arrays()
        arrays["labels"] = rows.place(targets.tokens if self.every_step else _last_only(targets), IGNORED)
        arrays["sequence_ends"] = rows.ends()
        if self.views:
            chosen = _inputs_and_targets(RaggedBatch(chosen, batch.lengths))[0].tokens
            if by_item:
                keep = ~chosen
                keep[inputs.first] = True
                view = inputs.keep(keep)
            else:
                dropped, place = np.unique(inputs.tokens[chosen], return_inverse=True)
                tokens = inputs.tokens.copy()
                tokens[chosen] = len(ids) + place
                view = replace(inputs, tokens=tokens)
                text = np.concatenate([text, self.word_drop_tables.rows(ids[dropped])])
                ids = np.concatenate([ids, np.full(len(dropped), PADDING_INDEX)])
            view_rows = _Rows(view, self.lay_out)
            arrays.update({f"view_{name}": array for name, array in view_rows.arrays().items()})
            arrays["view_sequence_ends"] = view_rows.ends()
        return arrays | {"text_embeddings": text, "table_item_ids": ids}

    def counts(self, whole: RaggedBatch) -> dict[str, int]:
        """num_items_in_batch, num_sequences_in_batch: targets and sequences of the global batch."""
        targets = _num_targets(whole, self.every_step)
        return {"num_items_in_batch": targets, "num_sequences_in_batch": len(whole.lengths)}


class _Rows:
    """Sequences placed in rows [R, W]."""

    def __init__(self, batch: RaggedBatch, lay_out: LayOut):
        self.batch, self.layout = batch, lay_out(batch.lengths)
        self.places = self.layout.places(batch.lengths)

    def place(self, values: np.ndarray, fill: int) -> np.ndarray:
        """[total] values at their places -> [R, W], ``fill`` elsewhere."""
        rows = np.full(self.layout.shape, fill, dtype=np.int64)
        rows.reshape(-1)[self.places] = values
        return rows

    def ends(self) -> np.ndarray:
        """[S] flat place of each sequence's last token."""
        return self.layout.ends(self.batch.lengths)

    def arrays(self) -> dict[str, np.ndarray | tuple]:
        """input_ids and attention_mask, times where sequences have them, position_ids where rows are packed,
        length_groups where there are groups."""
        arrays = {
            "input_ids": self.place(self.batch.tokens, PADDING_INDEX),
            "attention_mask": self.place(np.ones_like(self.batch.tokens), 0),
        }
        if self.batch.times is not None:
            arrays["times"] = self.place(self.batch.times, 0)
        if self.layout.groups is not None:
            arrays["length_groups"] = self.layout.groups
        if self.layout.packed:
            nth = np.arange(len(self.batch.tokens)) - np.repeat(self.batch.first, self.batch.lengths)
            arrays["position_ids"] = self.place(nth, 0)
        return arrays


def _inputs_and_targets(batch: RaggedBatch) -> tuple[RaggedBatch, RaggedBatch]:
    """Each sequence without its last item, and without its first."""
    is_first, is_last = np.zeros((2, len(batch.tokens)), dtype=bool)
    is_first[batch.first] = True
    is_last[batch.first + batch.lengths - 1] = True
    return batch.keep(~is_last), batch.keep(~is_first)


def _num_targets(batch: RaggedBatch, every_step: bool) -> int:
    return len(batch.tokens) - len(batch.lengths) if every_step else len(batch.lengths)


def _last_only(targets: RaggedBatch) -> np.ndarray:
    """The targets with all but each sequence's last ignored."""
    labels = np.full_like(targets.tokens, IGNORED)
    last = targets.first + targets.lengths - 1
    labels[last] = targets.tokens[last]
    return labels
