"""The transition memory, against loops over users, pairs and items; and the head that scores with it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.evaluation.histories import rank_histories
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.history_terms import items_around
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation
from retr_hf.model.transition_memory import AGES, DECAY, REACH, TransitionMemory

ITEMS, LENGTH = 14, 6


def histories(count=30, seed=0, repeats=True):
    rng = np.random.default_rng(seed)
    draw = rng.integers if repeats else lambda low, high, size: low + rng.permutation(high - low)[:size]
    return [np.asarray(draw(1, ITEMS + 1, rng.integers(2, 9))) for _ in range(count)]


def split_of(rows):
    return SimpleNamespace(
        item_ids=np.concatenate(rows).astype(np.int32), offsets=np.cumsum([0, *map(len, rows)]).astype(np.int64)
    )


def counted(rows):
    """C, by hand: [ITEMS + 1, ITEMS + 1]."""
    counts = np.zeros((ITEMS + 1, ITEMS + 1))
    for row in rows:
        for place, item in enumerate(row):
            for steps in (1, 2, 3):
                if place + steps < len(row) and row[place + steps] != item:
                    counts[item, row[place + steps]] += 1 / steps
                    counts[row[place + steps], item] += 1 / steps
    return counts


def strengths_of(counts, sums=None):
    """M of the counts, with the denominators of ``sums``."""
    sums = counts if sums is None else sums
    return counts / np.sqrt(1 + sums.sum(1))[:, None] / np.sqrt(1 + sums.sum(0))


def remembered(memory):
    """M as the memory holds it."""
    dense = np.zeros((ITEMS + 1, ITEMS + 1))
    for item in range(ITEMS + 1):
        for neighbour, strength in zip(memory.neighbours[item].tolist(), memory.strengths[item].tolist(), strict=True):
            dense[item, neighbour] += strength
    return dense


def memory_of(rows, neighbours=ITEMS):
    config = RetrConfig(vocab_size=ITEMS + 1, item_features="id", transition_memory=neighbours)
    memory, split = TransitionMemory(config), split_of(rows)
    memory.count(split.item_ids, split.offsets)
    return memory


def build(**changes):
    torch.manual_seed(0)
    settings = dict(item_features="id", transition_memory=5, score="dot", repeat_term=True) | changes
    config = RetrConfig(
        hidden_size=16, num_attention_heads=2, intermediate_size=24, max_position_embeddings=LENGTH, num_experts=2,
        vocab_size=ITEMS + 1, text_size=8, initializer_range=0.3, hidden_dropout=0.0, attention_dropout=0.0,
        router="none", **settings,
    )  # fmt: skip
    model = RetrForSequentialRecommendation(config).eval()
    split = split_of(histories())
    model.transition_memory.count(split.item_ids, split.offsets)
    return model


def test_counts_and_strengths():
    rows = histories()
    np.testing.assert_allclose(remembered(memory_of(rows)), strengths_of(counted(rows)), atol=1e-6)


def test_the_strongest_are_kept_and_of_equal_ones_the_first():
    rows = histories()
    memory, whole = memory_of(rows, neighbours=3), strengths_of(counted(rows))
    for item in range(1, ITEMS + 1):
        best = sorted(range(1, ITEMS + 1), key=lambda other: (-round(whole[item, other], 6), other))[:3]
        assert memory.neighbours[item].tolist() == [other if whole[item, other] else 0 for other in best]
    chain = memory_of([[1, 2], [1, 3]], neighbours=1)
    assert chain.neighbours[1].tolist() == [2] and not chain.neighbours[4].any()


def test_counting_twice_is_counting_once_and_histories_of_one_item_count_nothing():
    memory, rows = memory_of(histories(seed=1)), histories()
    split = split_of([*rows, [3]])
    memory.count(split.item_ids, split.offsets)
    np.testing.assert_allclose(remembered(memory), strengths_of(counted(rows)), atol=1e-6)


def test_scores_by_hand():
    memory, rows = memory_of(histories()), torch.tensor([[3, 7, 0], [5, 0, 0]])
    columns, given = memory(rows)
    for row, (column, score) in enumerate(zip(columns, given, strict=True)):
        got = torch.zeros(ITEMS + 1).index_add(0, column, score).detach().numpy()
        want = sum(memory.start * DECAY**age * remembered(memory)[int(item)] for age, item in enumerate(rows[row]))
        np.testing.assert_allclose(got[1:], want[1:], atol=1e-6)


def test_items_around_stay_in_their_history():
    ids = torch.tensor([[5, 6, 7, 8, 9, 0]])
    labels = torch.tensor([[6, 7, 1, 9, 2, -100]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])  # 5 6 7 -> 1 | 8 9 -> 2
    got = items_around(ids, labels, positions, torch.tensor([0, 2, 3, 4]), AGES + REACH, REACH)
    before = AGES + 2
    wanted = [[5], [5, 6, 7], [8], [8, 9]]
    assert got[:, : before + 1].tolist() == [[0] * (before + 1 - len(row)) + row for row in wanted]
    assert got[:, before + 1 :].tolist() == [[6, 7, 1], [1, 0, 0], [9, 2, 0], [2, 0, 0]]


def test_in_training_a_history_does_not_find_itself():
    """Its own transitions are taken out: what is left is C of everybody else, over the same denominators."""
    rows = histories(repeats=False)  # a pair that comes twice in one history is taken out once: see the NOTE
    memory, whole = memory_of(rows), counted(rows)
    for number, row in enumerate(rows):
        others = strengths_of(counted(rows[:number] + rows[number + 1 :]), sums=whole)
        ids, labels = torch.from_numpy(row[None, :-1]), torch.from_numpy(row[None, 1:])
        positions, places = torch.arange(len(row) - 1)[None], torch.arange(len(row) - 1)
        recent = torch.stack([ids[0].roll(age).where(places >= age, 0) for age in range(AGES)], dim=1)
        columns, given = memory(recent, items_around(ids, labels, positions, places, AGES + REACH, REACH))
        for step in places.tolist():
            got = torch.zeros(ITEMS + 1).index_add(0, columns[step], given[step]).detach().numpy()
            read = [(age, int(item)) for age, item in enumerate(recent[step]) if item]
            want = sum(memory.start * DECAY**age * others[item] for age, item in read)
            np.testing.assert_allclose(got[1:], want[1:], atol=1e-5)


def test_a_lone_history_learns_nothing_from_the_memory():
    row = np.array([1, 2, 3, 4])
    model, split = build(), split_of([row])
    model.transition_memory.count(split.item_ids, split.offsets)
    ids, labels = torch.from_numpy(row[None, :-1]), torch.from_numpy(row[None, 1:])
    given = {}
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            given[training] = model(ids, labels=labels).loss
            model.transition_memory.weights += 2  # it would change the loss, if anything were given
            given[training] -= model(ids, labels=labels).loss
            model.transition_memory.weights -= 2
    assert given[True].abs() < 1e-6 and given[False].abs() > 1e-2


@pytest.mark.parametrize("terms", [{}, {"repeat_term": False}, {"score": "cosine"}])
def test_the_head_adds_it_to_the_product(terms):
    model = build(**terms)
    ids = torch.tensor([[3, 4, 3, 9]])
    got = model(ids).logits[0]
    model.transition_memory.weights.data.zero_()
    added = (got - model(ids).logits[0])[1:] * model.config.temperature
    dense = remembered(model.transition_memory)
    want = sum(1.5 * DECAY**age * dense[item] for age, item in enumerate([9, 3, 4, 3]))
    np.testing.assert_allclose(added.detach(), want[1:], atol=1e-4)


def test_ranks_are_those_of_the_scores():
    """All protocols, against sorted scores: neighbours may be seen, new, negatives or the target."""
    model, rows = build(), histories(60, seed=3)
    with torch.no_grad():
        model.transition_memory.weights *= 3
    rng = np.random.default_rng(4)
    negatives = [rng.choice(np.setdiff1d(np.arange(1, ITEMS + 1), row), 4) for row in rows if len(set(row)) < 9]
    rows = [row for row in rows if len(set(row)) < 9]
    ranks = rank_histories(
        model, model.encode_catalog(), split_of(rows), split_of(negatives), max_length=LENGTH, batch_size=8
    )
    for user, row in enumerate(rows):
        scores = model(torch.tensor([row[:-1][-LENGTH:]])).logits[0].detach()
        target = int(row[-1])
        others = torch.arange(ITEMS + 1) != target
        before = (scores >= scores[target]) & others
        assert ranks["full"][user] == 1 + int(before.sum())
        seen = torch.zeros(ITEMS + 1, dtype=torch.bool)
        seen[row[:-1]] = True
        assert ranks["full-unseen"][user] == 1 + int((before & ~seen).sum())
        assert ranks["sampled"][user] == 1 + int(before[torch.from_numpy(negatives[user])].sum())


def test_it_is_saved_and_loaded(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    again, ids = RetrForSequentialRecommendation.from_pretrained(tmp_path), torch.tensor([[3, 4, 9]])
    torch.testing.assert_close(again(ids).logits, model(ids).logits)
    assert again.transition_memory.neighbours.equal(model.transition_memory.neighbours)


def test_a_checkpoint_without_it_gets_an_empty_one(tmp_path):
    config = build().config
    config.transition_memory = 0
    RetrForSequentialRecommendation(config).save_pretrained(tmp_path)
    config.transition_memory = 4
    model = RetrForSequentialRecommendation.from_pretrained(tmp_path, config=config)
    assert not model.transition_memory.strengths.any() and not model.transition_memory.neighbours.any()
    assert model.transition_memory.weights.tolist() == pytest.approx([1.5 * DECAY**age for age in range(AGES)])


def test_new_items_have_no_neighbours():
    model = build(item_features="text+id")
    text = torch.randn(ITEMS + 3, 8)
    text[0] = 0
    before = model(torch.tensor([[3, 4]]), text_embeddings=text[: ITEMS + 1]).logits
    model.add_items(2, "hash")
    after = model(torch.tensor([[3, 4]]), text_embeddings=text).logits
    torch.testing.assert_close(after[:, : ITEMS + 1], before)
    assert torch.isfinite(model(torch.tensor([[ITEMS + 2]]), text_embeddings=text).logits[:, 1:]).all()
    read = model(torch.tensor([[3, ITEMS + 3]]), text_embeddings=text, new_text_embeddings=torch.randn(1, 8)).logits
    assert read.shape == (1, ITEMS + 3) and torch.isfinite(read[:, 1:]).all()


def test_what_cannot_be():
    with pytest.raises(Exception, match="transition_memory=3 is learned by the full softmax"):
        RetrConfig(objective="bpr", transition_memory=3)
    with pytest.raises(Exception, match="transition_memory=-1: expected 0 or more"):
        RetrConfig(transition_memory=-1)
    with pytest.raises(Exception, match="transition_memory=0"):
        RetrConfig(direction="bidirectional", transition_memory=3)
    with pytest.raises(ValueError, match="transition_memory knows the whole catalogue"):
        build()(torch.tensor([[1]]), table_item_ids=torch.arange(5))


def test_where_catalogues_mix_there_is_none():
    config = RetrConfig(item_features="text", transition_memory=3, hidden_size=16, num_attention_heads=2, text_size=8)
    assert RetrForPreTraining(config).transition_memory is None


def test_the_weights_learn():
    model = build().train()
    ids = torch.tensor([[3, 4, 9, 2]])
    model(ids, labels=torch.tensor([[4, 9, 2, 5]])).loss.backward()
    gradient = model.transition_memory.weights.grad
    assert gradient[:4].abs().min() > 0 and not gradient[4:].any() and math.isfinite(float(gradient.sum()))
