"""GRU4Rec's losses: values by hand, derivatives by chunks, what is no negative."""

import pytest
import torch

from retr_hf.model.pairwise_losses import bpr_max, pairwise_loss, top1, top1_max

OWN, OTHERS = (
    torch.tensor([[1.0]]).double(),
    torch.tensor([[0.0, 2.0]]).double(),
)  # r_i = 1, r_S = (0, 2): s = (0.119203, 0.880797)
ALL = torch.ones(1, 2, dtype=torch.bool)
LOSSES = {"top1": top1, "top1_max": top1_max, "bpr_max": bpr_max}


def test_values_by_hand():
    assert top1(OWN, OTHERS, ALL).item() == pytest.approx(1.241007, abs=1e-6)
    assert top1_max(OWN, OTHERS, ALL).item() == pytest.approx(1.600529, abs=1e-6)
    assert bpr_max(OWN, OTHERS, ALL, 0, 0).item() == pytest.approx(1.126928, abs=1e-6)
    assert bpr_max(OWN, OTHERS, ALL, 1, 0).item() == pytest.approx(1.126928 + 3.523188, abs=1e-6)


def test_elu_bends_negative_scores():
    """r = (1, -1) with parameter 0.5: -1 becomes 0.5 (e⁻¹ - 1) = -0.316060; one negative has the share 1."""
    got = bpr_max(OWN, torch.tensor([[-1.0]]).double(), ALL[:, :1], weight=2.0, elu=0.5)
    bent = 0.5 * (torch.tensor(-1.0).exp() - 1)
    assert got.item() == pytest.approx((torch.log1p(torch.exp(bent - 1)) + 2 * bent**2).item(), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_no_negative_counts_for_nothing(name):
    loss = LOSSES[name]
    with_target = torch.tensor([[0.0, 1.0, 2.0]]).double()
    real = torch.tensor([[True, False, True]])
    torch.testing.assert_close(loss(OWN, with_target, real), loss(OWN, OTHERS, ALL))
    assert torch.isfinite(loss(OWN, OTHERS, ~ALL)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_chunks_equal_the_whole(name):
    """Value and all derivatives against autograd over the T x K scores."""
    loss, generator = LOSSES[name], torch.Generator().manual_seed(0)
    targets, negatives = torch.arange(9) % 7, torch.tensor([1, 4, 4, 6])

    def vectors():
        return [torch.randn(rows, 3, generator=generator.manual_seed(rows)).requires_grad_() for rows in (9, 7)]

    (q, e), (q2, e2) = vectors(), vectors()
    by_chunks = pairwise_loss(q, e, targets, negatives, loss, 20, logits_per_chunk=8)
    scores = q2 @ e2[negatives].T
    own = (q2 * e2[targets]).sum(-1, keepdim=True)
    whole = loss(own, scores, negatives != targets[:, None]).sum() / 20
    torch.testing.assert_close(by_chunks, whole)
    by_chunks.backward()
    whole.backward()
    torch.testing.assert_close(q.grad, q2.grad)
    torch.testing.assert_close(e.grad, e2.grad)
