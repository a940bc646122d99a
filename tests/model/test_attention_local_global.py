"""Local-global attention: its degenerate setting, and each local head against Locker's formula in loops."""

import math

import pytest
import torch

from retr_hf.model.attention import FullAttention, SequenceContext
from retr_hf.model.attention_local_global import LocalGlobalAttention
from retr_hf.model.configuration_retr import LOCAL_TYPES, RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.sequence_layout import SequenceLayout

WIDTH, HEADS, SIZE, LONGEST = 12, 3, 4, 7  # SIZE: d/h


def settings(local_type, **changes):
    changes = {"local_window": 2, "attn_implementation": "eager", **changes}
    return RetrConfig(
        attention="local_global", local_type=local_type, hidden_size=WIDTH, num_attention_heads=HEADS,
        max_position_embeddings=LONGEST, **changes,
    )  # fmt: skip


def attention(local_type, **changes):
    torch.manual_seed(0)
    layer = LocalGlobalAttention(settings(local_type, **changes), 0).eval()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return layer


def mixed(layer, tokens, route=None):
    return layer.mix(*layer.project(tokens, tokens, route), context=SequenceContext(SequenceLayout.whole(tokens)))[:2]


def of_head(states, head):
    return states[..., head * SIZE : (head + 1) * SIZE]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("local_heads", [1, 2, 3])
def test_a_window_over_everything_is_full_attention(local_heads, training):
    """Exactly, routed or not, dropout included."""
    layer = attention("window", local_window=LONGEST, local_heads=local_heads, attention_dropout=0.3).train(training)
    full = FullAttention(layer.config, 0).train(training)
    full.load_state_dict(layer.state_dict())
    tokens, route = torch.randn(2, LONGEST, WIDTH), torch.randint(2, (2, LONGEST)).float()
    for gate in (None, route):
        torch.manual_seed(1)
        output, weights = mixed(layer, tokens, gate)
        torch.manual_seed(1)
        want, want_weights = mixed(full, tokens, gate)
        assert torch.equal(output, want) and torch.equal(weights, want_weights)


def test_a_window_of_nothing_returns_the_own_value():
    layer, tokens = attention("window", local_window=0, local_heads=2), torch.randn(2, 5, WIDTH)
    output, weights = mixed(layer, tokens)
    values = layer.v_proj(tokens)
    assert torch.equal(output[..., SIZE:], values[..., SIZE:])
    assert not torch.allclose(output[..., :SIZE], values[..., :SIZE], atol=1e-2)
    assert torch.equal(weights[:, 1:], torch.eye(5).expand(2, 2, 5, 5))


def naive_logit(layer, local_type, head, t, j, tokens, user):
    """The logit of a local head, as the authors have it but for the offset; None where t does not see j."""
    query, key, value = (projection(tokens) for projection in (layer.q_proj, layer.k_proj, layer.v_proj))
    q, k, local = of_head(query[t], head), of_head(key[j], head), head - 1
    if local_type != "window":
        q = q + of_head(layer.query_positions.weight[t], local)
        k = k + of_head(layer.key_positions.weight[j], local)
    logit = q @ k / math.sqrt(SIZE)
    if local_type == "window":
        return logit if t - j <= 2 else None
    if local_type == "initial":
        return logit * torch.sigmoid(layer.closeness[t - j, local] / 0.1)
    inner = of_head(layer.distances.weight[t - j], local) + of_head(value[t], head) + of_head(value[j], head)
    return logit + layer.preference.weight[local] @ (inner + of_head(user[t], local))


@pytest.mark.parametrize("local_type", ["window", "initial", "adaptive"])
def test_heads_by_loops(local_type):
    """In "adaptive" with the terms of v_t and of the user, any user: the softmax cancels what j does not change."""
    layer, tokens, user = attention(local_type), torch.randn(1, 6, WIDTH), torch.randn(6, 2 * SIZE)
    output, weights = mixed(layer, tokens)
    values = layer.v_proj(tokens[0])
    query, key = layer.q_proj(tokens[0]), layer.k_proj(tokens[0])
    for t in range(6):
        for head in range(HEADS):
            logits = {
                j: of_head(query[t], 0) @ of_head(key[j], 0) / math.sqrt(SIZE)
                if head == 0
                else naive_logit(layer, local_type, head, t, j, tokens[0], user)
                for j in range(t + 1)
            }
            seen = [j for j, logit in logits.items() if logit is not None]
            shares = torch.stack([logits[j] for j in seen]).softmax(0)
            torch.testing.assert_close(weights[0, head, t, seen], shares, atol=1e-5, rtol=0)
            want = sum(share * of_head(values[j], head) for share, j in zip(shares, seen, strict=True))
            torch.testing.assert_close(of_head(output[0, t], head), want, atol=1e-5, rtol=0)
            assert weights[0, head, t].sum().item() == pytest.approx(1, abs=1e-5)


def test_convolution_by_loops():
    layer, tokens = attention("conv", local_window=2), torch.randn(1, 6, WIDTH)
    output, weights = mixed(layer, tokens)
    values = layer.v_proj(tokens[0])
    for t in range(6):
        for head in (1, 2):
            rows = slice((head - 1) * SIZE, head * SIZE)
            total = layer.convolution.bias[rows]
            for distance in range(min(t, 2) + 1):  # the filter's last column meets v_t
                total = total + layer.convolution.weight[rows, :, 2 - distance] @ of_head(values[t - distance], head)
            torch.testing.assert_close(of_head(output[0, t], head), total.relu(), atol=1e-5, rtol=0)
    assert weights.shape == (1, 1, 6, 6) and output[..., SIZE:].eq(0).any() and output[..., SIZE:].gt(0).any()


def test_closeness_starts_near():
    """exp(-½ (Δ / ½)²) is 1, e^-2, e^-8; the item itself keeps all of its logit, far ones the half."""
    model = RetrForSequentialRecommendation(settings("initial"))
    closeness = model.model.layers[1].self_attn.closeness
    assert closeness.shape == (LONGEST, 2)
    left = (closeness[:3, 1] / 0.1).sigmoid().tolist()
    assert left == pytest.approx([1 / (1 + math.exp(-10 * near)) for near in (1, math.exp(-2), math.exp(-8))])
    assert left == pytest.approx([1, 0.7947, 0.5008], abs=1e-4)


@pytest.mark.parametrize("local_type", LOCAL_TYPES)
def test_closed_route_asks_with_nothing_of_its_own(local_type):
    """The query, position vector included, is zero; what is no query stays."""
    layer, tokens = attention(local_type), torch.randn(1, 5, WIDTH)
    _, weights = mixed(layer, tokens, torch.zeros(1, 5))
    uniform = 1 / torch.arange(1, 6).view(5, 1).expand(5, 5).tril()
    uniform = uniform.masked_fill(uniform.isinf(), 0)
    torch.testing.assert_close(weights[0, 0], uniform, atol=1e-6, rtol=0)
    if local_type == "initial":
        torch.testing.assert_close(weights[0, 1:], uniform.expand(2, 5, 5), atol=1e-6, rtol=0)
    elif local_type == "window":
        torch.testing.assert_close(weights[0, 1, 4], torch.tensor([0, 0, 1 / 3, 1 / 3, 1 / 3]))
    elif local_type == "adaptive":
        values, m = layer.v_proj(tokens[0]), layer.preference.weight[0]
        terms = (of_head(layer.distances.weight[torch.arange(4, -1, -1)], 0) + of_head(values, 1)) @ m
        torch.testing.assert_close(weights[0, 1, 4], terms.softmax(0), atol=1e-5, rtol=0)


def build(local_type, **changes):
    torch.manual_seed(0)
    config = settings(local_type, item_features="id", vocab_size=31, initializer_range=0.3, router_init_keep=0.6,
                      **changes)  # fmt: skip
    return RetrForSequentialRecommendation(config).eval()


@pytest.mark.parametrize("local_type", LOCAL_TYPES)
def test_contract_of_every_local_type(local_type):
    """Alone, in a batch padded on either side, packed, and as a prefix of something longer: the same."""
    model, ids = build(local_type).model, torch.randint(1, 31, (1, 6))
    alone = [model(ids[:, :length]).last_hidden_state[0] for length in range(1, 7)]
    for state in alone[:-1]:
        torch.testing.assert_close(alone[-1][: len(state)], state, atol=1e-5, rtol=0)
    lengths = torch.tensor([1, 3, 6]).unsqueeze(1)
    for real in (torch.arange(LONGEST) < lengths, torch.arange(LONGEST) >= LONGEST - lengths):
        rows = torch.zeros(3, LONGEST, dtype=torch.long)
        for row, where, length in zip(rows, real, lengths.flatten().tolist(), strict=True):
            row[where] = ids[0, :length]
        states = model(rows, real.long()).last_hidden_state
        ends = real.long().cumsum(1).argmax(1) + torch.arange(3) * LONGEST
        last = model(rows, real.long(), sequence_ends=ends).last_hidden_state
        for row, where, length in zip(range(3), real, lengths.flatten().tolist(), strict=True):
            torch.testing.assert_close(states[row, where], alone[length - 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(last[row, 0], alone[length - 1][-1], atol=1e-5, rtol=0)
    packed = torch.cat([ids[:, :3], ids, ids[:, :1], torch.zeros(1, 2, dtype=torch.long)], 1)
    places = torch.cat([torch.arange(length) for length in (3, 6, 1, 1, 1)]).unsqueeze(0)
    states = model(packed, (packed > 0).long(), places).last_hidden_state[0, :10]
    torch.testing.assert_close(states, torch.cat([alone[2], alone[5], alone[0]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("local_type", LOCAL_TYPES)
@pytest.mark.parametrize("router", ["pathway", "none"])
def test_every_parameter_gets_a_finite_gradient(local_type, router):
    """But for key biases and what is added to all logits of a row: a softmax does not feel them."""
    model, ids = build(local_type, router=router).train(), torch.randint(1, 31, (20, LONGEST))
    model(ids, labels=ids.roll(-1, 1)).loss.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if not weight.grad.abs().sum() > 0 and not name.endswith("k_proj.bias")
    ]
    assert silent == [] and all(weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("local_type", LOCAL_TYPES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_finite_and_near(local_type, dtype):
    """Histories of equal items too, and of a single one; logits of some thousand."""
    model = build(local_type)
    for layer in model.model.layers:
        layer.self_attn.k_proj.weight.data.mul_(100)
    for ids in (torch.full((1, 6), 3), torch.tensor([[4]]), torch.arange(1, 7).view(1, 6)):
        model.zero_grad()
        want = model(ids).last_hidden_state
        with torch.autocast("cpu", dtype=dtype):
            outputs = model(ids, labels=ids)
        outputs.loss.backward()
        assert all(weight.grad.isfinite().all() for weight in model.parameters() if weight.grad is not None)
        torch.testing.assert_close(outputs.last_hidden_state.float(), want, atol=2.0, rtol=0)
    half = build(local_type).to(dtype)
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    assert half(torch.ones_like(mask), mask).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("local_type", LOCAL_TYPES)
def test_shorter_histories_keep_their_positions_and_distances(local_type):
    model, ids = build(local_type), torch.tensor([[1, 5, 3, 8]])
    before, rows = model(ids).logits, {}
    model.cut_positions(4)
    for name, weight in model.model.layers[0].self_attn.named_parameters():
        rows[name.removesuffix(".weight")] = len(weight)
    tables = {"query_positions", "key_positions", "distances", "closeness"} & set(rows)
    assert all(rows[name] == 4 for name in tables) and bool(tables) == (local_type in ("initial", "adaptive"))
    assert torch.equal(model(ids).logits, before)


def test_saved_and_loaded(tmp_path):
    model, ids = build("initial"), torch.tensor([[1, 5, 3, 8]])
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.closeness)  # elsewhere than at its start
    model.save_pretrained(tmp_path)
    loaded = RetrForSequentialRecommendation.from_pretrained(tmp_path)
    assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)


def test_heads_that_cannot_be():
    for changes, told in (
        ({"local_heads": 0}, "local_heads=0 of num_attention_heads=3: expected 1 to 3"),
        ({"local_heads": 4}, "expected 1 to 3"),
        ({"local_heads": 3, "local_type": "conv"}, "expected 1 to 2 with local_type='conv'"),
        ({"local_window": -1}, "local_window=-1: expected 0 or more"),
        ({"local_type": "rnn"}, "local_type='rnn': expected one of 'window', 'initial', 'adaptive', 'conv'"),
    ):
        with pytest.raises(Exception, match=told):
            settings(**{"local_type": "window", **changes})
    assert RetrConfig(num_attention_heads=1).local_heads is None  # nothing to say while the attention is another
