"""RetrConfig: typed, checked as a whole, and the same after every way of carrying it."""

import copy
import json
import pickle

import pytest
import torch
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassError,
    StrictDataclassFieldValidationError,
)
from transformers.configuration_utils import PreTrainedConfig

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrModel


def test_the_default_config_builds_a_model_without_a_word(recwarn, capfd):
    config = RetrConfig()
    before = config.to_dict()
    output = RetrModel(config).eval()(torch.tensor([[1, 2]]), text_embeddings=torch.randn(3, config.text_size))
    assert output.last_hidden_state.shape == (1, 2, 256)
    assert config.to_dict() == before, "a model leaves its config as it came"
    assert not recwarn.list and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("carry", [copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config)), "json"])
def test_carried_whole(carry, tmp_path):
    config = RetrConfig(hidden_size=32, attention="modulating", text_whitening=0.1, dtype="bfloat16")
    wanted = config.to_diff_dict()
    if carry == "json":
        config.save_pretrained(tmp_path)
        assert isinstance(json.loads((tmp_path / "config.json").read_text()), dict)
        carried = RetrConfig.from_pretrained(tmp_path)
    else:
        carried = carry(config)
    got = carried.to_diff_dict()
    got.pop("auto_map", None)  # where a saved folder's code is (hub.py)
    assert got == wanted and carried.dtype == torch.bfloat16
    assert (carried.hidden_size, carried.attention, carried.text_whitening) == (32, "modulating", 0.1)


@pytest.mark.parametrize("field", [{"hidden_size": "32"}, {"num_hidden_layers": 2.0}, {"text_path": "yes"}], ids=str)
def test_a_field_of_the_wrong_type_is_refused(field):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(field))):
        RetrConfig(**field)


def test_also_when_it_is_set_later():
    config = RetrConfig()
    with pytest.raises(StrictDataclassFieldValidationError, match="hidden_size"):
        config.hidden_size = "wide"


def test_whole_numbers_are_probabilities_too():
    assert RetrConfig(hidden_dropout=0, attention_dropout=0, temperature=1).hidden_dropout == 0


def test_all_contradictions_are_told_at_once():
    with pytest.raises(StrictDataclassClassValidationError) as told:
        RetrConfig(hidden_size=30, attention="fulll", hidden_dropout=1.0, text_path=True, item_features="id")
    message = str(told.value.__cause__ or told.value)
    for wrong in ("hidden_size=30 must be a multiple", "'fulll'", "hidden_dropout=1.0", "text_path=True"):
        assert wrong in message


def test_fields_are_named_never_counted():
    with pytest.raises((TypeError, ValueError, StrictDataclassError)):
        RetrConfig(32)


def test_a_field_of_a_later_version_is_kept(tmp_path):
    RetrConfig(of_a_later_version=7).save_pretrained(tmp_path)
    assert RetrConfig.from_pretrained(tmp_path).of_a_later_version == 7


def test_the_size_of_the_start_is_the_configs():
    torch.manual_seed(0)
    for size in (0.02, 0.2):
        model = RetrModel(RetrConfig(hidden_size=64, initializer_range=size))
        assert model.layers[0].up_proj.weight.std().item() == pytest.approx(size, rel=0.05)


def test_nothing_shadows_what_every_config_has():
    """A field named as something of the base class would mean two things."""
    ours = set(RetrConfig.__annotations__)
    declared = {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"}  # declared by each model itself
    assert not {name for name in ours - declared if hasattr(PreTrainedConfig, name)}
