"""Each objective against arithmetic, and against its siblings."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from retr_hf.model import losses
from retr_hf.model.losses import bce_loss, bpr_loss, chunked_loss, in_batch_contrastive_loss, softmax_loss


def vectors(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradients(loss, *inputs):
    """Twice the loss, so that the gradient of the sum is not 1, and its gradients."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    value = 2 * loss(*inputs)
    return value.detach(), *torch.autograd.grad(value, inputs)


def test_bpr_by_hand():
    loss = bpr_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 5.0]]), torch.tensor([[1.0, 7.0]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.0)), rel=1e-6)


def test_bpr_is_softmax_over_two():
    q, good, bad = vectors(1, 4), vectors(1, 4, seed=1), vectors(1, 4, seed=2)
    both = torch.cat([good, bad])
    torch.testing.assert_close(bpr_loss(q, good, bad), softmax_loss(q, both, torch.tensor([0])))


def test_bce_by_hand():
    """Zero weights cost 2 log 2 a target; s+ = 1, s- = 0 the same but for the positive."""
    assert bce_loss(torch.zeros(3, 4), vectors(3, 4), vectors(3, 4)).item() == pytest.approx(2 * math.log(2))
    loss = bce_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 7.0]]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)) + math.log(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 5 * 7, 8 * 7, 10**9, None])
def test_softmax_chunks_change_neither_loss_nor_gradient(chunk, dtype):
    queries, items, targets = vectors(23, 6, dtype=dtype), vectors(7, 6, seed=1, dtype=dtype), torch.arange(23) % 7
    got = value_and_gradients(lambda q, e: softmax_loss(q, e, targets, logits_per_chunk=chunk), queries, items)
    plain = value_and_gradients(lambda q, e: cross_entropy(q @ e.T, targets), queries, items)
    for ours, theirs in zip(got, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_softmax_of_huge_scores():
    """Scores of ±1e4: a probability underflows to 0, its logarithm does not."""
    queries, items = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0], [-1.0]])
    loss, for_queries, for_items = value_and_gradients(
        lambda q, e: softmax_loss(q, e, torch.tensor([1, 1]), logits_per_chunk=2), queries, items
    )
    assert loss.item() == 2e4  # twice the mean of 2e4 and 0
    assert for_queries.tolist() == [[2.0], [0.0]] and for_items.tolist() == [[1e4], [-1e4]]


@pytest.mark.parametrize("needed", [(True, False), (False, True), (False, False)])
def test_softmax_gives_the_gradients_that_are_needed(needed):
    queries, items, targets = vectors(9, 4), vectors(5, 4, seed=1), torch.arange(9) % 5
    _, *expected = value_and_gradients(lambda q, e: softmax_loss(q, e, targets), queries, items)
    queries.requires_grad_(needed[0])
    items.requires_grad_(needed[1])
    loss = 2 * softmax_loss(queries, items, targets, logits_per_chunk=10)
    assert loss.requires_grad == any(needed)
    if any(needed):
        loss.backward()
    for got, want, wanted in zip((queries.grad, items.grad), expected, needed, strict=True):
        assert (got is not None) == wanted
        if wanted:
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("autocast", [False, True])
def test_constant_columns_count_in_the_score_and_have_no_gradient(autocast, monkeypatch):
    queries, items, targets = vectors(23, 6), vectors(7, 6, seed=1), torch.arange(23) % 7
    made = []
    monkeypatch.setattr(losses.torch, "zeros_like", lambda x, **kw: made.append(x.shape) or x.new_zeros(x.shape, **kw))

    def loss(q, e):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            return softmax_loss(q, e, targets, logits_per_chunk=5 * 7, constant_columns=4)

    got = value_and_gradients(loss, queries, items)
    monkeypatch.undo()
    learned = torch.tensor([1.0, 1, 0, 0, 0, 0])
    exact = value_and_gradients(
        lambda q, e: cross_entropy(q @ (e * learned + (e * (1 - learned)).detach()).T, targets), queries, items
    )
    for ours, theirs in zip(got, exact, strict=True):
        torch.testing.assert_close(ours, theirs, **(dict(rtol=0.02, atol=0.01) if autocast else {}))
    assert not got[2][:, 2:].any() and got[2][:, :2].any()
    assert made == [(23, 6), (7, 2)]  # what is added up


@pytest.mark.parametrize(("wanted", "products"), [(True, 3), (False, 1)])
def test_softmax_multiplies_three_times_or_once(wanted, products):
    queries, items, targets = vectors(20, 4).requires_grad_(wanted), vectors(5, 4, seed=1), torch.arange(20) % 5
    items.requires_grad_(wanted)

    class Products(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.found += any(name in str(function) for name in ("aten.mm", "aten.addmm", "aten.matmul"))
            return function(*args, **(kwargs or {}))

    with Products() as counter:
        loss = softmax_loss(queries, items, targets, logits_per_chunk=10 * 5)
        if wanted:
            loss.backward()
        with torch.no_grad():
            softmax_loss(queries, items, targets, logits_per_chunk=10**9)  # one chunk, nothing to derive
    assert counter.found == 2 * products + 1


@pytest.mark.parametrize("chunk", [8 * 400, None])
def test_softmax_memory_stays_within_a_chunk(chunk, monkeypatch, largest_tensor):
    """A chunk of its own choice is no less than LEAST_ROWS rows."""
    monkeypatch.setitem(losses.LOGITS_PER_CHUNK, "cpu", 10)
    monkeypatch.setattr(losses, "LEAST_ROWS", 8)
    queries, items = vectors(300, 2).requires_grad_(), vectors(400, 2, seed=1).requires_grad_()
    with largest_tensor() as largest:
        softmax_loss(queries, items, torch.arange(300), logits_per_chunk=chunk).backward()
    assert largest.numel == 8 * 400  # not 300 x 400


def test_softmax_under_autocast_adds_up_in_float32():
    queries, items, targets = vectors(40, 6), vectors(7, 6, seed=1), torch.arange(40) % 7
    exact = value_and_gradients(lambda q, e: cross_entropy(q @ e.T, targets), queries, items)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = value_and_gradients(lambda q, e: softmax_loss(q, e, targets, logits_per_chunk=21), queries, items)
    assert (rough[1] - exact[1]).abs().max() > 1e-4  # the products were made in bfloat16
    for ours, theirs in zip(rough, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01)


def test_softmax_compiles():
    targets = torch.arange(23) % 7

    def loss(queries, items):
        return 3 * softmax_loss(2 * queries, items, targets, logits_per_chunk=35)

    inputs = vectors(23, 6), vectors(7, 6, seed=1)
    compiled = torch.compile(loss, backend="aot_eager")
    for ours, theirs in zip(value_and_gradients(compiled, *inputs), value_and_gradients(loss, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_any_row_loss_in_chunks():
    """Σ_t (s_t Σ_j z_tj²): a loss whose rows also hold a score of their own."""

    def squares(logits, chunk, own):
        by_row = logits.square().sum(dim=1)
        logits.mul_(2 * own[:, None])
        return (own * by_row).sum(), by_row

    inputs = vectors(11, 3), vectors(4, 3, seed=1), vectors(11, seed=2)
    got = value_and_gradients(lambda q, e, own: chunked_loss(q, e, squares, own, logits_per_chunk=12), *inputs)
    plain = value_and_gradients(lambda q, e, own: (own * (q @ e.T).square().sum(1)).sum(), *inputs)
    for ours, theirs in zip(got, plain, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_global_normaliser_makes_parts_add_up():
    q, items, targets = vectors(10, 4), vectors(5, 4, seed=1), torch.arange(10) % 5
    parts = softmax_loss(q[:3], items, targets[:3], 10) + softmax_loss(q[3:], items, targets[3:], 10)
    torch.testing.assert_close(parts, softmax_loss(q, items, targets))


def test_no_target_is_no_loss():
    none = torch.zeros(0, dtype=torch.long)
    loss, for_queries, for_items = value_and_gradients(
        lambda q, e: softmax_loss(q, e, none), vectors(0, 4), vectors(5, 4)
    )
    assert loss.item() == 0 and for_queries.shape == (0, 4) and torch.equal(for_items, torch.zeros(5, 4))


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
