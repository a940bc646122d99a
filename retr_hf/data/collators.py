"""Ragged sequences -> the arrays a model reads; one class a training task. No torch: plain NumPy arrays.

Every collator is called with the sequences of the global micro-batch, a generator for its random choices, and the slice
of sequences that this process reads; ``counts`` tells what the losses are divided by, given those of the global batch.
Sequences that have times give ``times`` [R, W] beside ``input_ids`` (and ``view_times``), 0 where there is no item.
Sequences hold global item ids (``TrainingSequences``), history and targets together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .candidate_sampling import CandidateSampling
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
    one item drawn uniformly among those its user has not, a new one every epoch.

    Args:
        num_items: items of the catalogue.
        every_step: every item after the first is a target; otherwise the last one alone.
        lay_out: where histories lie in rows.
        seen: ``TrainingSequences.seen``, what no negative of an owner may be. None: what the sequence itself holds,
            which of a history longer than the model reads is a part.

    NOTE: the whole history of the training split. RETR and S3-Rec leave out the validation and test items too, which
    tells the training what they are not; SASRec does as we do.

    Raises:
        ValueError: some history holds every item, so that no negative can be drawn.
    """

    def __init__(
        self,
        num_items: int,
        every_step: bool = True,
        negatives: bool = False,
        lay_out: LayOut = one_per_row,
        seen: np.ndarray | None = None,
    ):
        self.num_items, self.every_step, self.negatives = num_items, every_step, negatives
        self.lay_out, self.seen = lay_out, seen
        if negatives and seen is not None:
            self._require_negatives(seen)

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, labels [R, W], with packing position_ids, with groups length_groups, with
        negatives negative_ids."""
        negatives = self._draw_negatives(whole, rng) if self.negatives else None
        batch = whole.select(mine)
        inputs, targets = _inputs_and_targets(batch)
        rows = Rows(inputs, self.lay_out)
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
        """One item per token that its user has not: drawn, and drawn again where the user had it."""
        width, known = self.num_items + 1, self.seen is not None and whole.owners is not None
        owner = np.repeat(whole.owners if known else np.arange(len(whole.lengths)), whole.lengths)
        taken = self.seen if known else np.unique(owner * width + whole.tokens)
        if not known:
            self._require_negatives(taken)
        drawn = rng.integers(1, width, len(whole.tokens))
        clash = np.flatnonzero(_among(owner * width + drawn, taken))
        while len(clash):
            drawn[clash] = rng.integers(1, width, len(clash))
            clash = clash[_among(owner[clash] * width + drawn[clash], taken)]
        return drawn

    def _require_negatives(self, taken: np.ndarray) -> None:
        if np.bincount(taken // (self.num_items + 1)).max() >= self.num_items:
            raise ValueError(f"a history holds all {self.num_items} items: no negative can be drawn for BPR")


class PreTrainingCollator:
    """Histories of several domains, their unique items as a text table, and an augmented view of each history.

    View (UniSRec, section 2.4.2): one coin a batch; with probability ``item_drop_batches`` each item is dropped with
    probability ``drop`` (the first is kept), otherwise each item's text vector is replaced, with probability ``drop``,
    by that of its word-dropped text. Without ``word_drop_tables`` every view drops items.

    Args:
        tables: text vectors under global ids.
        word_drop_tables: the same for word-dropped texts, or None.
        views: whether to make views at all (sequence-sequence term).
        sampling: draws candidates beside the batch's items; with it also ``table_log_chances``. The processes of a run
            share the drawn ones.
        within_domains: targets are ranked among the items of their own domain; gives ``domain_offsets``.
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
        sampling: CandidateSampling | None = None,
        within_domains: bool = False,
    ):
        self.sampling, self.within_domains = sampling, within_domains
        self.tables, self.word_drop_tables = tables, word_drop_tables
        self.every_step, self.views, self.lay_out = every_step, views, lay_out
        self.drop, self.item_drop_batches = drop, item_drop_batches

    def __call__(self, whole: RaggedBatch, rng: np.random.Generator, mine: slice) -> dict[str, np.ndarray]:
        """-> input_ids, attention_mask, labels [R, W], text_embeddings [M, T], table_item_ids [M], sequence_ends [S],
        with packing position_ids, with groups length_groups, with views view_* of the same kind; table_log_chances [M],
        domain_offsets [D + 1]."""
        by_item = self.word_drop_tables is None or rng.random() < self.item_drop_batches
        chosen = rng.random(len(whole.tokens)) < self.drop
        batch = whole.select(mine)
        chosen = RaggedBatch(chosen, whole.lengths).select(mine).tokens

        drawn = batch.tokens[:0] if self.sampling is None else self.sampling.draw(rng)[mine]
        ids, table_rows = np.unique(np.concatenate([batch.tokens, drawn]), return_inverse=True)
        ids, table_rows = np.concatenate([[PADDING_INDEX], ids]), table_rows[: len(batch.tokens)] + 1
        text = self.tables.rows(ids)
        inputs, targets = _inputs_and_targets(replace(batch, tokens=table_rows))
        rows = Rows(inputs, self.lay_out)
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
            view_rows = Rows(view, self.lay_out)
            arrays.update({f"view_{name}": array for name, array in view_rows.arrays().items()})
            arrays["view_sequence_ends"] = view_rows.ends()
        if self.sampling is not None:
            arrays["table_log_chances"] = self.sampling.log_chances[ids]
        if self.within_domains:
            arrays["domain_offsets"] = self.tables.id_offsets
        return arrays | {"text_embeddings": text, "table_item_ids": ids}

    def counts(self, whole: RaggedBatch) -> dict[str, int]:
        """num_items_in_batch, num_sequences_in_batch: targets and sequences of the global batch."""
        targets = _num_targets(whole, self.every_step)
        return {"num_items_in_batch": targets, "num_sequences_in_batch": len(whole.lengths)}


class Rows:
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


def _among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Whether each value is one of an ascending array's."""
    places = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return ascending[places] == values


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
