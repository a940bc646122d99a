"""RecBole's SASRec: a converted checkpoint scores as its forward pass, written out by hand, does."""

import numpy as np
import pytest
import torch

from retr_hf.conversion.recbole import convert_sasrec, require_model
from retr_hf.conversion.safe_checkpoint import read_checkpoint
from retr_hf.conversion.their_settings import TheirSettings
from retr_hf.errors import DataError

ITEMS = 9


def opened(recbole, tmp_path, weights=None, given=None, **settings):
    weights = recbole.random_weights(ITEMS) if weights is None else weights
    path = recbole.save(tmp_path / "x.pth", weights, {**recbole.settings, **settings})
    checkpoint = read_checkpoint(path)
    return checkpoint, TheirSettings(checkpoint, given)


def convert(recbole, tmp_path, **changed):
    return convert_sasrec(*opened(recbole, tmp_path, **changed), ITEMS, "the hash")


@pytest.mark.parametrize(("act", "loss"), [("gelu", "CE"), ("relu", "BPR"), ("swish", "CE")])
def test_scores_are_theirs(recbole, tmp_path, act, loss):
    weights = recbole.random_weights(ITEMS)
    model = convert(recbole, tmp_path, hidden_act=act, loss_type=loss)
    histories = [[4], [9, 1, 1], [3, 8, 2, 7, 9], np.arange(1, recbole.length + 1).tolist()]
    for history in histories:
        theirs = recbole.sasrec_scores(weights, history, recbole.activations[act])
        with torch.no_grad():
            ours = model(torch.tensor([history])).logits[0]
        torch.testing.assert_close(ours[1:], theirs[1:], atol=1e-5, rtol=1e-5)
        assert ours[0] == -torch.inf
    assert model.config.objective == {"CE": "softmax", "BPR": "bpr"}[loss]
    assert not model.training


def test_config(recbole, tmp_path):
    model = convert(recbole, tmp_path)
    config = model.config
    assert not model.get_input_embeddings().weight[0].any()  # theirs is random, and never read
    assert (config.hidden_dropout, config.attention_dropout, config.layer_norm_eps) == (0.5, 0.4, 1e-12)
    assert (config.router, config.attention, config.input_norm, config.score) == ("none", "full", True, "dot")
    assert (config.vocab_size, config.catalog_hash, config.item_features) == (ITEMS + 1, "the hash", "id")
    assert (config.num_attention_heads, config.max_position_embeddings) == (3, recbole.length)


def test_all_mistakes_are_told_at_once(recbole, tmp_path):
    wrong = {"n_layers": 3, "hidden_size": 16, "inner_size": 21, "MAX_ITEM_LIST_LENGTH": 50, "hidden_act": "mish",
             "loss_type": "hinge", "n_heads": None, "attn_dropout_prob": "much"}  # fmt: skip
    weights = recbole.random_weights(ITEMS + 2)
    weights["LayerNorm.weight"][0] = torch.nan
    with pytest.raises(DataError) as told:
        convert(recbole, tmp_path, weights=weights, given={"n_head": "3"}, **wrong)
    for mistake in (
        "n_layers: the weights show 2, but 3",
        "hidden_size: the weights show 12, but 16",
        "inner_size: the weights show 20, but 21",
        "MAX_ITEM_LIST_LENGTH: the weights show 8, but 50",
        "hidden_act: expected one of gelu, relu, swish, tanh, sigmoid, got 'mish'",
        "loss_type: expected CE or BPR, got 'hinge'",
        "n_heads: not in the checkpoint, and no shape shows it; add --set n_heads=VALUE",
        "attn_dropout_prob: expected a float, got 'much'",
        "item_embedding.weight: 11 items without padding, but 9 tokens are given",
        "weights that are not finite: model.input_norm.weight",
        "--set n_head: no such setting; did you mean n_heads?",
        "11 mistakes",
    ):
        assert mistake in str(told.value)


def test_values_of_the_command_line_fill_what_is_missing(recbole, tmp_path):
    given = {name: str(value) for name, value in recbole.settings.items()}
    del given["model"]
    torch.save(recbole.random_weights(ITEMS), tmp_path / "bare.pth")  # weights alone
    checkpoint = read_checkpoint(tmp_path / "bare.pth")
    asked = ("n_heads", "hidden_act", "layer_norm_eps", "hidden_dropout_prob", "attn_dropout_prob")
    asked += ("initializer_range", "loss_type")
    with pytest.raises(DataError) as told:
        convert_sasrec(checkpoint, TheirSettings(checkpoint), ITEMS, "hash")
    assert all(f"{name}: not in the checkpoint" in str(told.value) for name in asked)
    settings = TheirSettings(checkpoint, {name: given[name] for name in asked})
    bare, whole = convert_sasrec(checkpoint, settings, ITEMS, "the hash"), convert(recbole, tmp_path)
    assert bare.config.to_dict() == whole.config.to_dict()
    with pytest.raises(DataError, match="n_heads: the checkpoint says 3, --set says 4"):
        convert(recbole, tmp_path, given={"n_heads": "4"})
    convert(recbole, tmp_path, given={"n_heads": "3", "layer_norm_eps": "1e-12"})


def test_weights_that_do_not_fit(recbole, tmp_path):
    weights = recbole.random_weights(ITEMS)
    del weights["trm_encoder.layer.1.feed_forward.dense_2.bias"]
    weights["trm_encoder.layer.0.multi_head_attention.query.bias"] = torch.zeros(5)
    with pytest.raises(DataError) as told:
        convert(recbole, tmp_path, weights=weights)
    assert "layers.1.down_proj.bias (our name): expected [12], the checkpoint has none" in str(told.value)
    assert "layers.0.self_attn.q_proj.bias (our name): expected [12], the checkpoint has [5]" in str(told.value)
    weights = recbole.random_weights(ITEMS) | {"output_bias": torch.zeros(4)}
    with pytest.raises(DataError, match="weights that the model does not have: output_bias"):
        convert(recbole, tmp_path, weights=weights)


def test_another_model_is_named(recbole, tmp_path):
    gru = {"item_embedding.weight": torch.zeros(3, 4), "gru_layers.weight_ih_l0": torch.zeros(12, 4)}
    with pytest.raises(DataError, match=r"it is of GRU4Rec, and its weights look like another model \(gru_layers"):
        require_model(*opened(recbole, tmp_path, weights=gru, model="GRU4Rec"), "SASRec")
    adaptor = recbole.random_weights(ITEMS, adaptor=True)
    with pytest.raises(DataError, match="look like UniSRec .*; scripts/convert_unisrec.py converts it"):
        require_model(*opened(recbole, tmp_path, weights=adaptor, model="UniSRec"), "SASRec")
    with pytest.raises(DataError, match="look like SASRec .*; scripts/convert_recbole.py converts it"):
        require_model(*opened(recbole, tmp_path), "UniSRec")
    # Other losses on SASRec's network: only the user can know that the forward pass is the same.
    with pytest.raises(DataError, match="it is of DuoRec, .* say so with --set model=SASRec"):
        require_model(*opened(recbole, tmp_path, model="DuoRec"), "SASRec")
    require_model(*opened(recbole, tmp_path, model="DuoRec", given={"model": "SASRec"}), "SASRec")
