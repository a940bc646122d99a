"""Programs: a tower as ``torch.export`` (.pt2) or ONNX (.onnx), written, opened, and held against the eager model.

torch.export and torch.onnx.export are called directly. transformers' own exporters (``transformers.exporters``) take
the towers too and give the same outputs, but what they add, patches of torch's and transformers' internals, is not
needed here, and they call themselves experimental.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.export import ExportedProgram

from ..errors import RetrError
from ..model.body_retr import last_places
from ..model.history_terms import recent_rows
from ..model.modeling_retr import RetrForSequentialRecommendation
from ..model.processing_retr import longest_history
from .runners import SUFFIXES, Program
from .towers import ItemTower, UserTower

TOLERANCE = 1e-4  # of the largest number: float32 sums in another order stay a hundred times below it


def programs_of(tower: UserTower | ItemTower, folder: Path, name: str, formats: Sequence[str]) -> Iterator[Path]:
    """Writes a tower in each of ``formats`` ("onnx": ``name``.onnx, "torch": ``name``.pt2); their paths."""
    program = export_program(tower)
    for kind in formats:
        path = folder / (name + SUFFIXES[kind])
        write_onnx(program, path, tower.outputs) if kind == "onnx" else write_torch(program, path)
        yield path


def export_program(tower: UserTower | ItemTower) -> ExportedProgram:
    """The graph of a tower, its axes free as the tower says.

    Where the exporting machine keeps its files is no part of it.
    """
    with torch.no_grad(), _quiet():
        program = torch.export.export(
            tower, (), kwargs=tower.example(), dynamic_shapes=tower.dynamic_shapes, strict=False
        )
    for node in program.graph.nodes:
        node.meta = {name: node.meta[name] for name in ("val", "tensor_meta") if name in node.meta}
    return program


def write_torch(program: ExportedProgram, path: Path) -> None:
    """Writes a .pt2 file: ``torch.export.load(path).module()(**inputs)``."""
    with _quiet():
        torch.export.save(program, path)


def write_onnx(program: ExportedProgram, path: Path, outputs: list[str]) -> None:
    """Writes an .onnx file, above 2 GB with its weights beside it; inputs and outputs are called as the tower's.

    Raises:
        RetrError: onnx and onnxscript are not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RetrError("ONNX needs onnx and onnxscript: pip install 'retr_hf[serve]'") from error
    with _quiet():
        model = torch.onnx.export(program, kwargs=program.example_inputs[1], output_names=outputs, verbose=False)
    for node in model.model.graph.all_nodes():
        node.metadata_props.clear()
    model.save(path)


class Difference(NamedTuple):
    """Largest absolute difference to the eager model, and the largest number the eager model gave."""

    largest: float
    scale: float

    def __str__(self) -> str:
        return f"{self.largest:.1e} (numbers up to {self.scale:.3g})"

    def check(self, name: str) -> "Difference":
        """Itself. Raises RetrError where it is no rounding."""
        if not self.largest <= TOLERANCE * max(self.scale, 1.0):
            raise RetrError(f"{name}: differs from the eager model by {self}, more than rounding does")
        return self


@torch.no_grad()
def user_difference(program: Program, head: RetrForSequentialRecommendation, table: torch.Tensor) -> Difference:
    """A user program against ``encode_users`` and ``added_scores``, on histories of other sizes than it was exported
    with, padded on either side.

    table: [M, D], the item table.
    """
    pairs = []
    for inputs in trial_histories(head, len(table)):
        eager = {"queries": head.encode_users(**inputs, item_embeddings=table)}
        if head.adds_scores:
            positions = (inputs["attention_mask"].cumsum(1) - 1).clamp(min=0)
            rows = recent_rows(inputs["input_ids"], positions, last_places(inputs["attention_mask"]))
            rows = torch.nn.functional.pad(rows, (0, inputs["input_ids"].shape[1] - rows.shape[1]))
            eager |= dict(zip(("rows", "added"), head.added_scores(rows), strict=True))
        pairs.append((program(**_arrays(inputs), item_embeddings=table.numpy()), _arrays(eager)))
    return _difference(pairs)


@torch.no_grad()
def item_difference(program: Program, head: RetrForSequentialRecommendation, text: torch.Tensor | None) -> Difference:
    """An item program against ``encode_items`` and ``candidate_vectors``, on one item, seven and a whole catalogue.

    text: [M, T], what the model reads of the catalogue, or None.
    """
    pairs = []
    rows = head.config.vocab_size if text is None else len(text)
    for count in sorted({1, min(7, rows), rows}):
        inputs = {"item_ids": torch.arange(rows)[-count:]} if head.config.uses_ids else {}
        inputs |= {} if text is None else {"text_embeddings": text[-count:]}
        table = head.encode_items(**inputs)
        eager = {"table": table, "candidates": head.candidate_vectors(table)}
        pairs.append((program(**_arrays(inputs)), _arrays(eager)))
    return _difference(pairs)


def trial_histories(head: RetrForSequentialRecommendation, rows: int) -> Iterator[dict[str, torch.Tensor]]:
    """Inputs of a user tower but for the table: one item, one whole history, and batches padded on either side."""
    draw, longest = torch.Generator().manual_seed(0), longest_history(head.config)
    for batch, length in ((1, 1), (1, longest), (2, min(3, longest)), (7, longest)):
        counts = torch.randint(1, length + 1, (batch, 1), generator=draw)
        counts[0] = length
        steps = torch.arange(length)
        left = torch.arange(batch).unsqueeze(1) % 2 == 1
        real = torch.where(left, steps >= length - counts, steps < counts).long()
        ids = torch.randint(1, rows, real.shape, generator=draw) * real
        inputs = {"input_ids": ids, "attention_mask": real}
        reads = head.model.reads
        if "times" in reads:
            inputs["times"] = torch.randint(86_400, real.shape, generator=draw).cumsum(1) + 1_700_000_000
        if "marks" in reads:
            inputs["marks"] = torch.randint(head.config.modulating_marks, real.shape, generator=draw)
        yield inputs


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _difference(pairs: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]) -> Difference:
    """Of outputs (program, eager); another shape, another whole number or a NaN is an infinite one."""
    largest = scale = 0.0
    for ours, eager in pairs:
        if ours.keys() != eager.keys() or any(ours[name].shape != eager[name].shape for name in eager):
            return Difference(float("inf"), scale)
        for name, values in eager.items():
            apart = float(np.abs(ours[name] - values).max())
            if np.isnan(apart) or (values.dtype == np.int64 and apart):
                return Difference(float("inf"), scale)
            if values.dtype != np.int64:
                largest, scale = max(largest, apart), max(scale, float(np.abs(values).max()))
    return Difference(largest, scale)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch tells its own developers while it exports."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
