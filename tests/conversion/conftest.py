"""Checkpoints in the layout of RecBole's trainer, of small random models, and their forward pass written out.

RecBole is not needed: classes of its names are made for the moment of pickling and are gone before anything is opened.
"""

import math
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, normalize, relu

WIDTH, INNER, LENGTH, HEADS, LAYERS, TEXT, EXPERTS = 12, 20, 8, 3, 2, 10, 3
SETTINGS = {
    "model": "SASRec",
    "dataset": "X",
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_size": WIDTH,
    "inner_size": INNER,
    "hidden_dropout_prob": 0.5,
    "attn_dropout_prob": 0.4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "loss_type": "CE",
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "ITEM_ID_FIELD": "item_id",
    "benchmark_filename": ["train", "valid", "test"],
    "alias_of_item_id": ["item_id_list"],
    "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
}
UNISREC = SETTINGS | {
    "model": "UniSRec",
    "plm_size": TEXT,
    "n_exps": EXPERTS,
    "adaptor_layers": [TEXT, WIDTH],
    "adaptor_dropout_prob": 0.2,
    "temperature": 0.05,
    "lambda": 1e-3,
    "train_stage": "transductive_ft",
}


def save(path, weights, settings, protocol=4, **options):
    """As RecBole's ``Trainer._save_checkpoint``: a Config object, an enum, a class and numpy scalars beside weights."""
    configurator, enums = ModuleType("recbole.config.configurator"), ModuleType("recbole.utils.enum_type")
    config_class = type("Config", (), {"__module__": configurator.__name__})
    model_type = type("ModelType", (), {"__module__": enums.__name__, "__reduce__": lambda self: (model_type, (2,))})
    configurator.Config, enums.ModelType = config_class, model_type
    config = config_class()
    config.model_class = model_type
    config.final_config_dict = settings | {"MODEL_TYPE": model_type(), "device": torch.device("cpu")}
    state = {
        "config": config,
        "epoch": 6,
        "best_valid_score": np.float64(0.25),
        "state_dict": weights,
        "other_parameter": None,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    parents = {name: ModuleType(name) for name in ("recbole", "recbole.config", "recbole.utils")}
    with mock.patch.dict(sys.modules, parents | {module.__name__: module for module in (configurator, enums)}):
        torch.save(state, path, pickle_protocol=protocol, **options)
    return path


def random_weights(items, ids=True, adaptor=False, seed=0):
    """A state_dict by their names; ``items`` without padding."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def add(name, *shape):
        weights[name] = torch.randn(shape, generator=generator) * 0.4

    if ids:
        add("item_embedding.weight", items + 1, WIDTH)
    add("position_embedding.weight", LENGTH, WIDTH)
    for layer in range(LAYERS):
        at = f"trm_encoder.layer.{layer}."
        for name in ("query", "key", "value", "dense"):
            add(f"{at}multi_head_attention.{name}.weight", WIDTH, WIDTH)
            add(f"{at}multi_head_attention.{name}.bias", WIDTH)
        for name, rows, columns in (("dense_1", INNER, WIDTH), ("dense_2", WIDTH, INNER)):
            add(f"{at}feed_forward.{name}.weight", rows, columns)
            add(f"{at}feed_forward.{name}.bias", rows)
        for name in ("multi_head_attention", "feed_forward"):
            add(f"{at}{name}.LayerNorm.weight", WIDTH)
            add(f"{at}{name}.LayerNorm.bias", WIDTH)
    add("LayerNorm.weight", WIDTH)
    add("LayerNorm.bias", WIDTH)
    if adaptor:
        add("moe_adaptor.w_gate", TEXT, EXPERTS)
        add("moe_adaptor.w_noise", TEXT, EXPERTS)
        for expert in range(EXPERTS):
            add(f"moe_adaptor.experts.{expert}.bias", TEXT)
            add(f"moe_adaptor.experts.{expert}.lin.weight", WIDTH, TEXT)
    return weights


def adapted(weights, texts):
    """Σ_e softmax(x W_g)_e (x - b_e) W_e, expert by expert: [items, T] -> [items, d]."""
    gates = (texts @ weights["moe_adaptor.w_gate"]).softmax(-1)
    parts = []
    for expert in range(EXPERTS):
        at = f"moe_adaptor.experts.{expert}."
        parts.append(gates[:, [expert]] * ((texts - weights[at + "bias"]) @ weights[at + "lin.weight"].T))
    return sum(parts)


def last_state(weights, items, history, act=gelu):
    """SASRec's state [d] after a history of rows of ``items`` [rows, d], padded on the right to the full length."""

    def norm(name, x):
        return layer_norm(x, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    def linear(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    row = torch.zeros(LENGTH, dtype=torch.long)
    row[: len(history)] = torch.as_tensor(history)
    x = norm("LayerNorm", items[row] + weights["position_embedding.weight"])
    hidden = torch.where((row != 0) & torch.ones(LENGTH, LENGTH).tril().bool(), 0.0, -10000.0)
    for layer in range(LAYERS):
        at = f"trm_encoder.layer.{layer}."
        q, k, v = (
            linear(f"{at}multi_head_attention.{name}", x).view(LENGTH, HEADS, -1).transpose(0, 1)
            for name in ("query", "key", "value")
        )
        heads = (q @ k.transpose(1, 2) / math.sqrt(WIDTH // HEADS) + hidden).softmax(-1) @ v
        mixed = linear(f"{at}multi_head_attention.dense", heads.transpose(0, 1).reshape(LENGTH, WIDTH))
        x = norm(f"{at}multi_head_attention.LayerNorm", mixed + x)
        inner = linear(f"{at}feed_forward.dense_2", act(linear(f"{at}feed_forward.dense_1", x)))
        x = norm(f"{at}feed_forward.LayerNorm", inner + x)
    return x[len(history) - 1]


def sasrec_scores(weights, history, act=gelu):
    """RecBole's ``full_sort_predict`` of SASRec: [rows], row 0 padding."""
    items = weights["item_embedding.weight"]
    return items @ last_state(weights, items, history, act)


def unisrec_scores(weights, texts, history):
    """``full_sort_predict`` of UniSRec; texts [rows, T] are ``plm_embedding``, row 0 padding."""
    items = adapted(weights, texts)
    if "item_embedding.weight" in weights:
        items = items + weights["item_embedding.weight"]
    return normalize(items, dim=-1) @ normalize(last_state(weights, items, history), dim=-1)


@pytest.fixture
def recbole():
    """Everything above, for tests."""
    return SimpleNamespace(
        settings=SETTINGS,
        unisrec=UNISREC,
        save=save,
        random_weights=random_weights,
        sasrec_scores=sasrec_scores,
        unisrec_scores=unisrec_scores,
        activations={"gelu": gelu, "relu": relu, "swish": torch.nn.functional.silu},
        length=LENGTH,
        text=TEXT,
    )


@pytest.fixture
def atomic(tmp_path):
    """Writes a dataset X in UniSRec's files: histories of tokens, one vector a token, raw ids b0, b1, ... reversed."""

    def write(histories, features=None, folder="X"):
        base = tmp_path / folder / "X"
        base.parent.mkdir(parents=True, exist_ok=True)
        for split, cut in (("train", 2), ("valid", 1), ("test", 0)):
            lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
            for user, history in enumerate(histories):
                last = len(history) - 1 - cut
                for target in range(last, 0, -1) if split == "train" else [last]:
                    lines.append(f"{user}\t{' '.join(map(str, history[:target]))}\t{history[target]}")
            (base.parent / f"X.{split}.inter").write_text("\n".join(lines) + "\n")
        if features is not None:
            count = len(features)
            names = [f"b{count - 1 - index}" for index in range(count)]
            (base.parent / "X.item2index").write_text("".join(f"{raw}\t{i}\n" for i, raw in enumerate(names)))
            texts = "".join(f"{raw}\tThing {raw}.\n" for raw in names[1:])  # the first item has no text
            (base.parent / "X.text").write_text("item_id:token\ttext:token_seq\n" + texts)
            np.asarray(features, dtype="<f4").tofile(base.parent / "X.feat1CLS")
        return base

    return write
