"""With router="none" the model is RecBole's SASRec, and with text items UniSRec's network: held against both, written
out here by hand from their papers and printed layer definitions, weights copied over."""

import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, normalize

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

SIZES = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 12}


def linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, x):
    return layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-12)


def sasrec(weights, items, history, layers, heads):
    """RecBole's SASRec on one history of indices; ``items`` [M, d] is the item table. Returns the last state [d]."""
    x = norm(weights, "model.input_norm", items[history] + weights["model.embed_positions.weight"][: len(history)])
    for number in range(layers):
        at = f"model.layers.{number}."
        q, k, v = (linear(weights, at + f"self_attn.{name}_proj", x) for name in "qkv")
        size = q.shape[1] // heads
        mixed = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            logits = q[:, columns] @ k[:, columns].T / math.sqrt(size)
            logits = logits.masked_fill(torch.ones_like(logits).triu(1).bool(), -1e4)
            mixed.append(logits.softmax(-1) @ v[:, columns])
        x = norm(weights, at + "attention_norm", linear(weights, at + "self_attn.o_proj", torch.cat(mixed, 1)) + x)
        inner = gelu(linear(weights, at + "up_proj", x))
        x = norm(weights, at + "ffn_norm", linear(weights, at + "down_proj", inner) + x)
    return x[-1]


def unisrec_items(weights, text, scale=20):
    """UniSRec's adaptor, expert by expert, on vectors of length ``scale`` (None: their own)."""
    text = text if scale is None else scale * text / text.norm(dim=-1, keepdim=True)
    gates = (text @ weights["model.item_adaptor.gate.weight"].T).softmax(-1)
    centers = weights["model.item_adaptor.centers"]
    experts = weights["model.item_adaptor.experts.weight"].view(len(centers), -1, text.shape[1])
    return sum(gates[:, [e]] * ((text - centers[e]) @ experts[e].T) for e in range(len(centers)))


def model_with_random_weights(**config):
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(RetrConfig(router="none", **SIZES, **config)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model, model.state_dict()


def test_sasrec_scores_and_loss():
    model, weights = model_with_random_weights(item_features="id", vocab_size=31, score="dot")
    history, target = torch.tensor([4, 9, 1, 30, 4]), 7
    items = weights["model.embed_tokens.weight"]
    scores = items @ sasrec(weights, items, history, layers=2, heads=3)
    labels = torch.tensor([[-100] * 4 + [target]])
    output = model(history[None], labels=labels)
    torch.testing.assert_close(output.logits[0, 1:], scores[1:], atol=1e-12, rtol=1e-12)
    # float32 in the loss by design
    torch.testing.assert_close(output.loss.double(), -scores[1:].log_softmax(0)[target - 1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [None, 3.0, 20.0])
def test_unisrec_scores_in_text_mode(scale):
    model, weights = model_with_random_weights(item_features="text", text_size=18, num_experts=5, text_scale=scale)
    text = torch.randn(40, 18, dtype=torch.double)
    history = torch.tensor([3, 17, 17, 39])
    items = unisrec_items(weights, text, scale)
    state = sasrec(weights, items, history, layers=2, heads=3)
    scores = normalize(items, dim=-1) @ normalize(state, dim=-1) / 0.07
    logits = model(history[None], text_embeddings=text).logits[0]
    torch.testing.assert_close(logits[1:], scores[1:], atol=1e-10, rtol=1e-10)


def test_unisrec_transductive_adds_ids():
    model, weights = model_with_random_weights(item_features="text+id", text_size=18, vocab_size=40, num_experts=2)
    text = torch.randn(40, 18, dtype=torch.double)
    items = unisrec_items(weights, text) + weights["model.embed_tokens.weight"]
    state = sasrec(weights, items, torch.tensor([3, 39]), layers=2, heads=3)
    scores = normalize(items, dim=-1) @ normalize(state, dim=-1) / 0.07
    logits = model(torch.tensor([[3, 39]]), text_embeddings=text).logits[0]
    torch.testing.assert_close(logits[1:], scores[1:], atol=1e-10, rtol=1e-10)


def test_bpr_by_hand():
    model, weights = model_with_random_weights(item_features="id", vocab_size=31, score="dot", objective="bpr")
    items = weights["model.embed_tokens.weight"]
    history, targets, negatives = torch.tensor([5, 6]), torch.tensor([6, 8]), torch.tensor([1, 2])
    states = [sasrec(weights, items, history[: step + 1], layers=2, heads=3) for step in range(2)]
    want = (
        -sum(
            math.log(1 / (1 + math.exp(-(state @ (items[good] - items[bad])).item())))
            for state, good, bad in zip(states, targets, negatives, strict=True)
        )
        / 2
    )
    loss = model(history[None], labels=targets[None], negative_ids=negatives[None]).loss
    assert abs(loss.item() - want) < 1e-5 * max(1, want)
