"""Scalable cross-entropy against full cross-entropy and against a loop over buckets."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from retr_hf.model.sce_loss import sce_buckets, sce_loss


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(loss, *inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    value = loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


@pytest.mark.parametrize("buckets", [1, 3])
def test_buckets_of_everything_are_the_full_softmax(buckets):
    """Every state in several equal buckets counts once."""
    targets, inputs = torch.arange(23) % 7, (vectors(23, 6), vectors(7, 6, seed=1))
    states = torch.stack([torch.randperm(23) for _ in range(buckets)])
    items = torch.stack([torch.randperm(7) for _ in range(buckets)])
    got = gradients(lambda q, e: sce_loss(q, e, targets, states, items), *inputs)
    for ours, theirs in zip(got, gradients(lambda q, e: cross_entropy(q @ e.T, targets), *inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_largest_loss_of_the_buckets_of_a_state():
    """State 1 is in both buckets, state 3 in none; item 2 is the target of state 0 and in its bucket."""
    queries, items, targets = vectors(4, 3), vectors(5, 3, seed=1), torch.tensor([2, 0, 4, 1])
    states, candidates = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2, 3], [1, 3]])

    def by_loop(queries, items):
        scores, losses = queries @ items.T, {}
        for rows, bucket in zip(states.tolist(), candidates.tolist(), strict=True):
            for row in rows:
                own = targets[row].item()
                compared = [own, *(item for item in bucket if item != own)]
                losses.setdefault(row, []).append(cross_entropy(scores[row, compared], torch.tensor(0)))
        assert sorted(map(len, losses.values())) == [1, 1, 2]
        return sum(max(of_state) for of_state in losses.values()) / 3

    got = gradients(lambda q, e: sce_loss(q, e, targets, states, candidates), queries, items)
    for ours, theirs in zip(got, gradients(by_loop, queries, items), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not got[1][3].any()


def test_a_chosen_state_without_loss_counts():
    """Two states, the first with its target alone in the bucket: loss 0, and still one of two."""
    queries, items, targets = torch.ones(2, 1), torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    loss = sce_loss(queries, items, targets, torch.tensor([[0, 1]]), torch.tensor([[0]]))
    assert loss.item() == pytest.approx(torch.log1p(torch.exp(torch.tensor(-1.0))).item() / 2)
    half = sce_loss(queries, items, targets, torch.tensor([[0, 1]]), torch.tensor([[0]]), num_targets=4)
    torch.testing.assert_close(half, loss / 2)


def test_buckets_hold_what_lies_furthest_along_their_direction():
    """In one dimension a direction is a sign: the largest vectors, or the smallest."""
    torch.manual_seed(0)
    queries, items = torch.arange(25.0)[:, None], torch.arange(40.0)[:, None]
    states, candidates = sce_buckets(queries, items, bucket_items=3)
    assert states.shape == (10, 10) and candidates.shape == (10, 3)  # ⌊2 √25⌋
    ends = set()
    for rows, bucket in zip(states.sort().values.tolist(), candidates.sort().values.tolist(), strict=True):
        ends.add(rows[0])
        assert (rows, bucket) in [(list(range(10)), [0, 1, 2]), (list(range(15, 25)), [37, 38, 39])]
    assert ends == {0, 15}


def test_buckets_are_no_larger_than_what_there_is():
    states, candidates = sce_buckets(vectors(2, 3), vectors(4, 3), bucket_items=99, num_buckets=5)
    assert states.shape == (5, 2) and candidates.shape == (5, 4)


def test_no_target_is_no_loss():
    none = torch.zeros(0, dtype=torch.long)

    def loss(queries, items):
        return sce_loss(queries, items, none, *sce_buckets(queries, items, 4))

    value, _, for_items = gradients(loss, vectors(0, 4), vectors(5, 4))
    assert value == 0 and not for_items.any()
