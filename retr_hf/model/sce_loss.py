"""Scalable cross-entropy: a softmax over the hardest items of random buckets, for very large catalogues.

Mezentsev, Gusak, Oseledets and Frolov, *Scalable Cross-Entropy Loss for Sequential Recommendations with Large Item
Catalogs*, RecSys 2024. Letters and scaling as in losses.py. Their names -> ours: n_buckets -> n_b, bucket_size_x
-> b_x, bucket_size_y -> b_y.
"""

import math

import torch
from torch import nn

from .losses import per_target


@torch.no_grad()
def sce_buckets(
    queries: torch.Tensor, items: torch.Tensor, bucket_items: int, num_buckets: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random directions, and what lies furthest along each: (states [n_b, b_x], items [n_b, b_y]), as row numbers.

        G ~ N(0, 1)^{n_b x d},    states = top-b_x of G Qᵀ,    items = top-b_y of G Eᵀ

    queries [T, d], items [M, d], both without padding. n_b = b_x = ⌊2√T⌋, the authors' rule, or ``num_buckets`` for
    n_b; b_x and b_y (``bucket_items``) are at most T and M. A state in no bucket gets no gradient: the share that does
    is ``len(states.unique()) / T``.

    NOTE: T counts real targets, where the authors' B x N counts padding too; their factor d^{-1/4} on G changes no
    choice and is left out; so is their option to mix G from the states.
    """
    by_rule = max(1, math.floor(2 * math.sqrt(len(queries))))
    directions = torch.randn(num_buckets or by_rule, queries.shape[1], device=queries.device, dtype=queries.dtype)
    states = (directions @ queries.T).topk(min(by_rule, len(queries)), sorted=False).indices
    return states, (directions @ items.T).topk(min(bucket_items, len(items)), sorted=False).indices


def sce_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    states: torch.Tensor,
    candidates: torch.Tensor,
    num_targets: int | None = None,
) -> torch.Tensor:
    """The mean, over the states in any bucket, of the largest of their buckets' cross-entropies.

        ℓ(t, b) = -s⁺ + log( exp(s⁺) + Σ_{j in bucket b, j ≠ target} exp(q_t · e_j) ),    mean over t of max_b ℓ(t, b)

    queries [T, d], items [M, d], targets [T], and the buckets: states [n_b, b_x] rows of ``queries``, candidates
    [n_b, b_y] rows of ``items``. One bucket of all states and all items makes it ``softmax_loss``.

    NOTE: the authors' mean over the chosen states counts for all T: it is multiplied by T / ``num_targets``, so that
    parts of a global batch weigh by their targets. Buckets are made within a part, so unlike the other objectives
    parts do not add up to the loss of the whole. A state counts as chosen by a mask of its own, where the authors ask
    whether its loss differs from 0.
    """
    if not len(queries):
        return per_target((queries.sum() + items.sum()).float() * 0, 0, num_targets)
    own = (queries * nn.functional.embedding(targets, items)).sum(-1).float()
    chosen_queries = nn.functional.embedding(states, queries)  # [n_b, b_x, d]
    logits = chosen_queries @ nn.functional.embedding(candidates, items).transpose(1, 2)  # [n_b, b_x, b_y]
    accidental = targets[states][:, :, None] == candidates[:, None, :]
    others = logits.float().masked_fill(accidental, torch.finfo(torch.float32).min).logsumexp(dim=-1)
    losses = nn.functional.softplus(others - own[states]).flatten()

    states = states.flatten()
    largest = torch.zeros_like(own).scatter_reduce(0, states, losses, "amax", include_self=False)
    chosen = torch.zeros_like(own, dtype=torch.bool).index_fill_(0, states, True)
    return per_target(largest[chosen].mean() * len(queries), len(queries), num_targets)
