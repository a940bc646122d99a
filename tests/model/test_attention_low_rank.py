"""Low-rank attention against the formulas of LightSANs, written as loops over prefixes."""

import math

import pytest
import torch

from retr_hf.model.attention import SequenceContext
from retr_hf.model.attention_low_rank import LowRankAttention
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.sequence_layout import SequenceLayout

WIDTH, HEADS = 8, 2


def attention(interests=3, dtype=torch.float32, **changes):
    torch.manual_seed(0)
    config = RetrConfig(
        attention="low_rank", low_rank_interests=interests, hidden_size=WIDTH, num_attention_heads=HEADS,
        max_position_embeddings=6, **changes,
    )  # fmt: skip
    layer = LowRankAttention(config, 0).eval()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return layer.to(dtype)


def mixed(layer, tokens, route=None):
    """(output before W_O [S, N, d], weights) of rows without padding."""
    return layer.mix(*layer.project(tokens, tokens, route), context=SequenceContext(SequenceLayout.whole(tokens)))[:2]


def per_head(states):
    return states.unflatten(-1, (HEADS, -1)).transpose(-2, -3)  # [h, ., d/h]


def last_row(layer, tokens, places):
    """The authors' formulas on a whole sequence [n, d] without padding; its last row [d]."""
    query, key, value = layer.q_proj(tokens[-1:]), layer.k_proj(tokens), layer.v_proj(tokens)
    key_pool = (key @ layer.key_interests.weight.T).softmax(0)  # D_K [n, k]
    value_pool = (value @ layer.value_interests.weight.T).softmax(0)
    logits = per_head(query) @ per_head(key_pool.T @ key).mT / math.sqrt(WIDTH / HEADS)
    item = logits.softmax(-1) @ per_head(value_pool.T @ value)
    positions = layer.position_norm(layer.embed_positions(places))
    logits = per_head(layer.position_q_proj(positions[-1:])) @ per_head(layer.position_k_proj(positions)).mT
    logits = logits / math.sqrt(2 * WIDTH / HEADS) / math.sqrt(WIDTH / HEADS)
    return (item + logits.softmax(-1) @ per_head(value)).transpose(0, 1).flatten()


@pytest.mark.parametrize("interests", [1, 3])
def test_each_row_is_the_formula_on_its_prefix(interests):
    layer, tokens = attention(interests), torch.randn(2, 6, WIDTH)
    output, weights = mixed(layer, tokens)
    for row in range(2):
        for length in range(1, 7):
            want = last_row(layer, tokens[row, :length], torch.arange(length))
            torch.testing.assert_close(output[row, length - 1], want, atol=1e-5, rtol=0)
    assert weights.triu(1).eq(0).all()
    torch.testing.assert_close(weights.sum(-1), torch.full_like(weights[..., 0], 2.0))
    by_weights = (weights @ per_head(layer.v_proj(tokens))).transpose(1, 2).flatten(2)
    torch.testing.assert_close(output, by_weights, atol=1e-5, rtol=0)


def test_padding_on_the_left_and_one_who_asks():
    """Places count from the first real token, wherever it stands, and padded tokens are in no interest."""
    layer, tokens = attention(), torch.randn(1, 6, WIDTH)
    valid = torch.tensor([[False, False, True, True, True, True]])
    mask = SequenceLayout(valid).visible()[0].unsqueeze(1)
    want = last_row(layer, tokens[0, 2:], torch.arange(4))
    query, *keys = layer.project(tokens, tokens)
    for asking, seen in ((query, mask), (query[:, -1:], mask[:, :, -1:])):
        output, _, _ = layer.mix(asking, *keys, context=SequenceContext(SequenceLayout(valid), seen))
        torch.testing.assert_close(output[0, -1], want, atol=1e-5, rtol=0)
        assert output.isfinite().all()


def test_equal_values_come_out_twice():
    """O_item = v and O_pos = v, so 2 v reaches W_O."""
    layer = attention()
    layer.v_proj.weight.data.zero_()
    output, _ = mixed(layer, torch.randn(2, 5, WIDTH))
    torch.testing.assert_close(output, (2 * layer.v_proj.bias).expand(2, 5, WIDTH), atol=1e-5, rtol=0)


def test_a_single_interest_asks_for_no_query():
    layer, other, tokens = attention(1), attention(1), torch.randn(1, 5, WIDTH)
    torch.nn.init.normal_(other.q_proj.weight, std=3.0)
    torch.testing.assert_close(mixed(layer, tokens)[0], mixed(other, tokens)[0])
    several, asking_else = attention(3), attention(3)
    torch.nn.init.normal_(asking_else.q_proj.weight, std=3.0)
    assert not torch.allclose(mixed(several, tokens)[0], mixed(asking_else, tokens)[0], atol=1e-2)


def test_two_tokens_by_hand():
    """d = h = k = 1: Θ_K = 0 pools evenly, exp(Θ_V v) = 1 : 3, and positions without weight count alike."""
    config = RetrConfig(attention="low_rank", low_rank_interests=1, hidden_size=1, num_attention_heads=1)
    layer = LowRankAttention(config, 0).eval()
    for weight in layer.parameters():
        torch.nn.init.zeros_(weight)
    layer.v_proj.weight.data.fill_(1.0)
    layer.value_interests.weight.data.fill_(math.log(3))
    output, weights = mixed(layer, torch.tensor([[[0.0], [1.0]]]))
    torch.testing.assert_close(weights[0, 0], torch.tensor([[2.0, 0.0], [0.25 + 0.5, 0.75 + 0.5]]))
    torch.testing.assert_close(output[0], torch.tensor([[0.0], [1.25]]))


def test_closed_route_is_the_mean_of_the_interests_beside_the_positions():
    layer, tokens = attention(), torch.randn(1, 5, WIDTH)
    closed, _ = mixed(layer, tokens, torch.zeros(1, 5))
    layer.q_proj.weight.data.zero_()
    layer.q_proj.bias.data.zero_()
    torch.testing.assert_close(closed[0, 4], last_row(layer, tokens[0], torch.arange(5)), atol=1e-5, rtol=0)


def test_interests_of_any_size_are_as_stable_as_a_softmax():
    """Logits of some thousand: a sum of exponentials under the maximum of the whole row would lose its first tokens."""
    layer, tokens = attention(), torch.randn(1, 6, WIDTH) * torch.arange(1, 7).view(1, 6, 1)
    layer.key_interests.weight.data.mul_(300)
    layer.value_interests.weight.data.mul_(300)
    output, _ = mixed(layer, tokens)
    double = attention(dtype=torch.float64)
    double.load_state_dict(layer.state_dict())
    assert layer.value_interests(layer.v_proj(tokens)).abs().max() > 1000
    torch.testing.assert_close(output.double(), mixed(double, tokens.double())[0], atol=1e-3, rtol=1e-3)


def test_dropout_falls_on_interests_alone():
    layer, tokens = attention(attention_dropout=0.5).train(), torch.randn(1, 6, WIDTH)
    layer.v_proj.weight.data.zero_()  # all values are v: O_item is v times what dropout leaves, O_pos is v
    shares = mixed(layer, tokens)[1].sum(-1)
    assert (shares - 1 > -1e-5).all() and shares.std() > 0.1
    assert mixed(layer.eval(), tokens)[1].sum(-1).std() < 1e-5


def test_shorter_histories_keep_their_positions():
    torch.manual_seed(0)
    config = RetrConfig(
        attention="low_rank", item_features="id", vocab_size=9, hidden_size=WIDTH, num_attention_heads=HEADS,
        max_position_embeddings=20, initializer_range=0.5,
    )  # fmt: skip
    model, ids = RetrForSequentialRecommendation(config).eval(), torch.tensor([[1, 5, 3, 8]])
    before = model(ids).logits
    model.cut_positions(4)
    assert all(layer.self_attn.embed_positions.weight.shape == (4, WIDTH) for layer in model.model.layers)
    assert torch.equal(model(ids).logits, before)
