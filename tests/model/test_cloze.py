"""BERT4Rec: the [mask] behind a history, what a bidirectional body sees, and a pathway in it."""

import pytest
import torch

from retr_hf.model.cloze import MASK, ask_for_next
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation

ITEMS = 20


def build(router="none", seed=0, **changes):
    torch.manual_seed(seed)
    fields = {"router": router, "router_context": "global", "router_init_keep": 0.6, "initializer_range": 0.3}
    fields |= {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 8}
    fields |= {"item_features": "id", "vocab_size": ITEMS + 1, "score": "dot", "item_bias": True}
    config = RetrConfig(direction="bidirectional", output_transform=True, **fields | changes)
    return RetrForSequentialRecommendation(config).eval()


def history(length, seed=0):
    return torch.randint(1, ITEMS + 1, (1, length), generator=torch.Generator().manual_seed(seed))


class TestAskForNext:
    def test_rows_padded_on_either_side(self):
        ids = torch.tensor([[3, 4, 0, 0], [0, 0, 0, 5], [1, 2, 3, 4]])
        asked = ask_for_next(ids, (ids > 0).long(), None, longest=9)
        assert asked.input_ids.tolist() == [[3, 4, MASK, 0, 0], [5, MASK, 0, 0, 0], [1, 2, 3, 4, MASK]]
        assert asked.attention_mask.sum(1).tolist() == [3, 2, 5]
        assert asked.sequence_ends.tolist() == [2, 6, 14] and asked.length_groups is None

    def test_only_a_full_history_loses_its_oldest_item(self):
        ids = torch.tensor([[3, 4, 0, 0], [1, 2, 3, 4]])
        asked = ask_for_next(ids, (ids > 0).long(), None, longest=4)
        assert asked.input_ids.tolist() == [[3, 4, MASK, 0], [2, 3, 4, MASK]]

    def test_groups(self):
        ids = torch.tensor([[1, 2, 3, 4, 5, 6, 0]])
        asked = ask_for_next(ids, (ids > 0).long(), ((2, 2), (1, 3)), longest=3)
        assert asked.input_ids.tolist() == [[1, 2, MASK, 3, 4, MASK, 5, 6, MASK]]
        assert asked.length_groups == ((2, 3), (1, 3)) and asked.sequence_ends.tolist() == [2, 5, 8]


@pytest.mark.parametrize("router", ["none", "pathway", "random"])
def test_padding_and_groups_change_nothing(router):
    model, lengths = build(router), (1, 4, 7, 8)
    ids = torch.zeros(4, 8, dtype=torch.long)
    for row, length in zip(ids, lengths, strict=True):
        row[8 - length :] = history(length, length)[0]
    together = model(ids, (ids > 0).long()).logits
    apart = torch.cat([model(history(length, length)).logits for length in lengths])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)
    flat = torch.cat([history(4, 4), history(1, 1), history(8, 8)], 1)
    users = model.encode_users(flat, sequence_ends=torch.tensor([12, 3, 4]), length_groups=((1, 4), (1, 1), (1, 8)))
    alone = [model.encode_users(history(n, n), torch.ones(1, n)) for n in (8, 4, 1)]
    torch.testing.assert_close(users, torch.cat(alone), atol=1e-5, rtol=0)
    scores = users @ model.candidate_vectors(model.encode_catalog()).T
    torch.testing.assert_close(scores[:, 1:], together[[3, 1, 0], 1:], atol=1e-5, rtol=0)


def test_all_hidden_without_positions_all_the_same():
    model = build()
    torch.nn.init.zeros_(model.model.embed_positions.weight)
    states = model.model(torch.full((1, 6), MASK), item_embeddings=model.encode_items()).last_hidden_state
    torch.testing.assert_close(states, states[:, :1].expand_as(states), atol=1e-5, rtol=0)


def test_history_in_another_order_with_its_positions_changes_nothing():
    """Positions are given by place, so permuted rows take the rows of the position table along."""
    model, ids = build(), history(5)
    want, order = model(ids).logits, torch.tensor([3, 0, 4, 1, 2])
    positions = model.model.embed_positions.weight.data
    positions[:5] = positions[order].clone()
    torch.testing.assert_close(model(ids[:, order]).logits, want, atol=1e-5, rtol=0)
    assert not torch.allclose(model(ids).logits, want, atol=1e-3)


def test_every_token_sees_what_follows():
    model = build()
    one, other = history(6), history(6)
    other[0, 5] = one[0, 5] % ITEMS + 1
    first, second = (model.model(ids, item_embeddings=model.encode_items()).last_hidden_state for ids in (one, other))
    assert (first[0, 0] - second[0, 0]).abs().max() > 1e-3


def test_scores_by_the_equations():
    """y = LN(GELU(z W + b)); score = y · e_i + b_i, and the [mask] is no candidate."""
    model = build()
    torch.nn.init.normal_(model.item_bias.weight)
    ids = history(4)
    asked = torch.cat([ids, torch.tensor([[MASK]])], 1)
    z = model.model(asked, item_embeddings=model.encode_items()).last_hidden_state[0, -1]
    head = model.output_transform
    y = torch.nn.functional.layer_norm(
        torch.nn.functional.gelu(z @ head.dense.weight.T + head.dense.bias), (16,), head.norm.weight, head.norm.bias,
        model.config.layer_norm_eps,
    )  # fmt: skip
    want = model.model.embed_tokens.weight @ y + model.item_bias.weight[:, 0]
    got = model(ids).logits[0]
    assert got.shape == (ITEMS + 1,)
    torch.testing.assert_close(got[1:], want[1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("router", ["none", "pathway"])
def test_every_parameter_gets_a_gradient(router):
    model = build(router).train()
    ids = torch.cat([history(8, seed) for seed in range(40)])
    labels = torch.full_like(ids, -100)
    labels[:, 3], ids[:, 3] = ids[:, 3].clone(), MASK
    model(ids, labels=labels).loss.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if (weight.grad is None or not weight.grad.abs().sum() > 0) and not name.endswith("k_proj.bias")
    ]
    assert silent == []


def test_contradictions_are_told():
    with pytest.raises(Exception, match="objectives without negatives of the collator"):
        build(objective="bpr")
    with pytest.raises(Exception, match='attention="full"'):
        build(attention="strided")
    model = build()
    model.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="sdpa or eager"):
        model(history(3))
    text = RetrConfig(item_features="text", direction="bidirectional", router="none")
    with pytest.raises(ValueError, match="which a bidirectional body would read"):
        RetrForPreTraining(text)


def test_it_recommends_and_tells_the_pathway_of_the_history_alone(shop):
    changes = {"direction": "bidirectional", "router_context": "global", "router": "pathway"}
    answer = shop.recommender("id", **changes).recommend(["item-1", "item-2"], k=3)
    assert len(answer.items) == 3 and [step.item_id for step in answer.pathway] == ["item-1", "item-2"]
    with pytest.raises(ValueError, match="changes every past state"):
        shop.recommender("id", **changes).session([["item-1"]])
