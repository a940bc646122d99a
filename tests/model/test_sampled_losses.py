"""Sampled objectives against arithmetic, against plain formulas and against the losses they stand for."""

import itertools
import math

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid
from torch.utils._python_dispatch import TorchDispatchMode

from retr_hf.model import sampled_losses
from retr_hf.model.losses import bce_loss
from retr_hf.model.sampled_losses import (
    draw_other_items,
    draw_shared_items,
    gbce_beta,
    gbce_loss,
    sampled_softmax_loss,
)


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradients(loss, *inputs):
    """Twice the loss, so that the gradient of the sum is not 1, and its gradients."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    value = 2 * loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


@pytest.fixture(params=["whole rows", "picked"])
def way(request, monkeypatch):
    """Both ways to the scores of own negatives."""
    monkeypatch.setattr(sampled_losses, "ITEMS_A_NEGATIVE", 10**9 if request.param == "whole rows" else 0)
    return request.param


def test_beta():
    assert 256 / 3415 == pytest.approx(0.0749634, abs=1e-7)
    assert gbce_beta(3416, 256, 0.75) == pytest.approx(0.3062225, abs=1e-7)
    assert gbce_beta(3416, 256, 0.0) == 1 and gbce_beta(3416, 256, 1.0) == pytest.approx(256 / 3415)
    assert gbce_beta(5, 99, 1.0) == 1  # no more than all other items


def test_gbce_by_hand(way):
    """s+ = 1, s- = 0, β = 0.5: 0.5 log(1 + 1/e) + log 2, over two logits."""
    items = torch.tensor([[0.0], [1.0]])
    loss = gbce_loss(torch.ones(1, 1), items, torch.tensor([1]), torch.tensor([[0]]), beta=0.5)
    assert loss.item() == pytest.approx(0.849778 / 2, abs=1e-6)


def test_gbce_of_one_negative_is_bce(way):
    queries, items, targets, negatives = vectors(9, 4), vectors(6, 4, seed=1), torch.arange(9) % 6, torch.arange(9) % 5
    loss = gbce_loss(queries, items, targets, negatives[:, None], gbce_beta(6, 1, 0.0))
    torch.testing.assert_close(2 * loss.float(), bce_loss(queries, items[targets], items[negatives]))


def test_gbce_is_its_formula(way):
    """Negatives repeat within a row, and one item is nobody's."""
    targets = torch.arange(13) % 7
    negatives = torch.randint(7, (13, 5), generator=torch.Generator().manual_seed(0))
    assert any(len(row.unique()) < 5 for row in negatives)

    def plain(queries, items):
        own = (queries * items[targets]).sum(-1)
        others = (queries[:, None] * items[negatives]).sum(-1)
        return ((-0.3 * logsigmoid(own) - logsigmoid(-others).sum(-1)) / 6).sum() / 20

    inputs = vectors(13, 4), vectors(8, 4, seed=1)
    got = value_and_gradients(lambda q, e: gbce_loss(q, e, targets, negatives, 0.3, num_targets=20), *inputs)
    for ours, theirs in zip(got, value_and_gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gbce_without_targets(way):
    none = torch.zeros(0, dtype=torch.long)
    value, _, for_items = value_and_gradients(
        lambda q, e: gbce_loss(q, e, none, none.view(0, 3), 0.3), vectors(0, 4), vectors(8, 4)
    )
    assert value == 0 and not for_items.any()


def test_picked_scores_copy_no_vectors(monkeypatch):
    """60 targets with 30 negatives of width 50: nothing as large as 60 x 30 x 50, nor as 60 x 900 items."""
    monkeypatch.setattr(sampled_losses, "ITEMS_A_NEGATIVE", 0)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else [result]:
                largest = max(largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
            return result

    queries, items, targets = vectors(60, 50).requires_grad_(), vectors(900, 50).requires_grad_(), torch.arange(60)
    with Sizes():
        gbce_loss(queries, items, targets, draw_other_items(targets, 900, 30), 0.3).backward()
    assert largest == items.numel()


def test_own_negatives_are_all_others_alike():
    torch.manual_seed(0)
    targets = torch.arange(5).repeat(2000)
    drawn = draw_other_items(targets, 5, 4)
    counts = torch.zeros(5, 5).index_put_((targets[:, None].expand_as(drawn), drawn), torch.ones(()), accumulate=True)
    assert not counts.diagonal().any()
    share = counts[~torch.eye(5, dtype=torch.bool)] / (2000 * 4)
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 8000)
    with pytest.raises(ValueError, match="another item"):
        draw_other_items(torch.zeros(1, dtype=torch.long), 1, 4)


def test_every_item_once_is_the_full_softmax():
    targets, inputs = torch.arange(23) % 7, (vectors(23, 6), vectors(7, 6, seed=1))
    shuffled = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    got = value_and_gradients(
        lambda q, e: sampled_softmax_loss(q, e, targets, shuffled, torch.zeros(7), logits_per_chunk=35), *inputs
    )
    for ours, theirs in zip(
        got, value_and_gradients(lambda q, e: cross_entropy(q @ e.T, targets), *inputs), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("counts", [None, [5, 1, 2]])
def test_expected_denominator_is_the_full_one(counts):
    """Over every sample of two from three items, weighed by its probability; the target is item 1."""
    query, items, target = vectors(1, 4), vectors(3, 4, seed=1), torch.tensor([1])
    share = torch.ones(3) / 3 if counts is None else torch.tensor(counts) / sum(counts)
    scores = (query @ items.T)[0]
    expected = 0.0
    for sample in itertools.product(range(3), repeat=2):
        rows = torch.tensor(sample)
        loss = sampled_softmax_loss(query, items, target, rows, torch.log(2 * share[rows]).double())
        expected += share[rows].prod() * torch.exp(loss + scores[1])
    torch.testing.assert_close(expected.double(), scores.exp().sum(), rtol=1e-6, atol=0)


def test_a_sample_of_targets_alone_is_no_loss():
    """All negatives are accidental hits: nothing is left to compare with, and no gradient is NaN."""
    got = value_and_gradients(
        lambda q, e: sampled_softmax_loss(
            q, e, torch.zeros(3, dtype=torch.long), torch.zeros(2).long(), torch.zeros(2)
        ),
        vectors(3, 4),
        vectors(5, 4),
    )
    assert all(not x.any() for x in got)


def test_shared_negatives_follow_their_distribution():
    torch.manual_seed(0)
    for counts, share in ((None, torch.ones(4) / 4), (torch.tensor([6, 0, 3, 1]), torch.tensor([0.6, 0, 0.3, 0.1]))):
        rows, log_expected = draw_shared_items(4, 10_000, counts)
        torch.testing.assert_close(log_expected, torch.log(10_000 * share[rows]))
        assert (torch.bincount(rows, minlength=4) / 10_000 - share).abs().max() < 5 * math.sqrt(0.25 / 10_000)
