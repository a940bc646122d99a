"""Ours: the package's own training loop and ranking."""

import contextlib
import io
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from ...data.collators import NextItemCollator
from ...data.domain import Sequences
from ...data.mixture import Batches, Mixture
from ...data.ragged import group_by_length
from ...data.training_sequences import TrainingSequences
from ...evaluation.histories import rank_histories
from ...evaluation.metrics import metrics_from_ranks
from ...model.configuration_retr import RetrConfig
from ...model.modeling_retr import RetrForSequentialRecommendation
from ...model.objectives import NEEDS_NEGATIVES
from ...training.loop import train
from ...training.run_folder import RunFolder
from ...training.settings import TrainingSettings
from .clock import Clock, Given, version_of


def run(options: Any, given: Given) -> dict[str, Any]:
    """Steps of ``training.loop.train``, timed from one forward pass to the next, or one ranking in both protocols."""
    torch.manual_seed(0)
    model = _model(options, given)
    text = None if given.text is None else torch.from_numpy(given.text)
    about = {"version": version_of("retr_hf"), "torch": torch.__version__}
    if options.task == "ranking":
        start = time.perf_counter()
        items = model.encode_catalog(text)
        for ranks in rank_histories(model, items, _end_to_end(given.histories), None, options.max_length).values():
            metrics_from_ranks(ranks, [10])
        return about | given.ranked(options.max_length, time.perf_counter() - start)

    clock = Clock(options.warmup, options.steps)

    def asked(module, arguments, batch) -> None:
        clock.read.append((int(batch["attention_mask"].sum()), batch["num_items_in_batch"]))
        clock.next_step()

    model.register_forward_pre_hook(asked, with_kwargs=True)
    steps = options.warmup + options.steps + 1  # the last one begins where the timed ones end
    # As often as it takes to stay within an epoch: at its end there is a checkpoint, and others' are not timed.
    often = -(-(steps + 1) * options.batch_size // len(given.histories))
    rows = [history[:-2] for history in given.histories] * often
    sequences = TrainingSequences([_end_to_end(rows)], [given.num_items], options.max_length)
    collate = NextItemCollator(given.num_items, negatives=options.loss in NEEDS_NEGATIVES, lay_out=group_by_length)
    batches = Batches(sequences, Mixture(sequences.domain_sizes), collate, options.batch_size)
    settings = TrainingSettings(max_steps=steps, batch_size=options.batch_size, progress=False)
    folder = RunFolder("run")
    folder.path.mkdir()
    constants = {} if text is None else {"text_embeddings": text}
    with contextlib.redirect_stdout(io.StringIO()):
        train(model, batches, settings, folder, Accelerator(cpu=True), constants=constants)
    return about | clock.result()


def _model(options: Any, given: Given) -> RetrForSequentialRecommendation:
    items = {"item_features": "id", "score": "dot"}
    if given.text is not None:
        items = {"item_features": "text+id", "text_size": given.text.shape[1]}
    return RetrForSequentialRecommendation(
        RetrConfig(
            **items,
            vocab_size=given.num_items + 1,
            max_position_embeddings=options.max_length,
            objective=options.loss,
            router=options.router,
            hidden_size=options.hidden_size,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            intermediate_size=options.inner,
            hidden_dropout=options.dropout,
            attention_dropout=options.dropout,
        )
    )


def _end_to_end(rows: Sequence[Sequence[int]]) -> Sequences:
    lengths = np.array([len(row) for row in rows])
    return Sequences(np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
