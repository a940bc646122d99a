"""GRU4Rec's ranking losses: a target against K negatives that a whole batch shares.

Hidasi, Karatzoglou, Baltrunas, Tikk, *Session-based Recommendations with Recurrent Neural Networks*, ICLR 2016 (TOP1);
Hidasi, Karatzoglou, *Recurrent Neural Networks with Top-k Gains for Session-based Recommendations*, CIKM 2018 (the max
losses of GRU4Rec+). Letters as in losses.py; r a score, i the target, j its negatives.

    top1      mean_j [ σ(r_j - r_i) + σ(r_j²) ]
    top1_max  Σ_j s_j [ σ(r_j - r_i) + σ(r_j²) ]
    bpr_max   -log Σ_j s_j σ(r_i - r_j) + λ Σ_j s_j r_j²           scores through ELU first

with s = softmax over the negatives alone. A negative that is the row's own target counts for nothing.

NOTE: the authors' negatives are the other targets of the minibatch and ``n_sample`` extra items drawn ∝ count^α. A
batch of whole histories has thousands of targets, so ours are the extra items alone (``draw_shared_items``). NOTE: they
keep a negative that equals the target.
"""

from collections.abc import Callable

import torch
from torch import nn

from .losses import chunked_loss, per_target

PairwiseLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
EPSILON = 1e-24  # the authors', inside the logarithm


def top1(own: torch.Tensor, others: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """own [T, 1], others [T, K] scores, real bool [T, K], False for what is no negative -> [T]."""
    terms = (others - own).sigmoid() + others.square().sigmoid()
    return (terms * real).sum(-1) / real.sum(-1).clamp(min=1)


def top1_max(own: torch.Tensor, others: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """As ``top1``, each negative weighted by its share s of the softmax over the negatives."""
    return (_shares(others, real) * ((others - own).sigmoid() + others.square().sigmoid())).sum(-1)


def bpr_max(
    own: torch.Tensor, others: torch.Tensor, real: torch.Tensor, weight: float = 1.0, elu: float = 0.5
) -> torch.Tensor:
    """own [T, 1], others and real [T, K] -> [T]; weight λ ("bpreg"), elu the ELU's parameter, 0 for none."""
    if elu:
        own, others = nn.functional.elu(own, elu), nn.functional.elu(others, elu)
    shares = _shares(others, real)
    ranking = -torch.log((shares * (own - others).sigmoid()).sum(-1) + EPSILON)
    return ranking + weight * (shares * others.square()).sum(-1)


def _shares(others: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """s [T, K]; 0 for what is no negative, and all 0 for a row that has none."""
    return others.masked_fill(~real, torch.finfo(others.dtype).min).softmax(-1) * real


def pairwise_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    loss: PairwiseLoss,
    num_targets: int | torch.Tensor | None = None,
    logits_per_chunk: int | None = None,
) -> torch.Tensor:
    """One of the losses above over queries [T, d], items [M, d], targets [T] and shared negatives [K], rows of items.

    Memory does not grow with T x K: each chunk's derivative is taken where it is made (``chunked_loss``).
    """

    def of_chunk(logits, chunk, own):
        with torch.enable_grad():
            scores, mine = logits.detach().requires_grad_(), own[:, None].detach().requires_grad_()
            total = loss(mine, scores, negatives != targets[chunk, None]).sum()
            for_scores, for_own = torch.autograd.grad(total, (scores, mine))
        logits.copy_(for_scores)
        return total.detach(), for_own.squeeze(1)

    own = (queries * nn.functional.embedding(targets, items)).sum(-1)
    candidates = nn.functional.embedding(negatives, items)
    total = chunked_loss(queries, candidates, of_chunk, own, logits_per_chunk)
    return per_target(total, len(targets), num_targets)
