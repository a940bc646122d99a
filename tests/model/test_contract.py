"""What every model must fulfil: attention x router x context x item representation (the contract in attention.py)."""

import itertools

import pytest
import torch

from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation, RetrModel

ITEMS, TEXT = 30, 12
CASES = [
    (attention, router, context, items)
    for attention, (router, context), items in itertools.product(
        sorted(ATTENTIONS),
        [("none", "causal"), ("random", "causal"), ("pathway", "causal"), ("pathway", "global")],
        ["id", "text", "text+id"],
    )
    if attention == "full" or items == "text"  # what an item is read through does not reach the attention
]
CAUSAL = [case for case in CASES if case[2] == "causal"]


def build(attention, router, context, items, cls=RetrModel, seed=0, **changes):
    torch.manual_seed(seed)
    config = RetrConfig(
        attention=attention,
        router=router,
        router_context=context,
        every_step=context == "causal",
        item_features=items,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
        vocab_size=ITEMS + 1,
        text_size=TEXT,
        num_experts=3,
        router_init_keep=0.6,
        initializer_range=0.3,  # far from the start, where routes differ between tokens
        **changes,
    )
    return timed(cls(config).eval())


def timed(model):
    """The model, whose body is given times made of positions where its attention reads them."""
    if model.config.reads_times:
        model.base_model.register_forward_pre_hook(_times_of_positions, with_kwargs=True)
    return model


def _times_of_positions(body, args, inputs):
    inputs |= dict(zip(("input_ids", "attention_mask", "position_ids"), args, strict=False))
    positions = inputs.get("position_ids")
    if positions is None:
        mask = inputs.get("attention_mask")
        positions = (torch.ones_like(inputs["input_ids"]) if mask is None else mask).cumsum(1) - 1
    return (), inputs | {"times": 1_500_000_000 + 40_000 * positions**2}


def table(seed=0):
    return torch.randn(ITEMS + 1, TEXT, generator=torch.Generator().manual_seed(seed))


def history(length, seed=0):
    return torch.randint(1, ITEMS + 1, (1, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("case", CAUSAL, ids="-".join)
def test_the_future_changes_nothing(case):
    model = build(*case)
    past, future = history(5), history(4, seed=9)
    changed = torch.cat([past, future], 1), torch.cat([past, future.flip(1) % ITEMS + 1], 1)
    first, second = (model(ids, text_embeddings=table()).last_hidden_state[:, :5] for ids in changed)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_global_context_does_see_the_future():
    """The reason why it is refused together with an every-step loss: the test above can fail."""
    model = build("full", "pathway", "global", "text")
    past, future = history(5), history(4, seed=9)
    first = model(torch.cat([past, future], 1), text_embeddings=table(), output_routes=True)
    second = model(torch.cat([past, future.flip(1) % ITEMS + 1], 1), text_embeddings=table(), output_routes=True)
    assert not torch.allclose(first.keep_probabilities[1][:, :5], second.keep_probabilities[1][:, :5], atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_padding_changes_nothing(case):
    model = build(*case)
    lengths, width = (1, 4, 9), 15
    for side in ("right", "left"):
        input_ids = torch.zeros(len(lengths), width, dtype=torch.long)
        for row, length in zip(input_ids, lengths, strict=True):
            row[slice(0, length) if side == "right" else slice(width - length, width)] = history(length, length)[0]
        mask = (input_ids != 0).long()
        batch = model(input_ids, mask, text_embeddings=table(), output_routes=True)
        for row, length in enumerate(lengths):
            alone = model(history(length, length), text_embeddings=table(), output_routes=True)
            real = mask[row].bool()
            torch.testing.assert_close(
                batch.last_hidden_state[row, real], alone.last_hidden_state[0], atol=1e-5, rtol=0
            )
            for got, want in zip(batch.routes or (), alone.routes or (), strict=True):
                assert torch.equal(got[row, real], want[0]) and got[row, ~real].eq(0).all()


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_packed_rows_equal_separate_rows(case):
    model = build(*case)
    parts = [history(3, 1), history(5, 2), history(1, 3)]
    packed = torch.cat([*parts, torch.zeros(1, 2, dtype=torch.long)], 1)
    positions = torch.cat([torch.arange(part.shape[1]) for part in parts] + [torch.zeros(2, dtype=torch.long)])
    mask = (packed != 0).long()
    together = model(packed, mask, positions[None], text_embeddings=table()).last_hidden_state[:, :9]
    apart = torch.cat([model(part, text_embeddings=table()).last_hidden_state for part in parts], 1)
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", CAUSAL, ids="-".join)
def test_one_pass_equals_a_pass_over_every_prefix(case):
    model, ids = build(*case), history(8)
    whole = model(ids, text_embeddings=table()).last_hidden_state[0]
    for step in range(1, 9):
        prefix = model(ids[:, :step], text_embeddings=table()).last_hidden_state[0, -1]
        torch.testing.assert_close(whole[step - 1], prefix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_open_route_equals_no_router(attention):
    routed, plain = build(attention, "pathway", "causal", "text"), build(attention, "none", "causal", "text")
    missing, unexpected = plain.load_state_dict(routed.state_dict(), strict=False)
    assert not missing and all(".router." in name for name in unexpected)
    for layer in routed.layers:
        torch.nn.init.constant_(layer.router.keep_mlp[-1].bias, 1e3)
    ids = history(9)
    open_output = routed(ids, text_embeddings=table(), output_routes=True)
    assert all(route.eq(1).all() for route in open_output.routes)
    assert torch.equal(open_output.last_hidden_state, plain(ids, text_embeddings=table()).last_hidden_state)


def test_packed_rows_are_refused_where_the_kernel_would_mix_them():
    model = build("full", "pathway", "causal", "text")
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="packed rows need"):
        model(history(4), None, torch.tensor([[0, 1, 0, 1]]), text_embeddings=table())


def test_config_names_the_tenants_of_the_slot():
    from retr_hf.model import configuration_retr

    assert set(configuration_retr.ATTENTIONS) == set(ATTENTIONS)


def test_auto_classes_know_the_model(tmp_path):
    from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

    build("full", "pathway", "causal", "text", RetrForPreTraining).save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), RetrConfig)
    assert type(AutoModel.from_pretrained(tmp_path)) is RetrModel
    assert type(AutoModelForPreTraining.from_pretrained(tmp_path)) is RetrForPreTraining


def test_an_item_without_text_has_a_bounded_gradient():
    model = build("full", "pathway", "causal", "text", RetrForSequentialRecommendation).train()
    text = table()
    text[3] = 0.0
    ids = torch.cat([history(10, seed) for seed in range(5)])
    model(ids, labels=ids, text_embeddings=text).loss.backward()
    assert model.model.item_adaptor.centers.grad.norm() < 1e5


def test_closed_route_is_the_mean_of_the_visible_values():
    torch.manual_seed(0)
    layer = build("full", "pathway", "causal", "text").layers[0]
    from retr_hf.model.attention import SequenceContext
    from retr_hf.model.pathway import SequenceLayout

    z = torch.randn(1, 6, 16)
    context = SequenceContext(SequenceLayout(torch.ones(1, 6, dtype=torch.bool)))
    output, _, _ = layer.self_attn(z, z, context, torch.zeros(1, 6))
    values = layer.self_attn.v_proj(z)
    mean = values.cumsum(1) / torch.arange(1, 7).view(1, 6, 1)
    torch.testing.assert_close(output, layer.self_attn.o_proj(mean), atol=1e-5, rtol=0)


@pytest.mark.parametrize("items", ["id", "text", "text+id"])
@pytest.mark.parametrize("router", ["pathway", "none"])
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_every_parameter_gets_a_gradient(attention, items, router):
    model = build(attention, router, "causal", items, RetrForSequentialRecommendation, hidden_dropout=0.1,
                  attention_dropout=0.1).train()  # fmt: skip
    ids = torch.cat([history(10, seed) for seed in range(20)])
    labels = torch.cat([ids[:, 1:], torch.full((20, 1), -100)], 1)
    model(ids, labels=labels, text_embeddings=table()).loss.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
        # a key bias shifts every logit of a softmax alike: its gradient is zero by construction
        if not name.endswith("k_proj.bias")
    ]
    assert silent == []


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("attention", sorted(ATTENTIONS))
def test_gradients_are_finite_in_odd_places(attention, length):
    for dtype in (torch.float32, torch.bfloat16):
        model = build(attention, "pathway", "causal", "text", RetrForSequentialRecommendation).train()
        ids = torch.full((2, length), 3)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(ids, labels=ids, text_embeddings=torch.ones(ITEMS + 1, TEXT)).loss
        loss.backward()
        assert torch.isfinite(loss) and all(
            torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None
        )


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(implementation):
    model = build("full", "pathway", "causal", "text")
    model.set_attn_implementation("eager")
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    want = model(history(6), mask, text_embeddings=table(), output_attentions=True)
    assert len(want.attentions) == 2 and want.attentions[0].shape == (1, 2, 6, 6)
    model.set_attn_implementation(implementation)
    got = model(history(6), mask, text_embeddings=table())
    torch.testing.assert_close(got.last_hidden_state[:, :4], want.last_hidden_state[:, :4], atol=1e-5, rtol=0)


def settings(config):
    """A config without what saving adds to it."""
    added = {"architectures", "auto_map", "custom_pipelines", "dtype", "transformers_version", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in added}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_save_and_load_change_nothing(case, tmp_path):
    model = build(*case, cls=RetrForSequentialRecommendation)
    model.save_pretrained(tmp_path)
    loaded, info = RetrForSequentialRecommendation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert settings(loaded.config) == settings(model.config)
    ids = history(7)
    loaded = timed(loaded)
    assert torch.equal(loaded(ids, text_embeddings=table()).logits, model(ids, text_embeddings=table()).logits)


def test_a_pretrained_checkpoint_reads_any_catalogue(tmp_path):
    """The text table is no weight: no missing key, no unexpected key, whatever the number of items."""
    build("full", "pathway", "causal", "text", RetrForPreTraining).save_pretrained(tmp_path)
    model, info = RetrForSequentialRecommendation.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for items in (5, 400):
        assert model(torch.tensor([[1, 2]]), text_embeddings=torch.randn(items + 1, TEXT)).logits.shape == (
            1,
            items + 1,
        )
    body, info = RetrModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
