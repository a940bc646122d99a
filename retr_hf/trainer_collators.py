"""Data collators for ``transformers.Trainer``: rows of `datasets` -> the batches that the two heads read.

Rows are those of ``datasets.load_dataset(prepared domain)``, map-style or streaming, with ``item_ids`` and, where the
model's attention reads times, ``timestamps``. A row without ``labels`` is a training row: its items are history and
targets together. A row with ``labels`` (``data.rows.last_as_label``) is evaluated: its items are the history, and its
label is the only target.

Trainer drops columns that a model's ``forward`` does not name before a collator sees them, so its arguments need
``remove_unused_columns=False``. Streaming over several processes also needs
``accelerator_config={"dispatch_batches": False}``: else the first process makes the batches of all and cuts them by
rows, item tables too; accelerate then says that it can only concatenate tensors. Several GPUs are several processes
(``accelerate launch``), not ``nn.DataParallel``.

What a collator draws (negatives, views) is a function of ``seed`` and the rows of the batch: workers, streams and a
resumed run draw the same. Rows are lists of Python numbers here; ``training.loop`` reads flat arrays and is faster.

NOTE: a row is one example, its most recent part where it is longer than the model reads. The recipes'
``window: random`` and, without ``every_step``, an example for every prefix are not made here.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .data.collators import NextItemCollator, PreTrainingCollator, TextTables
from .data.domain import PreparedDomain
from .data.ragged import RaggedBatch, layout_named, one_per_row
from .data.schema import DOMAIN, ITEM_IDS, LABELS, TIMESTAMPS
from .errors import DataError
from .model.configuration_retr import RetrConfig
from .model.objectives import NEEDS_NEGATIVES
from .model.processing_retr import check_catalog, check_item_count
from .model.text_whitening import text_table

Row = dict[str, Any]
Batch = dict[str, torch.Tensor | tuple]


class NextItemDataCollator:
    """Rows of one domain, for ``RetrForSequentialRecommendation`` on that domain's catalogue.

    The catalogue itself is in no batch: ``trainer_catalog.give_catalog`` gives it to the model once.

    Args:
        config: the model's: ``max_position_embeddings``, ``every_step``, ``objective`` and what its attention reads.
        num_items: items of the catalogue.
        layout: of training rows: ``"padded"``, or ``"grouped"`` and ``"packed"`` (``data.ragged``), which have no
            padding and are faster. Rows that are evaluated are padded always: they have logits each.
        seed: of the negatives of ``objective="bpr"`` and ``"bce"``.

    Raises:
        ValueError: an id table of another number of items.
    """

    def __init__(self, config: RetrConfig, num_items: int, layout: str = "padded", seed: int = 0):
        check_item_count(config, num_items)
        self.config, self.num_items, self.seed = config, num_items, seed
        negatives = config.objective in NEEDS_NEGATIVES
        lay_out = layout_named(layout, config.max_position_embeddings)
        self.training = NextItemCollator(num_items, config.every_step, negatives, lay_out)
        self.evaluation = NextItemCollator(num_items, False, negatives, one_per_row)

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """-> what ``NextItemCollator`` gives, as tensors.

        Raises:
            DataError: rows without ``item_ids``, without a target or without times that the model reads; items that the
                catalogue does not hold; training rows for a bidirectional body, which would read its targets.
        """
        rows, labelled = _with_targets(rows)
        if not labelled and self.config.direction == "bidirectional":
            raise DataError(
                'direction="bidirectional" is trained by cloze, whose batches this collator does not make: train it '
                "with scripts/finetune.py; rows with labels can be evaluated"
            )
        batch = _ragged(rows, self.config, labelled)
        _check_items(batch.tokens, self.num_items, "the catalogue")
        collate = self.evaluation if labelled else self.training
        return _tensors(collate(batch, _generator(batch, self.seed), slice(None)))


class PreTrainingDataCollator:
    """Rows of several domains (``data.rows.interleaved``, or any with a column ``domain``), for ``RetrForPreTraining``.

    Each batch brings its own unique items as a text table, and an augmented view of each history where
    ``config.sequence_loss_weight`` asks for one.

    Args:
        config: the model's, its ``text_encoder`` being that of all domains.
        domains: opened domains, embedded.
        word_drop: views may read the vectors of word-dropped texts (``scripts/embed.py --word-drop``).
        layout, seed: as of ``NextItemDataCollator``; ``seed`` of the views.

    Raises:
        DataError: domains of one name; a config that does not say which vectors it reads.
        ValueError: a domain without vectors, or with those of another encoder.
    """

    def __init__(
        self,
        config: RetrConfig,
        domains: Sequence[PreparedDomain],
        word_drop: bool = False,
        layout: str = "padded",
        seed: int = 0,
    ):
        self.config, self.seed = config, seed
        self.numbers = {domain.name: number for number, domain in enumerate(domains)}
        if len(self.numbers) < len(domains):
            raise DataError(f"expected domains of different names, came {[domain.name for domain in domains]}")
        catalogs = [domain.catalog() for domain in domains]
        if config.text_encoder is None:
            encoder = catalogs[0].text_encoder
            raise DataError(
                "the config does not say which text vectors the model reads, so that a checkpoint could not refuse "
                f"others: RetrConfig(..., text_encoder={encoder!r}, text_size={catalogs[0].item_table().shape[1]})"
            )
        for catalog in catalogs:
            check_catalog(config, catalog)
        self.num_items = np.array([domain.num_items for domain in domains])
        tables = TextTables([text_table(config, catalog).numpy() for catalog in catalogs])
        dropped = [text_table(config, catalog, augmented=True).numpy() for catalog in catalogs] if word_drop else None
        dropped = None if dropped is None else TextTables(dropped)
        self.offsets, views = tables.id_offsets[:-1], config.sequence_loss_weight > 0
        lay_out = layout_named(layout, config.max_position_embeddings)
        self.training = PreTrainingCollator(tables, dropped, config.every_step, views, lay_out)
        self.evaluation = PreTrainingCollator(tables, dropped, False, views, one_per_row)

    def __call__(self, rows: Sequence[Row]) -> Batch:
        """-> what ``PreTrainingCollator`` gives, as tensors, longest first.

        Raises:
            DataError: as of ``NextItemDataCollator``; also rows of a domain that was not given.
        """
        rows, labelled = _with_targets(rows)
        unknown = {row.get(DOMAIN) for row in rows} - set(self.numbers)
        if unknown:
            raise DataError(
                f"rows of domain {sorted(map(repr, unknown))[0]}: expected a column {DOMAIN!r} with one of "
                f"{', '.join(map(repr, self.numbers))} (data.rows.interleaved makes it)"
            )
        batch = _ragged(rows, self.config, labelled)
        number = np.repeat([self.numbers[row[DOMAIN]] for row in rows], batch.lengths)
        _check_items(batch.tokens, self.num_items[number], "its domain")
        batch = RaggedBatch(batch.tokens + self.offsets[number], batch.lengths, batch.times)
        collate = self.evaluation if labelled else self.training
        arrays = collate(batch, _generator(batch, self.seed), slice(None))
        batch = _tensors(arrays)
        tensors = [name for name, value in batch.items() if isinstance(value, torch.Tensor)]
        # accelerate cuts the batches of a stream to the length of their first tensor, the item table too: the longest
        # stands first. From several processes' batches it would make one; None is what it refuses to put together.
        longest_first = {name: batch.pop(name) for name in sorted(tensors, key=lambda name: -len(batch[name]))}
        return longest_first | batch | {"num_sequences_in_batch": None}


def _with_targets(rows: Sequence[Row]) -> tuple[list[Row], bool]:
    """The rows that have a history and a target, and whether the targets stand apart, in ``labels``."""
    if not rows or any(ITEM_IDS not in row for row in rows):
        came = ", ".join(rows[0]) if rows and rows[0] else "nothing"
        raise DataError(
            f"rows hold {came}: expected {ITEM_IDS}. Trainer drops columns that the model's forward does not name: "
            "set TrainingArguments(remove_unused_columns=False)"
        )
    labelled = [row.get(LABELS) is not None for row in rows]
    if any(labelled) and not all(labelled):
        raise DataError(f"{sum(labelled)} of {len(rows)} rows have {LABELS}: expected all of a batch, or none")
    least = 1 if labelled[0] else 2
    found = [row for row in rows if len(row[ITEM_IDS]) >= least]
    # A training row too short says nothing; one that is evaluated has a place in the metrics.
    if not found or (labelled[0] and len(found) < len(rows)):
        raise DataError(
            f"{len(rows) - len(found)} of {len(rows)} rows have fewer than {least} {ITEM_IDS}, hence no history or no "
            f"target: dataset.filter(lambda row: len(row[{ITEM_IDS!r}]) >= {least})"
        )
    return found, labelled[0]


def _ragged(rows: list[Row], config: RetrConfig, labelled: bool) -> RaggedBatch:
    """The most recent items of each row that the model reads, and the target behind them."""
    read = config.max_position_embeddings + 1
    tokens = [_joined(row, labelled)[-read:] for row in rows]
    lengths = np.array([len(row) for row in tokens])
    times = None
    if config.reads_times:
        if any(row.get(TIMESTAMPS) is None for row in rows):
            raise DataError(
                f'attention="{config.attention}" reads times: expected rows with {TIMESTAMPS}, from domains that have '
                "them; choose another attention for those that do not"
            )
        times = np.concatenate([np.asarray(row[TIMESTAMPS], dtype=np.int64)[-read:] for row in rows])
        if len(times) != lengths.sum():
            raise DataError(f"expected {TIMESTAMPS} for every item, the target included, came {len(times)}")
    return RaggedBatch(np.concatenate(tokens), lengths, times)


def _joined(row: Row, labelled: bool) -> np.ndarray:
    items = np.asarray(row[ITEM_IDS], dtype=np.int64)
    return np.append(items, int(row[LABELS])) if labelled else items


def _check_items(tokens: np.ndarray, num_items: int | np.ndarray, whose: str) -> None:
    wrong = (tokens < 1) | (tokens > num_items)
    if wrong.any():
        last = np.broadcast_to(num_items, tokens.shape)[wrong][0]
        raise DataError(
            f"a row holds item {tokens[wrong][0]}, {whose} has 1 .. {last}: expected rows and items of one domain"
        )


def _generator(batch: RaggedBatch, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(batch.tokens.tobytes())])


def _tensors(arrays: dict[str, np.ndarray | tuple]) -> Batch:
    return {name: torch.from_numpy(array) if isinstance(array, np.ndarray) else array for name, array in arrays.items()}
