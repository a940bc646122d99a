"""RecBole's SASRec (Kang & McAuley, ICDM 2018; RecBole 1.x) as a RETR body without router: names, settings, weights.

    their weights                                     -> ours, behind ``model.``
    item_embedding                                    -> embed_tokens
    position_embedding, LayerNorm                     -> embed_positions, input_norm
    trm_encoder.layer.L.multi_head_attention.query    -> layers.L.self_attn.q_proj   (key k_proj, value v_proj)
    trm_encoder.layer.L.multi_head_attention.dense    -> layers.L.self_attn.o_proj
    trm_encoder.layer.L.multi_head_attention.LayerNorm -> layers.L.attention_norm
    trm_encoder.layer.L.feed_forward.dense_1, dense_2 -> layers.L.up_proj, down_proj
    trm_encoder.layer.L.feed_forward.LayerNorm        -> layers.L.ffn_norm

    their settings                                    -> ours
    hidden_size, n_layers, n_heads, inner_size        -> hidden_size, num_hidden_layers, num_attention_heads,
                                                         intermediate_size
    hidden_act, layer_norm_eps, MAX_ITEM_LIST_LENGTH  -> hidden_act ("swish": "silu"), layer_norm_eps,
                                                         max_position_embeddings
    hidden_dropout_prob, attn_dropout_prob            -> hidden_dropout, attention_dropout
    initializer_range, loss_type ("CE", "BPR")        -> initializer_range, objective ("softmax", "bpr")

Both pad on the right and count positions from the first item, so positions need no turning. Scores are dot products.

NOTE: RecBole hides keys by adding -10000 to their logits, we by leaving them out: the same where exp(-10000) is 0.
NOTE: RecBole's padding row is random and frozen, ours zero; neither is read or scored.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import DataError
from ..model.configuration_retr import RetrConfig
from ..model.modeling_retr import RetrForSequentialRecommendation
from .safe_checkpoint import Checkpoint
from .their_settings import TheirSettings

OUTSIDE = {"position_embedding": "embed_positions", "LayerNorm": "input_norm"}
BLOCK = {
    "multi_head_attention.query": "self_attn.q_proj",
    "multi_head_attention.key": "self_attn.k_proj",
    "multi_head_attention.value": "self_attn.v_proj",
    "multi_head_attention.dense": "self_attn.o_proj",
    "multi_head_attention.LayerNorm": "attention_norm",
    "feed_forward.dense_1": "up_proj",
    "feed_forward.dense_2": "down_proj",
    "feed_forward.LayerNorm": "ffn_norm",
}
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "swish": "silu", "tanh": "tanh", "sigmoid": "sigmoid"}
OBJECTIVES = {"CE": "softmax", "BPR": "bpr"}
IDS, ADAPTOR, POSITIONS = "item_embedding.weight", "moe_adaptor.", "position_embedding.weight"
_IN_BLOCK = re.compile(r"trm_encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")


def require_model(checkpoint: Checkpoint, settings: TheirSettings, wanted: str) -> None:
    """Raises DataError where a checkpoint is not of ``wanted`` ("SASRec" or "UniSRec"), with what it looks like."""
    names = checkpoint.weights.keys()
    seen = "another model"
    if POSITIONS in names and any(map(_IN_BLOCK.fullmatch, names)):
        seen = "UniSRec" if any(name.startswith(ADAPTOR) for name in names) else "SASRec"
    stored, given = settings.stored.get("model"), settings.given.get("model")
    settings.accept("model")
    said = given or stored
    if seen == wanted and said in (None, wanted):
        return
    script = {"SASRec": "scripts/convert_recbole.py", "UniSRec": "scripts/convert_unisrec.py"}.get(seen)
    advice = f"; {script} converts it" if script and seen != wanted and said in (None, seen) else ""
    if seen == wanted:
        advice = f"; if its forward pass is {wanted}'s to the letter, say so with --set model={wanted}"
    raise DataError(
        f"{checkpoint.path}: expected a checkpoint of RecBole's {wanted}. It says it is of {said or 'no model'}, and "
        f"its weights look like {seen} ({', '.join(sorted({name.split('.')[0] for name in names})[:8])}){advice}"
    )


def body_settings(checkpoint: Checkpoint, settings: TheirSettings) -> dict[str, Any]:
    """Fields of ``RetrConfig`` that SASRec and UniSRec share; what is missing or contradictory goes to ``settings``."""
    weights = checkpoint.weights
    length, width = weights[POSITIONS].shape
    layers = 1 + max(int(match[1]) for match in map(_IN_BLOCK.fullmatch, weights) if match)
    inner = weights.get("trm_encoder.layer.0.feed_forward.dense_1.weight", torch.empty(1, width)).shape[0]
    act = settings.told("hidden_act", str)
    settings.require(
        act is None or act in ACTIVATIONS, f"hidden_act: expected one of {', '.join(ACTIVATIONS)}, got {act!r}"
    )
    return {
        "hidden_size": settings.shown("hidden_size", width),
        "num_hidden_layers": settings.shown("n_layers", layers),
        "intermediate_size": settings.shown("inner_size", inner),
        "max_position_embeddings": settings.shown("MAX_ITEM_LIST_LENGTH", length),
        "num_attention_heads": settings.told("n_heads", int, ", and no shape shows it"),
        "hidden_act": ACTIVATIONS.get(act, act),
        "layer_norm_eps": settings.told("layer_norm_eps", float),
        "hidden_dropout": settings.told("hidden_dropout_prob", float),
        "attention_dropout": settings.told("attn_dropout_prob", float),
        "initializer_range": settings.told("initializer_range", float),
        "router": "none",
    }


def body_weights(weights: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(ours by name, theirs that belong to no body) of a state_dict."""
    ours, rest = {}, {}
    for name, tensor in weights.items():
        module, _, kind = name.rpartition(".")
        if module in OUTSIDE:
            ours[f"model.{OUTSIDE[module]}.{kind}"] = tensor
        elif (match := _IN_BLOCK.fullmatch(name)) and match[2] in BLOCK:
            ours[f"model.layers.{match[1]}.{BLOCK[match[2]]}.{match[3]}"] = tensor
        else:
            rest[name] = tensor
    return ours, rest


def build(
    settings: TheirSettings, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], rest: Mapping[str, Any]
) -> RetrForSequentialRecommendation:
    """The model of a config with all its weights, in evaluation mode.

    rest: their weights that found no place.

    Raises:
        DataError: settings that are missing, contradictory or make no model; weights that are missing, left over, of
            another shape or not finite. All at once.
    """
    settings.require(not rest, f"weights that the model does not have: {', '.join(sorted(rest)[:5])}")
    spoilt = sorted(name for name, tensor in weights.items() if not tensor.isfinite().all())
    settings.require(not spoilt, f"weights that are not finite: {', '.join(spoilt[:5])}")
    if not settings.problems:
        try:
            model = RetrForSequentialRecommendation(RetrConfig(**config)).eval()
        except Exception as error:  # the strict dataclass has exceptions of its own
            settings.problems.append(str(error))
    settings.finish()
    expected = model.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        want, got = (list(of[name].shape) if name in of else "none" for of in (expected, weights))
        settings.require(want == got, f"{name} (our name): expected {want}, the checkpoint has {got}")
    settings.finish()
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model


def convert_sasrec(
    checkpoint: Checkpoint, settings: TheirSettings, num_items: int, catalog_hash: str
) -> RetrForSequentialRecommendation:
    """RecBole's SASRec as a model of ids; item index i is RecBole's item i.

    num_items, catalog_hash: of the catalogue, whose items stand in RecBole's order.

    Raises:
        DataError: another model, or what ``build`` refuses.
    """
    require_model(checkpoint, settings, "SASRec")
    config = body_settings(checkpoint, settings)
    loss = settings.told("loss_type", str)
    settings.require(loss in (None, *OBJECTIVES), f"loss_type: expected CE or BPR, got {loss!r}")
    weights, rest = body_weights(checkpoint.weights)
    table = rest.pop(IDS, torch.empty(0, 0))
    settings.require(
        len(table) == num_items + 1,
        f"{IDS}: {len(table) - 1} items without padding, but {num_items} tokens are given; give those of this "
        "checkpoint's dataset",
    )
    weights["model.embed_tokens.weight"] = without_padding(table)
    config |= {"item_features": "id", "score": "dot", "objective": OBJECTIVES.get(loss, "softmax")}
    config |= {"vocab_size": num_items + 1, "catalog_hash": catalog_hash}
    return build(settings, config, weights, rest)


def without_padding(table: torch.Tensor) -> torch.Tensor:
    """An id table [rows, d] with zeros in row 0."""
    table = table.clone()
    table[:1] = 0
    return table
