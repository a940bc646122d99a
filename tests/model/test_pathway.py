"""The router against the equations of the paper, and against the decisions the paper leaves open."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoModelForSequenceClassification

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation, RetrModel
from retr_hf.model.pathway import PathwayRouter, RandomRouter, pathway_mean
from retr_hf.model.sequence_layout import SequenceLayout


def tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_by_hand():
    z = torch.tensor([[[1.0], [2.0], [6.0], [9.0]]])
    route = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    layout = SequenceLayout(torch.tensor([[True, True, True, False]]))
    causal = pathway_mean(z, route, layout, "causal")[0, :3, 0]
    assert causal.tolist() == [1.0, 1.0, (1 + 6) / 2]
    assert pathway_mean(z, route, layout, "global")[0, :3, 0].tolist() == [3.5, 3.5, 3.5]


def test_empty_pathway_falls_back_to_the_plain_mean():
    z = tokens(2, 5, 4)
    layout = SequenceLayout(torch.ones(2, 5, dtype=torch.bool))
    mean = pathway_mean(z, torch.zeros(2, 5), layout, "causal")
    expected = z.cumsum(1) / torch.arange(1, 6).view(1, 5, 1)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_router_is_finite_on_adversarial_tokens(value):
    z = torch.full((2, 6, 8), value, requires_grad=True)
    router = PathwayRouter(8).train()
    routing = router(z, torch.zeros(2, 6), SequenceLayout(torch.zeros(2, 6, dtype=torch.bool)))
    (routing.route.sum() + routing.omega.sum()).backward()
    assert all(torch.isfinite(part).all() for part in (*routing, z.grad))
    assert routing.route.eq(0).all()  # padding is never on the pathway


def test_packed_rows_equal_separate_rows():
    router = PathwayRouter(8).eval()
    for context in ("causal", "global"):
        router.context = context
        a, b = tokens(1, 3, 8, seed=1), tokens(1, 4, 8, seed=2)
        packed = torch.cat([a, b, torch.zeros(1, 2, 8)], dim=1)
        positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 0]])
        valid = torch.tensor([[True] * 7 + [False] * 2])
        together = router(packed, None, SequenceLayout.from_positions(positions, valid))
        for name in ("route", "keep_probability", "omega"):
            apart = torch.cat([getattr(router(a), name), getattr(router(b), name)], dim=1)
            torch.testing.assert_close(getattr(together, name)[:, :7], apart, atol=1e-6, rtol=0)


def test_start_and_evaluation_threshold():
    router = PathwayRouter(16, init_keep=0.88).eval()
    routing = router(tokens(4, 10, 16) * 1e-3)
    assert routing.keep_probability.mean().item() == pytest.approx(0.88, abs=0.05)
    first = routing.route
    assert torch.equal(first, router(tokens(4, 10, 16) * 1e-3).route)  # deterministic
    assert torch.equal(first, (routing.keep_probability >= 0.5).float())
    torch.nn.init.constant_(router.keep_mlp[-1].bias, -50.0)
    assert router(tokens(4, 10, 16)).route.eq(0).all()


@pytest.mark.parametrize("keep", [0.5, 0.88, 0.97])
@pytest.mark.parametrize("omega_activation", ["softplus", "relu"])
def test_the_routers_of_a_whole_model_start_there_too(keep, omega_activation, tmp_path):
    sizes = dict(hidden_size=16, num_attention_heads=2, vocab_size=30, item_features="id", max_position_embeddings=8)
    switches = dict(router_init_keep=keep, omega_activation=omega_activation)
    RetrForSequentialRecommendation(RetrConfig(router="none", **sizes)).save_pretrained(tmp_path)
    config = RetrConfig(**sizes, **switches)
    for model in (
        RetrForSequentialRecommendation(config),
        AutoModelForSequenceClassification.from_config(config),
        RetrForSequentialRecommendation.from_pretrained(tmp_path, config=config),  # routers new to a checkpoint
    ):
        for layer in model.model.layers:
            routing = layer.router.eval()(tokens(4, 8, 16) * 1e-3)
            assert routing.keep_probability.mean().item() == pytest.approx(keep, abs=0.01)
            assert routing.omega.mean().item() == pytest.approx(1.0, abs=0.01)


def test_training_samples_with_the_keep_probability():
    torch.manual_seed(0)
    router = PathwayRouter(4).train()
    for layer in (router.keep_mlp[-1], router.omega_mlp[-1]):
        torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(router.keep_mlp[-1].bias, math.log(0.7 / 0.3))
    share = router(tokens(200, 100, 4)).route.mean().item()
    assert share == pytest.approx(0.7, abs=4 * math.sqrt(0.21 / 20_000))


@pytest.mark.parametrize("gumbel", ["adaptive", "fixed"])
def test_straight_through_gradient_by_hand(gumbel):
    """Forward is 0 or 1; backward is that of σ((ω·logit + noise)/τ), equations (4) and (5)."""
    router = PathwayRouter(4, gumbel=gumbel, temperature=0.5, omega_activation="relu").train()
    logit, omega, tau = 0.3, 1.7, 0.5
    torch.nn.init.zeros_(router.keep_mlp[-1].weight)
    torch.nn.init.constant_(router.keep_mlp[-1].bias, logit)
    if gumbel == "adaptive":
        torch.nn.init.zeros_(router.omega_mlp[-1].weight)
        torch.nn.init.constant_(router.omega_mlp[-1].bias, omega)
    assert (router.omega_mlp is None) == (gumbel == "fixed")  # a fixed temperature leaves no weight without gradient
    route = router(tokens(1, 1, 4), generator=torch.Generator().manual_seed(3)).route
    uniform = torch.rand((1, 1), generator=torch.Generator().manual_seed(3)).item()
    noise = math.log(uniform / (1 - uniform))
    assert route.item() == float(logit + noise > 0)
    route.backward()
    slope = omega if gumbel == "adaptive" else 1 / tau
    v = 1 / (1 + math.exp(-(omega * logit + noise if gumbel == "adaptive" else (logit + noise) / tau)))
    assert router.keep_mlp[-1].bias.grad.item() == pytest.approx(slope * v * (1 - v), rel=1e-5)
    if gumbel == "adaptive":
        assert router.omega_mlp[-1].bias.grad.item() == pytest.approx(logit * v * (1 - v), rel=1e-5)


def test_omega_starts_at_one_and_softplus_never_dies():
    z = tokens(2, 5, 8) * 1e-3
    for activation in ("softplus", "relu"):
        router = PathwayRouter(8, omega_activation=activation).train()
        assert router(z).omega.mean().item() == pytest.approx(1.0, abs=0.3)
        torch.nn.init.constant_(router.omega_mlp[-1].bias, -3.0)
        router(z).route.sum().backward()
        gradients = [router.keep_mlp[-1].bias.grad.abs().item(), router.omega_mlp[-1].bias.grad.abs().item()]
        assert gradients == [0.0, 0.0] if activation == "relu" else min(gradients) > 0.0


def test_hierarchy():
    previous = torch.tensor([[1.0, 0.0, 1.0]])
    z = tokens(1, 3, 4)
    for hierarchical in (True, False):
        for router in (PathwayRouter(4, hierarchical=hierarchical), RandomRouter(0, hierarchical, keep=0.999)):
            torch.manual_seed(0)
            if isinstance(router, PathwayRouter):
                torch.nn.init.constant_(router.keep_mlp[-1].bias, 50.0)
            assert router(z, previous).route[0, 1].item() == (0.0 if hierarchical else 1.0)


def test_random_router_keeps_its_share_and_ignores_padding():
    router = RandomRouter(layer_idx=1, keep=0.6).eval()
    z = tokens(1, 500, 4)
    route = router(z).route
    assert route.mean().item() == pytest.approx(0.6, abs=0.01)
    left = SequenceLayout(torch.tensor([[False] * 7 + [True] * 500]))
    padded = router(torch.cat([torch.zeros(1, 7, 4), z], 1), None, left).route
    assert torch.equal(padded[:, 7:], route) and padded[:, :7].eq(0).all()
    torch.manual_seed(0)
    assert router.train()(z).route.mean().item() == pytest.approx(0.6, abs=0.1)


def test_where_nothing_asks_attention_weighs_all_alike():
    fields = dict(item_features="id", vocab_size=9, hidden_size=8, num_attention_heads=2, initializer_range=0.5)
    with pytest.raises(
        StrictDataclassClassValidationError, match=r"router_init_keep=0.0: expected a probability in \(0, 1\)"
    ):
        RetrConfig(router_init_keep=0.0, **fields)
    none, every = (
        RetrModel(RetrConfig(router="random", router_init_keep=keep, **fields)).eval() for keep in (0.0, 1.0)
    )
    every.load_state_dict(none.state_dict())
    ids, mask = torch.tensor([[1, 5, 2, 7]]), torch.ones(1, 4, dtype=torch.long)
    before = none(ids, mask).last_hidden_state
    assert not torch.allclose(before, every(ids, mask).last_hidden_state)
    for layer in every.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    torch.testing.assert_close(every(ids, mask).last_hidden_state, before)


def test_half_precision_route_is_exact():
    router = PathwayRouter(8).bfloat16().train()
    route = router(tokens(4, 30, 8).bfloat16()).route
    assert route.dtype == torch.float32 and set(route.unique().tolist()) <= {0.0, 1.0}
