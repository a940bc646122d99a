"""Rec-denoiser: the mask, the gradient it gets without one of its own, and the block's Jacobian."""

import itertools
import math

import pytest
import torch

from retr_hf.model import antithetic
from retr_hf.model.antithetic import MaskDraws, arm_gradient
from retr_hf.model.attention import FullAttention, SequenceContext
from retr_hf.model.attention_denoising import DenoisingAttention, jacobian_norm
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation
from retr_hf.model.sequence_layout import SequenceLayout

ITEMS, LENGTH = 12, 6
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
FREE = {"denoising_l0_weight": 0, "denoising_jacobian_weight": 0}


def build(cls=RetrForSequentialRecommendation, **changes):
    torch.manual_seed(0)
    config = {
        "attention": "denoising", "item_features": "id", "vocab_size": ITEMS + 1, "hidden_size": 8,
        "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": LENGTH, "initializer_range": 0.5,
    }  # fmt: skip
    return cls(RetrConfig(**config | changes)).train()


def links_of(model) -> list[torch.nn.Parameter]:
    return [layer.self_attn.links for layer in model.model.layers]


def scatter(model) -> None:
    """Φ of its own at every pair of places, some of them below 0."""
    for links in links_of(model):
        torch.nn.init.normal_(links, 1.0, 2.0)


def batch(rows=5, length=LENGTH) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, ITEMS + 1, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": torch.cat([ids[:, 1:], torch.full((rows, 1), -100)], 1)}


# One bit: L(z) = (z - 0.3)², Φ = 0.7, whose gradient is (L(1) - L(0)) g(Φ) (1 - g(Φ)).


def one_bit(uniform: torch.Tensor) -> torch.Tensor:
    phi = torch.tensor(0.7, dtype=torch.float64)
    plain, mirrored = ((z.double() - 0.3) ** 2 for z in (uniform < phi.sigmoid(), uniform >= (-phi).sigmoid()))
    return arm_gradient(mirrored - plain, uniform)


def test_arm_is_exact_over_all_noise():
    keep = 1 / (1 + math.exp(-0.7))
    assert (0.7**2 - 0.3**2) * keep * (1 - keep) == pytest.approx(0.0886851, abs=1e-7)
    cells = (torch.arange(10**6, dtype=torch.float64) + 0.5) / 10**6
    assert one_bit(cells).mean().item() == pytest.approx(0.0886851, abs=1e-6)


def test_arm_is_right_in_the_mean():
    drawn = one_bit(torch.rand(10**6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert abs(drawn.mean().item() - 0.0886851) < 3 * drawn.std().item() / 1e3


def test_masks_are_mirrored_and_keep_as_often_as_g_says():
    logits = torch.tensor([-1e4, -1.0, 0.5, 1e4]).repeat(100_000, 1)
    torch.manual_seed(0)
    plain = MaskDraws().mask(logits)
    torch.manual_seed(0)
    mirrored = MaskDraws(mirrored=True).mask(logits)
    for mask in (plain, mirrored):
        assert mask.float().mean(0).tolist() == pytest.approx([0, 0.26894, 0.62246, 1], abs=0.006)
        assert not mask[:, 0].any() and mask[:, 3].all()
    assert (plain | mirrored)[:, 2].all(), "more than half are kept: each place by one side at least"
    assert not (plain & mirrored)[:, 1].any(), "less than half: by one side at most"


def test_the_heads_gradient_of_the_links_is_that_of_the_expected_loss(monkeypatch):
    """Three links between two places: ∂/∂Φ Σ_Z P(Z) L(Z) over the eight masks, and the mean over all noise.

    Between g(-Φ) and g(Φ) nothing changes but U - ½, which is linear: the middle of each cell of U stands for it.
    """
    model = build(num_hidden_layers=1, max_position_embeddings=2, router="none", **STILL, **FREE)
    ids, labels = torch.randint(1, ITEMS + 1, (2, 20, 2), generator=torch.Generator().manual_seed(1))
    (links,), places = links_of(model), ([0, 1, 1], [0, 0, 1])
    phi = torch.tensor([0.3, -0.8, 0.9], dtype=torch.float64)
    keep, expected, estimated = phi.sigmoid(), torch.zeros(3, dtype=torch.float64), 0
    for mask in itertools.product([0.0, 1.0], repeat=3):
        z = torch.tensor(mask, dtype=torch.float64)
        with torch.no_grad():
            links[places] = (1e4 * (2 * z - 1)).float()
            loss = model(ids, labels=labels).loss
        expected += torch.where(z > 0, keep, 1 - keep).prod() * loss * (z - keep)  # ∂ log P(Z) / ∂Φ = Z - g(Φ)
    with torch.no_grad():
        links[places] = phi.float()
    borders = [sorted({0.0, 1 - k, k, 1.0}) for k in keep.tolist()]
    for cells in itertools.product(*(itertools.pairwise(border) for border in borders)):
        uniform = torch.full((2, 2), 0.5)
        uniform[places] = torch.tensor([(low + high) / 2 for low, high in cells])
        monkeypatch.setattr(antithetic, "shared_uniform", lambda like, uniform=uniform: uniform)
        (gradient,) = torch.autograd.grad(model(ids, labels=labels).loss, links)
        assert gradient[0, 1] == 0, "no link to the future"
        estimated += math.prod(high - low for low, high in cells) * gradient[places].double()
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(estimated, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("router", ["pathway", "none"])
@pytest.mark.parametrize("objective", ["softmax", "sampled_softmax"])
def test_both_passes_draw_the_same_of_everything_else(objective, router):
    """With Φ = ∞ both masks are full: any other difference between the passes would reach the links."""
    model = build(router=router, objective=objective, num_negatives=5, denoising_l0_weight=0)
    for links in links_of(model):
        torch.nn.init.constant_(links, 1e4)
    generator = torch.Generator().manual_seed(3)
    model(**batch(), **({"route_generator": generator} if router == "pathway" else {})).loss.backward()
    assert all(links.grad.eq(0).all() for links in links_of(model))
    for links in links_of(model):
        torch.nn.init.constant_(links, 0.0)
    model(**batch()).loss.backward()
    assert all(links.grad.tril().ne(0).sum() == LENGTH * (LENGTH + 1) / 2 for links in links_of(model))


def test_the_second_pass_leaves_no_trace():
    """Loss, the other weights' gradients and the random state are those of a head whose links are not trained."""
    results = []
    for trained in (True, False):
        model, generator = build(**FREE), torch.Generator().manual_seed(3)
        for links in links_of(model):
            links.requires_grad_(trained)
        torch.manual_seed(4)
        output = model(**batch(), route_generator=generator)
        output.loss.backward()
        weights = [weight.grad for name, weight in model.named_parameters() if not name.endswith("links")]
        results.append([output.loss, torch.rand(3), torch.rand(3, generator=generator), *weights])
    assert all(torch.equal(with_arm, without) for with_arm, without in zip(*results, strict=True))


@pytest.mark.parametrize("side", ["right", "left"])
def test_free_links_are_full_attention(side):
    model, full = build(attn_implementation="eager"), build(attention="full", attn_implementation="eager")
    for links in links_of(model):
        torch.nn.init.constant_(links, math.inf)
    missing, unexpected = full.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(name.endswith("links") for name in unexpected)
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0] if side == "right" else [0, 0, 5, 6]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    want, got = full.eval()(**inputs), model.eval()(**inputs)
    assert torch.equal(got.last_hidden_state[ids > 0], want.last_hidden_state[ids > 0])
    losses = []
    for trained in (model, full):
        trained.config.denoising_l0_weight = trained.config.denoising_jacobian_weight = 0
        trained.config.hidden_dropout = trained.config.attention_dropout = 0.0
        for module in trained.modules():
            module.p = 0.0
        with torch.no_grad():
            losses.append(trained.train()(**batch(), route_generator=torch.Generator().manual_seed(1)).loss)
    assert torch.equal(*losses)


def test_the_mask_beside_loops():
    torch.manual_seed(0)
    config = RetrConfig(attention="denoising", hidden_size=8, num_attention_heads=2, max_position_embeddings=5)
    tenant = DenoisingAttention(config, 0).eval()
    torch.nn.init.normal_(tenant.links)
    tokens = torch.randn(1, 4, 8)
    context = SequenceContext(SequenceLayout.whole(tokens))
    output, weights, _ = tenant(tokens, tokens, context)
    full = FullAttention(config, 0).eval()
    full.load_state_dict(tenant.state_dict(), strict=False)
    config._attn_implementation_internal = "eager"
    _, plain, _ = full(tokens, tokens, context)
    values, kept = tenant.v_proj(tokens)[0].unflatten(-1, (2, 4)), 0
    for t in range(4):
        mixed = torch.zeros(2, 4)
        for j in range(t + 1):
            z = 1 / (1 + math.exp(-tenant.links[t, j].item()))
            kept += z > 0.5
            for head in range(2):
                share = plain[0, head, t, j] * (z if z > 0.5 else 0.0)
                torch.testing.assert_close(weights[0, head, t, j], share)
                mixed[head] += share * values[j, head]
        torch.testing.assert_close(output[0, t], tenant.o_proj(mixed.flatten()))
    assert 0 < kept < 10


def test_links_belong_to_places_and_not_to_columns():
    """Every prefix meets the same mask, whichever side is padded and however rows are laid out."""
    model = build().eval()
    scatter(model)
    ids, items = batch(1)["input_ids"], model.encode_items()

    def states(*args, **kwargs):
        return model.model(*args, item_embeddings=items, **kwargs).last_hidden_state

    whole = states(ids)[0]
    for length in range(1, LENGTH):
        padding = torch.zeros(1, LENGTH - length, dtype=torch.long)
        for parts in ([ids[:, :length]], [ids[:, :length], padding], [padding, ids[:, :length]]):
            row = torch.cat(parts, 1)
            torch.testing.assert_close(states(row, (row > 0).long())[row > 0], whole[:length], atol=1e-5, rtol=0)
    packed = states(torch.cat([ids[:, :2], ids[:, :4]], 1), None, torch.tensor([[0, 1, 0, 1, 2, 3]]))[0]
    torch.testing.assert_close(packed, torch.cat([whole[:2], whole[:4]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(states(ids, sequence_ends=torch.tensor([3]))[0, 0], whole[3], atol=1e-5, rtol=0)
    scatter(model)
    assert not torch.allclose(states(ids)[0], whole, atol=1e-3)


def test_one_mask_serves_all_rectangles_of_a_pass():
    model = build(**STILL, **FREE, router="none")
    scatter(model)
    ids = batch(1, 4)["input_ids"]
    grouped = torch.cat([ids, ids, torch.nn.functional.pad(ids, (0, 1))], 1)
    states = model.model(grouped, (grouped > 0).long(), item_embeddings=model.encode_items(),
                         length_groups=[(2, 4), (1, 5)]).last_hidden_state[0]  # fmt: skip
    torch.testing.assert_close(states[:4], states[4:8])
    torch.testing.assert_close(states[:4], states[8:12])
    again = model.model(ids, item_embeddings=model.encode_items()).last_hidden_state[0]
    assert not torch.allclose(again, states[:4], atol=1e-3), "the next pass draws another"


def test_evaluation_is_deterministic():
    model = build().eval()
    scatter(model)
    first, second = model(**batch()), model(**batch())
    assert torch.equal(first.logits, second.logits) and torch.equal(first.loss, second.loss)
    assert torch.equal(first.loss, first.data_loss), "penalties are for training"


def test_hutchinson_of_a_linear_block():
    """J of z -> z W is W for every token: ‖W‖²_F each."""
    torch.manual_seed(0)
    z, weight = torch.randn(4000, 5, requires_grad=True), torch.randn(5, 6, requires_grad=True)
    norm = jacobian_norm(z, z @ weight, torch.randn(4000, 6)) / 4000
    assert norm.item() == pytest.approx(weight.square().sum().item(), rel=0.05)
    noise = torch.randn(4000, 6)
    (gradient,) = torch.autograd.grad(jacobian_norm(z, z @ weight, noise) / 4000, weight)
    torch.testing.assert_close(gradient, 2 * weight @ (noise.T @ noise) / 4000)  # ∂/∂W of the mean of ‖W η‖²


def test_the_penalties_by_hand(monkeypatch):
    """β Σ g(Φ) over pairs u ≥ v, and ‖η^T J‖² of the whole block, J entry by entry, a real token."""
    model = build(num_hidden_layers=1, denoising_l0_weight=0.5, denoising_jacobian_weight=2.0, router="none", **STILL)
    scatter(model)
    (layer,), (links,) = model.model.layers, links_of(model)
    tokens, noise = torch.randn(1, 3, 8, requires_grad=True), torch.randn(1, 3, 8)
    context = SequenceContext(SequenceLayout(torch.tensor([[True, True, False]])))
    monkeypatch.setattr(antithetic, "shared_uniform", lambda like: torch.full_like(like, 0.6))
    monkeypatch.setattr(torch, "randn_like", lambda like: noise)
    _, _, _, _, links_term, jacobian_term = layer(tokens, None, context)
    g = links.sigmoid()
    torch.testing.assert_close(links_term, 0.5 * sum(g[u, v] for u in range(LENGTH) for v in range(u + 1)))
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x, None, context)[0][0, :2], tokens)
    by_hand = torch.einsum("td,tdbne->bne", noise[0, :2], jacobian).square().sum()
    torch.testing.assert_close(jacobian_term, 2.0 * by_hand / 2)
    links.requires_grad_(False)
    assert len(layer(tokens, None, context)) == 4, "a frozen block is not penalised"


def test_a_call_counts_for_its_share_of_the_global_batch():
    model = build(**STILL, router="none")
    inputs = batch()
    torch.manual_seed(1)
    alone = model(**inputs)
    torch.manual_seed(1)
    share = model(**inputs, num_items_in_batch=4 * (inputs["labels"] >= 0).sum())
    torch.testing.assert_close(share.loss, alone.loss / 4)
    torch.testing.assert_close(share.data_loss, alone.data_loss / 4)
    assert alone.loss - alone.data_loss > 2 * 0.01 * 21 * 0.87


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", [RetrForSequentialRecommendation, RetrForPreTraining])
def test_every_parameter_gets_a_finite_gradient(head, precision):
    pretraining = head is RetrForPreTraining
    model = build(head, item_features="text" if pretraining else "id", text_size=5, num_experts=2,
                  sequence_loss_weight=0.5)  # fmt: skip
    inputs = batch(8)
    if pretraining:
        ends = torch.arange(8) * LENGTH + LENGTH - 2
        inputs |= {
            "text_embeddings": torch.randn(ITEMS + 1, 5),
            "table_item_ids": torch.arange(ITEMS + 1),
            "sequence_ends": ends,
            "view_input_ids": inputs["input_ids"].flip(1),
            "view_sequence_ends": ends,
        }
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = model(**inputs).loss
    loss.backward()
    wrong = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not torch.isfinite(weight.grad).all() or not weight.grad.abs().sum() > 0
    ]
    assert wrong == []


def test_shorter_histories_keep_the_first_places(tmp_path):
    model = build()
    scatter(model)
    want = [links[:4, :4].clone() for links in links_of(model)]
    model.cut_positions(4)
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(got, cut) for got, cut in zip(links_of(loaded), want, strict=True))


def test_links_start_at_the_keep_probability_also_where_a_checkpoint_has_none(tmp_path):
    build(attention="full").save_pretrained(tmp_path)
    config = RetrConfig.from_pretrained(tmp_path)
    config.attention, config.denoising_init_keep, config.initializer_range = "denoising", 0.7, 0.02
    for links in links_of(RetrForSequentialRecommendation.from_pretrained(tmp_path, config=config)):
        assert links.mean().item() == pytest.approx(math.log(0.7 / 0.3), abs=0.02) and 0 < links.std() < 0.04


def test_gradient_checkpointing_is_refused():
    model = build()
    model.model.layers[0].gradient_checkpointing = True
    with pytest.raises(ValueError, match='leave it out with attention="denoising"'):
        model(**batch())
