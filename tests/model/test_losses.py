"""Each objective against arithmetic, and against its siblings."""

import math

import pytest
import torch

from retr_hf.model.losses import bpr_loss, in_batch_contrastive_loss, softmax_loss, unique_across_processes


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


def test_bpr_by_hand():
    loss = bpr_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 7.0]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), rel=1e-6)


def test_bpr_is_softmax_over_two():
    q, good, bad = vectors(1, 4), vectors(1, 4, seed=1), vectors(1, 4, seed=2)
    both = torch.cat([good, bad])
    torch.testing.assert_close(bpr_loss(q, good, bad), softmax_loss(q, both, torch.tensor([0])))


@pytest.mark.parametrize("chunk", [1, 7 * 5, 10**9])
def test_softmax_chunks_change_neither_loss_nor_gradient(chunk):
    q, items, targets = vectors(23, 6).requires_grad_(), vectors(7, 6, seed=1).requires_grad_(), torch.arange(23) % 7
    loss = softmax_loss(q, items, targets, logits_per_chunk=chunk)
    loss.backward()
    q2, items2 = q.detach().clone().requires_grad_(), items.detach().clone().requires_grad_()
    plain = torch.nn.functional.cross_entropy(q2 @ items2.T, targets)
    plain.backward()
    for got, want in ((loss, plain), (q.grad, q2.grad), (items.grad, items2.grad)):
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


def test_global_normaliser_makes_parts_add_up():
    q, items, targets = vectors(10, 4), vectors(5, 4, seed=1), torch.arange(10) % 5
    parts = softmax_loss(q[:3], items, targets[:3], 10) + softmax_loss(q[3:], items, targets[3:], 10)
    torch.testing.assert_close(parts, softmax_loss(q, items, targets))


def test_no_target_is_no_loss():
    assert softmax_loss(vectors(0, 4), vectors(5, 4), torch.zeros(0, dtype=torch.long)).item() == 0.0


def test_contrastive_by_hand():
    """Rows 0 and 1 share their next item: neither is the other's negative; compat adds exp(0) for it."""
    logits = [[2.0, 9.0, 1.0], [9.0, 3.0, -1.0], [0.5, 0.25, 4.0]]
    ids, rows = torch.tensor([5, 5, 8]), torch.arange(3)
    queries, keys = torch.tensor(logits), torch.eye(3)

    def expected(extra):
        terms = [
            -math.log(math.exp(2) / (math.exp(2) + math.exp(1) + extra)),
            -math.log(math.exp(3) / (math.exp(3) + math.exp(-1) + extra)),
            -math.log(math.exp(4) / (math.exp(4) + math.exp(0.5) + math.exp(0.25))),
        ]
        return sum(terms) / 3

    for compat in (False, True):
        loss = in_batch_contrastive_loss(queries, keys, ids, ids, rows, unisrec_compat=compat)
        assert loss.item() == pytest.approx(expected(1.0 if compat else 0.0), rel=1e-6)


def test_contrastive_over_unique_items_is_softmax_over_them():
    queries, keys, ids = vectors(6, 4), vectors(6, 4, seed=1), torch.arange(6) + 3
    rows = torch.arange(6)
    torch.testing.assert_close(
        in_batch_contrastive_loss(queries, keys, ids, ids, rows), softmax_loss(queries, keys, rows)
    )


def test_unique_items_leave_padding_out_and_keep_the_first():
    items, ids = vectors(5, 2), torch.tensor([0, 9, 4, 9, 0])
    unique, row = unique_across_processes(items, ids)
    assert torch.equal(unique, items[[2, 1]])  # sorted by id: 4, 9
    assert row[[1, 2, 3]].tolist() == [1, 0, 1]
