"""What generic code of transformers and accelerate takes for granted of a model, beyond its common tests."""

from dataclasses import fields

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers.utils.generic import find_labels

from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation, RetrModel
from retr_hf.model.outputs import RetrModelOutput, RetrOutput

ITEMS, TEXT = 20, 6
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
SIZES |= {"text_size": TEXT, "num_experts": 2, "vocab_size": ITEMS + 1}
CLASSES = [RetrModel, RetrForSequentialRecommendation, RetrForPreTraining]


def build(cls=RetrForSequentialRecommendation, **settings):
    torch.manual_seed(0)
    return cls(RetrConfig(**SIZES | settings)).eval()


def inputs(**more):
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, ITEMS + 1, (4, 8), generator=generator)
    times = 1_500_000_000 + 40_000 * torch.arange(8).expand(4, 8) ** 2
    table = torch.randn(ITEMS + 1, TEXT, generator=generator)
    return {"input_ids": input_ids, "text_embeddings": table, "times": times} | more


# What Trainer asks.


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_labels_are_what_a_loss_needs(cls):
    assert find_labels(cls) == ["labels"]


def test_predictions_are_the_logits_alone():
    names = {field.name for output in (RetrModelOutput, RetrOutput) for field in fields(output)}
    assert names - set(RetrConfig.keys_to_ignore_at_inference) == {"loss", "logits", "hidden_states", "attentions"}
    assert set(RetrConfig.keys_to_ignore_at_inference) <= names


def test_a_loss_is_divided_by_the_targets_of_the_whole_batch():
    model, labels = build(), inputs()["input_ids"].roll(-1, 1)
    own = model(**inputs(labels=labels)).loss
    torch.testing.assert_close(model(**inputs(labels=labels), num_items_in_batch=4 * labels.numel()).loss, own / 4)


# What the Hub shows.


@pytest.mark.parametrize("cls", CLASSES)
def test_tags_are_a_models_own(cls):
    model, other = build(cls), build(cls)
    assert {"retr", "recommendation"} <= set(model.model_tags)
    model.add_model_tags("mine")
    assert "mine" in model.model_tags and "mine" not in other.model_tags


def test_nothing_is_generated_token_by_token():
    assert not any(cls.can_generate() for cls in CLASSES)


# Outputs on request.


@pytest.mark.parametrize("asked", ["argument", "config"])
@pytest.mark.parametrize("cls", CLASSES)
def test_routes_come_when_asked_for_by(cls, asked):
    model = build(cls)
    more = {"labels": inputs()["input_ids"], "table_item_ids": torch.arange(ITEMS + 1)}
    more = more if cls is RetrForPreTraining else {}
    assert model(**inputs(**more)).routes is None
    if asked == "config":
        model.config.output_routes = True
    output = model(**inputs(**more), **{"output_routes": True} if asked == "argument" else {})
    for values in (output.routes, output.keep_probabilities, output.omegas):
        assert [value.shape for value in values] == [(4, 8)] * 2
    again = model(**inputs(**more), output_routes=False)
    assert again.routes is None and torch.equal(again.last_hidden_state, output.last_hidden_state)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_a_row_of_padding_alone_stays_finite(attention, kernel):
    model = build(attention=attention)
    model.set_attn_implementation(kernel)
    mask = torch.ones(4, 8, dtype=torch.long)
    mask[1], mask[2, 3:], mask[3, :3] = 0, 0, 0
    output = model(**inputs(attention_mask=mask))
    assert output.last_hidden_state.isfinite().all() and output.logits[:, 1:].isfinite().all()


# Checkpoints of another size.


def test_ids_of_another_catalogue_are_refused_or_asked_for(tmp_path):
    """A new catalogue's id table is never started at random without a word."""
    build(item_features="text+id").save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        RetrForSequentialRecommendation.from_pretrained(tmp_path, vocab_size=31)
    model, info = RetrForSequentialRecommendation.from_pretrained(
        tmp_path, vocab_size=31, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert [key for key, *_ in info["mismatched_keys"]] == ["model.embed_tokens.weight"]
    assert model.get_input_embeddings().weight.shape == (31, 16)


# Sharding.


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_sharded_as_planned_a_model_computes_the_same(one_process):
    """The plan that transformers gives by default shards the id table too: its weight would be read while in parts."""
    model, labels = build(item_features="text+id"), inputs()["input_ids"].roll(-1, 1)
    model(**inputs(labels=labels)).loss.backward()
    wanted = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    assert model.fsdp_plan == {"model.layers.*": "free_full_weight"}
    for layer in model.model.layers:
        fully_shard(layer, mesh=one_process)
    fully_shard(model, mesh=one_process)
    model(**inputs(labels=labels)).loss.backward()
    got = {name: weight.grad.full_tensor() for name, weight in model.named_parameters() if weight.grad is not None}
    assert wanted.keys() <= got.keys() and len(wanted) > 40
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, msg=name)
