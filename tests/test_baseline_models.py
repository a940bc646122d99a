"""What every baseline must fulfil in the place of RETR's body: padding, layouts, future, gradients, saving, ranking."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from retr_hf.baseline_models import BASELINES
from retr_hf.data.domain import Sequences
from retr_hf.evaluation.histories import rank_histories
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.processing_retr import RetrProcessor, config_of
from retr_hf.model.recommender import Recommender, open_model
from retr_hf.model_section import FAMILIES, model_config

ITEMS = 30
FAMILY = sorted(config.model_type for config in BASELINES)
CAUSAL = [name for name in FAMILY if FAMILIES[name][0].every_step]  # the others read one prefix a row
OWN = {
    "gru4rec": {"gru_size": 12, "gru_layers": 2},
    "caser": {"caser_length": 3, "horizontal_filters": 4, "vertical_filters": 2, "output_table": True},
    "sine": {"num_prototypes": 6, "num_interests": 3},
}


def build(name, seed=0, **changes):
    torch.manual_seed(seed)
    fields = {"item_features": "id", "score": "dot", "hidden_size": 16, "vocab_size": ITEMS + 1}
    fields |= {"max_position_embeddings": 20, "initializer_range": 0.3, "item_bias": True, "hidden_dropout": 0.1}
    config = model_config(model_type=name, **fields, **OWN.get(name, {}), **changes)
    return AutoModelForSequenceClassification.from_config(config).eval()


def history(length, seed=0):
    return torch.randint(1, ITEMS + 1, (1, length), generator=torch.Generator().manual_seed(seed))


def rows(lengths, width, side):
    input_ids = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in zip(input_ids, lengths, strict=True):
        row[slice(0, length) if side == "right" else slice(width - length, width)] = history(length, length)[0]
    return input_ids


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", FAMILY)
def test_padding_changes_nothing(name, side):
    model, lengths = build(name), (1, 4, 9)
    ids = rows(lengths, 15, side)
    together = model(ids, (ids > 0).long()).logits
    apart = torch.cat([model(history(length, length)).logits for length in lengths])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILY)
def test_groups_equal_rows(name):
    model, lengths = build(name), (2, 2, 5)
    flat = torch.cat([history(2, 1), history(2, 2), history(5, 3)], 1)
    ends = torch.tensor([1, 3, 8])
    users = model.encode_users(flat, sequence_ends=ends, length_groups=((2, 2), (1, 5)))
    apart = [model.encode_users(history(n, seed), torch.ones(1, n)) for n, seed in zip(lengths, (1, 2, 3), strict=True)]
    torch.testing.assert_close(users, torch.cat(apart), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="reads no packed rows"):
        model.model(history(3), position_ids=torch.tensor([[0, 1, 0]]))


@pytest.mark.parametrize("name", CAUSAL)
def test_the_future_changes_nothing(name):
    model = build(name)
    past, future = history(5), history(4, seed=9)
    changed = torch.cat([past, future], 1), torch.cat([past, future.flip(1) % ITEMS + 1], 1)
    first, second = (model.model(ids).last_hidden_state[:, :5] for ids in changed)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
    alone = model.model(past).last_hidden_state[0, -1]
    torch.testing.assert_close(first[0, -1], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILY)
def test_every_parameter_gets_a_gradient(name):
    model = build(name).train()
    ids = torch.cat([history(10, seed) for seed in range(40)])
    labels = torch.cat([ids[:, 1:], torch.full((40, 1), -100)], 1)
    if name not in CAUSAL:
        labels[:, :-2] = -100
    model(ids, labels=labels).loss.backward()
    silent = [n for n, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("name", FAMILY)
def test_evaluation_is_deterministic_and_saving_changes_nothing(name, tmp_path):
    model, ids = build(name), history(7)
    model.save_pretrained(tmp_path)
    logits = model(ids).logits
    assert logits[0, 0] == -torch.inf and torch.equal(model(ids).logits, logits)
    loaded = open_model(tmp_path)
    saved = model.state_dict()
    assert type(loaded) is type(model) and loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(weight, saved[name]) for name, weight in loaded.state_dict().items())
    # Where weights lie in memory decides, on some processors, in which order a product adds up.
    torch.testing.assert_close(loaded(ids).logits, logits, rtol=0, atol=1e-6)
    assert AutoConfig.from_pretrained(tmp_path).model_type == name
    assert type(AutoModel.from_pretrained(tmp_path)) is type(model.model)
    assert not list(tmp_path.glob("*.py"))  # needs the package, and says so by its type


@pytest.mark.parametrize("name", FAMILY)
def test_a_folder_opens_without_a_warning(name, tmp_path, caplog, monkeypatch):
    """transformers warns where a config is read by the class of another type."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model, ids = build(name), [f"item-{number}" for number in range(ITEMS)]
    Recommender(model, RetrProcessor(ItemCatalog(ids, ids))).save_pretrained(tmp_path)
    answer = Recommender.from_pretrained(tmp_path).recommend(ids[:3])
    assert len(answer.items) == 10 and type(config_of(tmp_path)) is type(model.config)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("name", FAMILY)
def test_ranks_are_those_of_the_logits(name):
    model = build(name)
    lengths = [3, 6, 4]
    ids = [history(length, length)[0] for length in lengths]
    sequences = Sequences(torch.cat(ids).numpy().astype(np.int32), np.cumsum([0, *lengths]))
    ranks = rank_histories(model, model.encode_catalog(), sequences, max_length=20)["full"]
    for rank, each in zip(ranks, ids, strict=True):
        scores = model(each[None, :-1]).logits[0]
        assert rank == 1 + int((scores > scores[each[-1]]).sum())


@pytest.mark.parametrize("name", FAMILY)
def test_compiling_and_cutting_histories_change_no_weight(name):
    model = build(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.model.compile_blocks()
    model.cut_positions(8)
    assert model.config.max_position_embeddings == 8
    torch.testing.assert_close(dict(model.state_dict()), before)
