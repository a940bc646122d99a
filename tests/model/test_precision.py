"""Half precision, eight bits, and where a model is built and loaded."""

import copy

import pytest
import torch
from torch import nn

from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

ITEMS, TEXT, ROWS, LENGTH = 200, 24, 40, 12
HALVES = [torch.bfloat16, torch.float16]


def build(**settings) -> RetrForSequentialRecommendation:
    torch.manual_seed(0)
    config = RetrConfig(
        **{"item_features": "text+id", "vocab_size": ITEMS + 1, "text_size": TEXT, "num_experts": 3, "hidden_size": 32}
        | {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16, "hidden_dropout": 0.1}
        | {"initializer_range": 0.2, "router_init_keep": 0.5, "hierarchical_route": False}
        | settings
    )
    model = RetrForSequentialRecommendation(config).eval()
    for layer in model.model.layers:  # far from the start, where all routes are alike
        nn.init.normal_(layer.router.keep_mlp[-1].weight, std=2.0)
    return model


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, ITEMS + 1, (ROWS, LENGTH), generator=generator)
    times = 1_500_000_000 + 40_000 * torch.arange(LENGTH).expand(ROWS, LENGTH) ** 2
    table = torch.randn(ITEMS + 1, TEXT, generator=generator)
    return {"input_ids": input_ids, "times": times, "text_embeddings": table}


def top(outputs) -> torch.Tensor:
    return outputs.logits.topk(10).indices


def overlap(some: torch.Tensor, others: torch.Tensor) -> float:
    """Share of the items of one list [B, k] that are in the other."""
    return (some.unsqueeze(2) == others.unsqueeze(1)).any(2).double().mean().item()


@torch.no_grad()
def same_answers(model, other) -> bool:
    return torch.equal(model(**inputs()).logits, other(**inputs()).logits)


# Precision.


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_precision_asked_for_is_kept_in_the_checkpoint(dtype, tmp_path):
    build().save_pretrained(tmp_path / "full")
    half = RetrForSequentialRecommendation.from_pretrained(tmp_path / "full", dtype=dtype)
    assert {weight.dtype for weight in half.parameters()} == {dtype} == {half.dtype, half.config.dtype}
    half.save_pretrained(tmp_path / "half")
    assert RetrConfig.from_pretrained(tmp_path / "half").dtype == dtype
    for asked, got in (("auto", dtype), (torch.float32, torch.float32)):
        again = RetrForSequentialRecommendation.from_pretrained(tmp_path / "half", dtype=asked)
        assert {weight.dtype for weight in again.parameters()} == {got}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_half_precision_is_near(attention, dtype):
    """Nearly all routes, states and recommendations stay; where a route does turn, its token's state is another."""
    model = build(attention=attention, text_path=True, repeat_term=True)
    half = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        want, got = (one(**inputs(), output_routes=True) for one in (model, half))
    assert got.logits.dtype == dtype and overlap(top(got), top(want)) > 0.9
    routes, half_routes = torch.stack(want.routes), torch.stack(got.routes)
    assert 0.1 < routes.mean() < 0.9, "routes of both kinds"
    assert (routes != half_routes).float().mean() < 0.01
    same = (routes == half_routes).all(0).cumprod(1).bool()  # and of all tokens before
    error = 2 ** (-4 if dtype == torch.bfloat16 else -7)
    torch.testing.assert_close(got.last_hidden_state[same].float(), want.last_hidden_state[same], atol=error, rtol=0.1)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_half_precision_trains(attention):
    """The loss itself is computed in float32."""
    model = build(attention=attention, text_path=True, repeat_term=True).to(torch.bfloat16).train()
    loss = model(**inputs(), labels=inputs()["input_ids"].roll(-1, 1)).loss
    loss.backward()
    assert loss.dtype == torch.float32
    for name, weight in model.named_parameters():
        assert weight.grad.dtype == torch.bfloat16 and weight.grad.isfinite().all(), name


@pytest.mark.filterwarnings("ignore:(?s).*deprecated")
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_linear_layers_in_eight_bits_recommend_alike(attention):
    """No layer's weight is read past the layer, so that another kind of layer may stand in its place."""
    from torch.ao.quantization import quantize_dynamic

    model = build(attention=attention)
    nn.init.normal_(model.model.item_adaptor.centers, std=0.2)
    small = quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    assert not any(type(module) is nn.Linear for module in small.modules())
    with torch.no_grad():
        alike = overlap(top(small(**inputs())), top(model(**inputs())))
    assert 0.85 < alike < 1, alike


# Placement.


def test_a_device_map_is_followed(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    placed = RetrForSequentialRecommendation.from_pretrained(tmp_path, device_map={"": "cpu"})
    assert {weight.device.type for weight in placed.parameters()} == {"cpu"} and same_answers(model, placed)


def test_a_map_splits_between_blocks_only():
    """What accelerate may cut apart: nothing inside a block, whose residual would change devices."""
    model = build(num_hidden_layers=3)
    from accelerate import infer_auto_device_map

    block = sum(weight.nbytes for weight in model.model.layers[0].parameters())
    everything = sum(weight.nbytes for weight in model.parameters())
    placed = infer_auto_device_map(
        model, {0: everything - block, "cpu": everything}, no_split_module_classes=list(model._no_split_modules)
    )
    assert set(placed.values()) == {0, "cpu"}
    assert not [name for name in placed if name.startswith("model.layers.") and name.count(".") > 2]


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_a_model_without_memory_is_filled_by_a_state_alone(attention):
    """Nothing but parameters is computed when a model is built: no buffer is lost on the meta device."""
    model = build(attention=attention, text_path=True, repeat_term=True)
    with torch.device("meta"):
        empty = RetrForSequentialRecommendation(model.config).eval()
    assert all(tensor.is_meta for tensor in [*empty.parameters(), *empty.buffers()])
    empty.load_state_dict(model.state_dict(), assign=True)
    assert same_answers(model, empty)
