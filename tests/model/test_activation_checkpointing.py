"""Activation (gradient) checkpointing: blocks run again on the way back, with the same dropout and the same routes."""

import pytest
import torch

from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

ITEMS, ROWS, LENGTH = 30, 8, 10
ATTENTIONS_THAT_CAN = sorted(set(ATTENTIONS) - {"denoising"})  # antithetic.py refuses, which has a test of its own


def build(attention="full", **settings) -> RetrForSequentialRecommendation:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": LENGTH}
    config = RetrConfig(
        **{"attention": attention, "item_features": "id", "vocab_size": ITEMS + 1, "modulating_weight": 0.5}
        | {"router_init_keep": 0.6, "initializer_range": 0.3}  # where gradients are far from 0
        | sizes
        | settings
    )
    return RetrForSequentialRecommendation(config).train()


def loss_and_gradients(model, **settings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    input_ids = torch.randint(1, ITEMS + 1, (ROWS, LENGTH))
    times = 1_500_000_000 + 40_000 * torch.arange(LENGTH).expand(ROWS, LENGTH) ** 2
    model.zero_grad()
    loss = model(input_ids, labels=input_ids.roll(-1, 1), times=times, **settings).loss
    loss.backward()
    return loss.detach(), {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS_THAT_CAN)
def test_loss_and_gradients_are_the_same(attention, reentrant):
    model = build(attention)
    loss, gradients = loss_and_gradients(model)
    runs = []
    model.model.layers[0].router.register_forward_hook(lambda router, given, routing: runs.append(routing.route))
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed_loss, checkpointed = loss_and_gradients(model)
    assert len(runs) == 2 and torch.equal(*runs), "drawn twice, alike"
    assert 0 < runs[0].mean() < 1, "routes of both kinds"
    assert torch.equal(checkpointed_loss, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6 * gradient.abs().max(), rtol=1e-5, msg=name)


def test_another_draw_would_show():
    """The test above can fail: without the random state kept, the second pass takes other routes."""
    model = build(hidden_dropout=0.0, attention_dropout=0.0)
    _, gradients = loss_and_gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    _, others = loss_and_gradients(model)
    assert any(not torch.allclose(others[name], gradient, rtol=0.01) for name, gradient in gradients.items())


def test_a_generator_of_ones_own_is_refused():
    """Its state is not what checkpointing keeps."""
    model = build()
    loss_and_gradients(model, route_generator=torch.Generator())
    model.activation_checkpointing_enable()
    with pytest.raises(ValueError, match="draws the routes twice"):
        loss_and_gradients(model, route_generator=torch.Generator())


@pytest.mark.filterwarnings("error")
def test_training_with_and_without_gives_no_warning():
    model = build()
    loss_and_gradients(model, route_generator=torch.Generator())
    model.activation_checkpointing_enable()
    loss_and_gradients(model)
    model.activation_checkpointing_disable()
    loss_and_gradients(model)
