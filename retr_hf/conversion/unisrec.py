"""UniSRec (Hou et al., KDD 2022; the authors' code on RecBole 1.x): recbole.py and an adaptor of item texts.

    their weights                          -> ours, behind ``model.item_adaptor.``
    moe_adaptor.experts.E.lin.weight [d, T] -> experts.weight [E d, T], one under the other
    moe_adaptor.experts.E.bias [T]          -> centers [E, T]
    moe_adaptor.w_gate, w_noise [T, E]      -> gate.weight, gate_noise.weight [E, T]
    item_embedding [items, d]               -> embed_tokens, rows in the order of the catalogue
    plm_embedding [items, T]                -> no weight: the text vectors of the catalogue

    their settings                          -> ours
    plm_size, n_exps, adaptor_dropout_prob  -> text_size, num_experts, adaptor_dropout
    temperature, lambda                     -> temperature, sequence_loss_weight
    train_stage                             -> item_features: "transductive_ft" is "text+id", the others "text"

Item vectors are adapted text, in the transductive setting plus an id vector, in histories and as candidates alike;
scores are cosines.

NOTE: ours are the cosines divided by the temperature, as in their loss; their ``full_sort_predict`` leaves the division
out. The order of items is the same.
NOTE: a vector shorter than ``head_retr.NORM_FLOOR`` is divided by that floor and not by its length.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..model.item_catalog import ItemCatalog
from ..model.modeling_retr import RetrForSequentialRecommendation
from .item_rows import check_texts, indices_of, items_with_texts, tokens_from_inter, tokens_from_texts
from .recbole import ADAPTOR, IDS, body_settings, body_weights, build, require_model
from .safe_checkpoint import Checkpoint
from .their_settings import TheirSettings

TEXTS = "plm_embedding.weight"
STAGES = ("pretrain", "inductive_ft", "transductive_ft")


def reads_ids(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint holds an id table (the transductive setting)."""
    return IDS in checkpoint.weights


def catalog_rows(
    checkpoint: Checkpoint,
    settings: TheirSettings,
    catalog: ItemCatalog,
    prefix: Path,
    tokens: Sequence[str] | None = None,
) -> np.ndarray | None:
    """Row of RecBole's item table for each item of the catalogue, int64 [len(catalog)], 0 for an item it has not.

    None for a checkpoint without an id table. Where the checkpoint holds text vectors, they must be the catalogue's.

    Args:
        catalog: the items in the order of ``X.item2index``, with the features.
        prefix: FOLDER/X of the files.
        tokens: RecBole's item tokens in its order, where the user knows them.

    Raises:
        DataError: an order that cannot be known, or that the checkpoint contradicts (item_rows.py).
    """
    features, ids = catalog.embeddings, checkpoint.weights.get(IDS)
    stored = checkpoint.weights[TEXTS].numpy() if TEXTS in checkpoint.weights else None
    if ids is None:
        if stored is not None:
            items_with_texts(stored, features)
        return None
    if tokens is None:
        files = any(prefix.parent.glob(f"{prefix.name}.*inter")) and "benchmark_filename" in settings.stored
        tokens = tokens_from_inter(prefix, settings.stored) if files or stored is None else None
    if tokens is None:
        tokens = tokens_from_texts(stored, features)
    if len(tokens) != len(ids) - 1:
        raise DataError(
            f"{prefix}: {len(tokens):,} items in RecBole's order, but {len(ids) - 1:,} rows without padding in {IDS}; "
            "give the files that the checkpoint was trained with"
        )
    indices = indices_of(tokens, len(catalog), str(prefix))
    if stored is not None:
        check_texts(stored, features, indices)
    rows = np.zeros(len(catalog), dtype=np.int64)
    rows[indices] = np.arange(1, len(ids))
    return rows


def convert_unisrec(
    checkpoint: Checkpoint,
    settings: TheirSettings,
    text_encoder: str,
    catalog: ItemCatalog | None = None,
    rows: np.ndarray | None = None,
) -> RetrForSequentialRecommendation:
    """UniSRec as a model of texts, or of texts and ids.

    Args:
        text_encoder: ``ItemCatalog.text_encoder`` of the vectors the model was trained on.
        catalog: the items of the id table; a model of texts alone needs none.
        rows: [len(catalog)] row of RecBole's item table for each item of the catalogue, 0 for none (item_rows.py);
            with an id table.

    Raises:
        DataError: another model, or what ``recbole.build`` refuses.
    """
    require_model(checkpoint, settings, "UniSRec")
    config = body_settings(checkpoint, settings)
    weights, rest = body_weights(checkpoint.weights)
    rest.pop(TEXTS, None)
    ids = rest.pop(IDS, None)
    adaptor, sizes = _adaptor(rest, settings)
    stage = settings.get("train_stage")  # the weights show what of it matters
    settings.require(stage in (None, *STAGES), f"train_stage: expected one of {', '.join(STAGES)}, got {stage!r}")
    settings.require(
        stage is None or (stage == "transductive_ft") == (ids is not None),
        f"train_stage={stage!r}, but the checkpoint has {'no' if ids is None else 'an'} id table ({IDS})",
    )
    config |= sizes | {
        "adaptor_dropout": settings.told("adaptor_dropout_prob", float),
        "temperature": settings.told("temperature", float),
        "sequence_loss_weight": settings.told("lambda", float),
        "item_features": "text" if ids is None else "text+id",
        "text_encoder": text_encoder,
        "text_scale": None,  # theirs read the vectors as they are
        "score": "cosine",
        "objective": "softmax",
    }
    weights |= adaptor
    if ids is not None:
        table = torch.zeros(len(rows) + 1, ids.shape[1])
        table[1:] = torch.where(torch.from_numpy(rows > 0)[:, None], ids.float()[torch.from_numpy(rows)], 0)
        weights["model.embed_tokens.weight"] = table
        config |= {"vocab_size": len(table), "catalog_hash": catalog.hash}
    return build(settings, config, weights, rest)


def text_size(checkpoint: Checkpoint) -> int:
    """Width T of the text vectors the model reads.

    Raises:
        DataError: no gate that shows it.
    """
    gate = checkpoint.weights.get(f"{ADAPTOR}w_gate")
    if gate is None or gate.dim() != 2:
        raise DataError(f"{checkpoint.path}: expected the adaptor's gate {ADAPTOR}w_gate [T, experts], it is not there")
    return gate.shape[0]


def _adaptor(rest: dict[str, torch.Tensor], settings: TheirSettings) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(our weights, our sizes) of the adaptor, whose weights are taken out of ``rest``."""
    gates = {ours: rest.pop(f"{ADAPTOR}{name}", None) for name, ours in (("w_gate", "gate"), ("w_noise", "gate_noise"))}
    lines, centers = [], []
    while f"{ADAPTOR}experts.{len(lines)}.lin.weight" in rest:
        at = f"{ADAPTOR}experts.{len(lines)}"
        lines.append(rest.pop(f"{at}.lin.weight"))
        centers.append(rest.pop(f"{at}.bias", torch.empty(0)))
    one_shape = len({(line.shape, center.shape) for line, center in zip(lines, centers, strict=True)}) == 1
    if not one_shape or any(gate is None for gate in gates.values()):
        settings.require(False, f"{ADAPTOR}*: expected a gate, its noise, and experts of one shape; they are not there")
        return {}, {}
    width, size = lines[0].shape
    settings.shown("plm_size", size)
    settings.shown("n_exps", len(lines))
    said = settings.get("adaptor_layers")
    settings.require(
        not isinstance(said, list | tuple) or list(said) == [size, width],
        f"adaptor_layers: the weights show {[size, width]}, but {said!r} is said",
    )
    ours = {f"{name}.weight": gate.T.contiguous() for name, gate in gates.items()}
    ours |= {"experts.weight": torch.cat(lines), "centers": torch.stack(centers)}
    return {f"model.item_adaptor.{name}": tensor for name, tensor in ours.items()}, {
        "text_size": size,
        "num_experts": len(lines),
    }
