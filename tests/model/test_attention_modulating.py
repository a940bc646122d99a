"""Self-modulating attention: against plain attention, naive loops and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from retr_hf.data.collators import PreTrainingCollator, TextTables
from retr_hf.data.ragged import RaggedBatch, layout_named
from retr_hf.model.attention import FullAttention, SequenceContext
from retr_hf.model.attention_modulating import SelfModulatingAttention, gaps
from retr_hf.model.attentions import ATTENTIONS
from retr_hf.model.behavior_cache import BehaviorCache
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation, RetrModel
from retr_hf.model.sequence_layout import SequenceLayout

DAY, NOW = 86_400, 1_600_000_000
LOG_2 = 0.693147


def config(**changes):
    return RetrConfig(**{"attention": "modulating", "item_features": "id", "vocab_size": 21, "hidden_size": 8,
                         "num_attention_heads": 2, "intermediate_size": 8, "hidden_dropout": 0.0, "router": "none",
                         "attention_dropout": 0.0, "initializer_range": 0.5} | changes)  # fmt: skip


def layer(seed=0, **changes) -> SelfModulatingAttention:
    torch.manual_seed(seed)
    attention = SelfModulatingAttention(config(**changes), 0)
    torch.nn.init.normal_(attention.log_scale, std=0.3)
    return attention.eval()


def without_modulation(attention):
    torch.nn.init.zeros_(attention.type_weight)
    torch.nn.init.zeros_(attention.log_scale)
    return attention


def context(valid, times, marks=None, mask=None) -> SequenceContext:
    valid, times = torch.tensor(valid).bool(), torch.tensor(times)
    marks = None if marks is None else torch.tensor(marks)
    layout = SequenceLayout(valid)
    return SequenceContext(layout, layout.visible("causal")[0].unsqueeze(1), times=times, marks=marks)


def some_context(types=1):
    """Three histories, padded on the right, on the left and not at all; what stands in the padding is nonsense."""
    torch.manual_seed(7)
    valid = [[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    times = NOW + torch.randint(0, 9 * DAY, (3, 5)).cumsum(1)
    times[torch.tensor(valid) == 0] = 0
    marks = torch.randint(0, types, (3, 5))
    marks[torch.tensor(valid) == 0] = -1
    return context(valid, times.tolist(), marks.tolist() if types > 1 else None)


def naive(attention, query_tokens, key_tokens, context, types, delta):
    """The docstring's formulas, one number at a time: (out [S, N, d], Σ over events and heads of the likelihood)."""
    q, k, v, t = attention.project(query_tokens, key_tokens)
    valid, heads, width = context.layout.valid.tolist(), 2, 4
    out, total = torch.zeros_like(q), 0.0
    weight, bias = attention.gate_proj.weight, attention.gate_proj.bias
    for s, row in enumerate(valid):
        real = [n for n, there in enumerate(row) if there]
        days = [int(context.times[s, n]) / DAY for n in real]
        marks = [0 if context.marks is None else int(context.marks[s, n]) for n in real]
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            for nth, at in enumerate(real):
                seen = real[: nth + 1]
                logits = torch.stack([q[s, at, part] @ k[s, j, part] / math.sqrt(width) for j in seen])
                a = logits.softmax(0)
                c = sum(a[j] * t[s, seen[j], part] for j in range(nth + 1))
                before = days[nth] - days[nth - 1] if nth else 0.0
                after = days[nth + 1] - days[nth] if nth + 1 < len(real) else 0.0
                gap = torch.tensor([before if delta == "previous" else after])
                intensity = []
                for e in range(types):
                    own = slice(e * width, (e + 1) * width)
                    g = torch.sigmoid(weight[own] @ torch.cat([c, gap]) + bias[own])
                    gamma = attention.log_scale[e].exp()
                    intensity.append(gamma * torch.log1p(torch.exp(g @ attention.type_weight[e] / gamma)))
                out[s, at, part] = sum(intensity[marks[j]] * a[j] * v[s, seen[j], part] for j in range(nth + 1))
                if nth + 1 < len(real):
                    total += (intensity[marks[nth + 1]].log() - 0.5 * after * sum(intensity)).item()
    return out, total


def test_without_modulation_it_is_log_2_times_plain_attention():
    attention, where, tokens = without_modulation(layer()), some_context(), torch.randn(3, 5, 8)
    plain = FullAttention(config(attention="full"), 0).eval()
    assert not plain.load_state_dict(attention.state_dict(), strict=False).missing_keys
    plain.config._attn_implementation_internal = "eager"
    got, weights, _ = attention.mix(*attention.project(tokens, tokens), context=where)
    want, want_weights, _ = plain.mix(*plain.project(tokens, tokens), context=where)
    assert torch.equal(got, torch.tensor(2.0).log() * want) and torch.equal(weights, want_weights)
    assert attention.intensities(torch.randn(1, 1, 1, 4), torch.ones(1, 1)).item() == pytest.approx(LOG_2, abs=1e-6)


def test_one_type_scales_every_token_of_plain_attention():
    attention, where, tokens = layer(), some_context(), torch.randn(3, 5, 8)
    got, weights, _ = attention.mix(*attention.project(tokens, tokens), context=where)
    values = attention.v_proj(tokens).unflatten(-1, (2, 4)).transpose(1, 2)
    ratio = got.unflatten(-1, (2, 4)).transpose(1, 2) / (weights @ values)  # [S, h, N, 4]
    ratio = ratio.transpose(1, 2)[where.layout.valid]
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-4, atol=0)
    assert ratio.min() > 0 and ratio.std() > 0.01, "an intensity, and not a constant"


@pytest.mark.parametrize("delta", ["previous", "next"])
@pytest.mark.parametrize("types", [1, 3])
def test_equals_naive_loops(types, delta):
    attention = layer(modulating_marks=types, modulating_delta=delta, modulating_weight=0.7)
    assert attention.reads == (("times", "marks") if types > 1 else ("times",))
    where, tokens = some_context(types), torch.randn(3, 5, 8)
    output, _, terms = attention(tokens, tokens, where)
    want, likelihood = naive(attention, tokens, tokens, where, types, delta)
    real = where.layout.valid
    torch.testing.assert_close(output[real], attention.o_proj(want)[real], atol=1e-5, rtol=1e-5)
    assert float(terms["modulating"]) == pytest.approx(-0.7 * likelihood / 2 / int(real.sum()), rel=1e-4)


@pytest.mark.parametrize("delta", ["previous", "next"])
def test_one_token_that_asks_is_a_row_of_all_that_ask(delta):
    attention = layer(modulating_marks=3, modulating_delta=delta)
    where, tokens = some_context(3), torch.randn(3, 5, 8)
    query, *keys = attention.project(tokens, tokens)
    every, _, _ = attention.mix(query, *keys, context=where)
    for columns in ([2, 4, 4], [1, 2, 0]):
        rows, columns = torch.arange(3), torch.tensor(columns)
        asks = SequenceContext(where.layout, where.attention_mask[rows, :, columns].unsqueeze(2), times=where.times,
                               marks=where.marks)  # fmt: skip
        one, _, terms = attention.mix(query[rows, columns].unsqueeze(1), *keys, context=asks)
        torch.testing.assert_close(one.squeeze(1), every[rows, columns], atol=1e-6, rtol=1e-5)
        assert terms == {}


def test_an_intensity_of_zero_silences_its_type():
    attention = layer(modulating_marks=2)
    torch.nn.init.constant_(attention.gate_proj.bias, 50.0)  # g = 1
    attention.type_weight.data[0] = -1e4  # softplus(-4e4) = 0
    torch.nn.init.zeros_(attention.log_scale)
    tokens = torch.randn(1, 4, 8)
    where = context([[1, 1, 1, 1]], [[NOW] * 4], [[1, 0, 1, 0]])
    query, key, value, state = attention.project(tokens, tokens)
    first, _, _ = attention.mix(query, key, value, state, context=where)
    value[:, [1, 3]] = torch.randn(1, 2, 8)  # of the silenced type
    assert torch.equal(attention.mix(query, key, value, state, context=where)[0], first)
    value[:, 2] += 1
    assert not torch.equal(attention.mix(query, key, value, state, context=where)[0], first)


def test_gaps_are_exact_and_of_the_own_history_alone():
    ten_years = 3652 * DAY
    times = [[NOW, NOW + 1, NOW + 1, 0, 0], [0, 0, NOW, NOW + ten_years, NOW + ten_years + 3601]]
    where = context([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]], times)
    assert gaps(where).tolist() == [[0, 1, 0, 0, 0], [0, 0, 0, ten_years, 3601]]
    packed = SequenceLayout.from_positions(
        torch.tensor([[0, 1, 2, 0, 1, 0]]), torch.tensor([[1, 1, 1, 1, 1, 0]]).bool()
    )
    times = torch.tensor([[NOW, NOW + 5, NOW + 7, 40, 41, 0]])
    assert gaps(SequenceContext(packed, times=times)).tolist() == [[0, 5, 2, 0, 1, 0]]


@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_likelihood_by_hand(side):
    # λ = log 2 at every event; gaps of 1 and 3 days, three events: -(2 log log 2 - ½ (1 + 3) log 2) / 3
    times, valid = [NOW, NOW + DAY, NOW + 4 * DAY], [1, 1, 1]
    left, right = {"left": ([0, 0], []), "right": ([], [0, 0]), "none": ([], [])}[side]
    where = context([left + valid + right], [left + times + right])
    attention = without_modulation(layer(modulating_weight=2.0))
    tokens = torch.randn(1, len(where.times[0]), 8)
    _, _, terms = attention(tokens, tokens, where)
    assert -(2 * math.log(math.log(2)) - 2 * math.log(2)) / 3 == pytest.approx(0.706440, abs=1e-6)
    assert float(terms["modulating"]) == pytest.approx(2 * 0.706440, abs=1e-5)
    _, _, terms = without_modulation(layer())(tokens, tokens, where)
    assert terms == {}, "no weight, no term"


def test_likelihood_is_one_mean_over_rectangles_and_a_sum_over_blocks():
    torch.manual_seed(0)
    model = RetrModel(config(modulating_weight=1.0)).eval()
    ids, times = torch.randint(1, 21, (3, 4)), NOW + torch.randint(0, DAY, (3, 4)).cumsum(1)
    padded = ids * torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    together = model(padded, (padded > 0).long(), times=times)
    row = torch.cat([ids[:2].flatten(), ids[2, :2]])[None], torch.cat([times[:2].flatten(), times[2, :2]])[None]
    grouped = model(row[0], times=row[1], length_groups=((2, 4), (1, 2)))
    torch.testing.assert_close(grouped.auxiliary_loss, together.auxiliary_loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(grouped.last_hidden_state[0, :8].view(2, 4, 8), together.last_hidden_state[:2])
    head = RetrForSequentialRecommendation(config(modulating_weight=1.0)).eval()
    assert head(ids, labels=ids, times=times).loss > head(ids, labels=ids, times=torch.zeros_like(times)).loss


def test_previous_looks_at_no_later_time_and_next_at_one():
    tokens, times = torch.randn(1, 5, 8), NOW + torch.arange(5)[None] * DAY
    later = times.clone()
    later[0, 3] += 20 * DAY
    changed = {}
    for delta in ("previous", "next"):
        attention = layer(modulating_delta=delta)
        first, second = (
            attention(tokens, tokens, context([[1] * 5], each.tolist()))[0] for each in (times, later)
        )  # fmt: skip
        changed[delta] = [n for n in range(5) if not torch.allclose(first[0, n], second[0, n], atol=1e-6)]
    assert changed == {"previous": [3, 4], "next": [2, 3]}


def test_a_closed_route_gathers_means():
    attention, tokens = layer(), torch.randn(1, 4, 8)
    where = context([[1] * 4], [[NOW, NOW + DAY, NOW + DAY, NOW + 3 * DAY]])
    output, _, _ = attention(tokens, tokens, where, torch.zeros(1, 4))
    counts = torch.arange(1, 5).view(1, 4, 1)
    state, value = (proj(tokens).cumsum(1) / counts for proj in (attention.state_proj, attention.v_proj))
    intensity = attention.intensities(state.unflatten(-1, (2, 4)).transpose(1, 2), gaps(where) / DAY)
    want = (intensity * value.unflatten(-1, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, attention.o_proj(want), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gap", [0, 3600, 3652 * DAY])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_finite_and_reach_every_weight(gap, dtype):
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(config(modulating_marks=2, modulating_weight=0.1, attention_dropout=0.2,
                                                   router="pathway", initializer_range=0.1)).train()  # fmt: skip
    ids = torch.randint(1, 21, (8, 6))
    times, marks = (NOW + gap * torch.arange(6)).expand(8, 6), ids % 2
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(ids, labels=ids.roll(-1, 1), times=times, marks=marks).loss
    loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if ".self_attn." in name}
    assert torch.isfinite(loss) and all(torch.isfinite(gradient).all() for gradient in gradients.values())
    # a key bias shifts every logit of a softmax alike: its gradient is zero by construction
    assert all(gradient.abs().sum() > 0 for name, gradient in gradients.items() if not name.endswith("k_proj.bias"))


def test_a_likelihood_of_next_to_nothing_is_finite():
    attention, tokens = layer(modulating_weight=1.0), torch.randn(1, 3, 8)
    torch.nn.init.constant_(attention.type_weight, -1e3)  # softplus underflows
    _, _, terms = attention(tokens, tokens, context([[1, 1, 1]], [[NOW] * 3]))
    terms["modulating"].backward()
    assert torch.isfinite(terms["modulating"]) and torch.isfinite(attention.type_weight.grad).all()


def test_what_is_missing_is_said():
    ids, times = torch.randint(1, 21, (2, 4)), NOW + torch.arange(8).view(2, 4)
    model = RetrModel(config()).eval()
    with pytest.raises(ValueError, match=r"reads timestamps, and the batch brought none.*scripts/prepare.py tables"):
        model(ids)
    with pytest.raises(ValueError, match="pass int64 seconds"):
        model(ids, times=times.float())
    with pytest.raises(ValueError, match="from 0 to 3, or set modulating_marks=1"):
        RetrModel(config(modulating_marks=4))(ids, times=times)
    with pytest.raises(ValueError, match="reads times, which are not kept"):
        BehaviorCache(model, model.encode_items(), 2)


def test_config_knows_who_reads_times():
    readers = {name for name, cls in ATTENTIONS.items() if "times" in cls.reads}
    assert {name for name in ATTENTIONS if config(attention=name).reads_times} == readers
    assert "modulating" in readers


@pytest.mark.parametrize("name", ["padded", "packed", "grouped"])
def test_a_view_has_times_of_its_own(name):
    torch.manual_seed(0)
    config = RetrConfig(
        attention="modulating", hidden_size=16, num_attention_heads=2, text_size=8, sequence_loss_weight=1.0,
        initializer_range=0.3,
    )  # fmt: skip
    model, rng = RetrForPreTraining(config).eval(), np.random.default_rng(0)
    times = 1_600_000_000 + rng.integers(0, 10**6, 19).cumsum()
    batch = RaggedBatch(rng.integers(1, 20, 19), np.array([6, 4, 9]), times)
    table, losses = TextTables([rng.normal(size=(21, 8)).astype(np.float32)]), {}
    for layout in ("padded", name):
        collate = PreTrainingCollator(table, lay_out=layout_named(layout, 10), drop=0.4, item_drop_batches=1.0)
        arrays = collate(batch, np.random.default_rng(3), slice(None))
        arrays = {key: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for key, v in arrays.items()}
        losses[layout] = model(**arrays).loss.item()
    assert losses["padded"] == pytest.approx(losses[name], abs=1e-5)
    arrays["view_times"] = arrays["view_times"] * 2
    assert model(**arrays).loss.item() != pytest.approx(losses[name], abs=1e-6)
