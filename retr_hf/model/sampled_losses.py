"""Objectives over sampled negatives, for catalogues where a softmax over all items is too dear.

Letters, scaling and ``num_targets`` as in losses.py; K negatives a target. What draws and what computes are apart:
every loss is a function of the negatives it is given.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .losses import chunked_loss, per_target

# Up to so many items a negative, whole rows of logits are cheaper than K scores picked one by one: measured on one core
# and on two, d = 256, K from 64 to 1,024. There a loss over all items, ``softmax_loss``, costs no more than this one.
ITEMS_A_NEGATIVE = 15


def gbce_beta(num_items: int, num_negatives: int, calibration: float) -> float:
    """β of gSASRec: what the positive weighs, so that training on a sample predicts calibrated probabilities.

        α = K / (|I| - 1),    β = α (t (1 - 1/α) + 1/α) = 1 - t (1 - α)

    The share α of the other items is sampled; calibration t = 0 leaves plain BCE (β = 1), t = 1 undoes all of the
    overconfidence that sampling brings (β = α). NOTE: the paper's |I| - 1; the authors' training code divides by
    |I| - 2. More negatives than other items count as all of them (α = 1).
    """
    sampling_rate = min(1.0, num_negatives / max(1, num_items - 1))
    return 1 - calibration * (1 - sampling_rate)


def draw_other_items(targets: torch.Tensor, num_items: int, num_negatives: int) -> torch.Tensor:
    """Uniform rows [T, K] of the item table, each target with its own, with replacement.

    NOTE: never the target itself, as α is derived; the authors draw from all items. Neither leaves a history out.

    Raises:
        ValueError: there is no other item.
    """
    if num_items < 2:
        raise ValueError(f"a target needs another item as its negative, and the table holds {num_items} in all")
    drawn = torch.randint(num_items - 1, (len(targets), num_negatives), device=targets.device)
    return drawn.add_(drawn >= targets[:, None])


def gbce_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    beta: float,
    num_targets: int | None = None,
) -> torch.Tensor:
    """Generalised binary cross-entropy (Petrov and Macdonald, gSASRec, RecSys 2023).

        ( -β log σ(s⁺) - Σ_k log(1 - σ(s⁻_k)) ) / (1 + K),    s = q · e

    queries [T, d], items [M, d], targets [T] and negatives [T, K] rows of ``items``, β by ``gbce_beta``. The mean over
    the 1 + K logits is the authors'. Memory grows with T x K and a chunk of logits, never with T x K x d or T x M.
    NOTE: the authors' first code reached -β log σ(s⁺) through a logit transformed in float64; a factor is the same.
    """
    wide = torch.promote_types(queries.dtype, torch.float32)
    own = (queries.to(wide) * nn.functional.embedding(targets, items)).sum(-1)
    if len(items) <= ITEMS_A_NEGATIVE * negatives.shape[1]:

        def negative_terms(logits, chunk, _):
            scores = logits.gather(1, negatives[chunk])
            logits.zero_().scatter_add_(1, negatives[chunk], scores.sigmoid())
            return nn.functional.softplus(scores).sum(), None

        against = chunked_loss(queries, items, negative_terms)
    else:
        against = nn.functional.softplus(_PickedScores.apply(queries.to(wide), items.to(wide), negatives)).sum()
    total = beta * nn.functional.softplus(-own).sum() + against
    return per_target(total / (1 + negatives.shape[1]), len(targets), num_targets)


class _PickedScores(torch.autograd.Function):
    """Scores [T, K] of queries [T, d] and the rows ``picked`` [T, K] of items [M, d], without a [T, K, d] tensor.

    Everything is a weighted sum of rows, which ``embedding_bag`` takes without copying them. The scores too: q · e_k is
    the derivative of Σ_k w_k e_k towards w_k in the direction q.
    """

    @staticmethod
    def forward(ctx, queries, items, picked):
        ctx.save_for_backward(queries, items, picked)
        with torch.enable_grad():
            weights = torch.zeros_like(picked, dtype=queries.dtype).requires_grad_()
            sums = nn.functional.embedding_bag(picked, items.detach(), mode="sum", per_sample_weights=weights)
            return torch.autograd.grad(sums, weights, queries.detach())[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        queries, items, picked = ctx.saved_tensors
        for_queries = for_items = None
        if ctx.needs_input_grad[0]:
            for_queries = nn.functional.embedding_bag(picked, items, mode="sum", per_sample_weights=upstream)
        if ctx.needs_input_grad[1]:  # one bag an item: the queries that picked it
            picked = picked.flatten()
            by_item = picked.int().argsort()  # half as long as in int64
            counts = torch.bincount(picked, minlength=len(items))
            for_items = nn.functional.embedding_bag(
                by_item // upstream.shape[1],
                queries,
                counts.cumsum(0) - counts,
                mode="sum",
                per_sample_weights=upstream.flatten()[by_item],
            )
        return for_queries, for_items, None


def draw_shared_items(
    num_items: int, num_negatives: int, counts: torch.Tensor | None = None, device: torch.device | str | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """K rows of the item table for a whole batch, with replacement: (rows [K], log(K q) of each [K]).

    q is uniform, or proportional to ``counts`` [M]. NOTE: an item with count 0 is never drawn, so the sum that the
    sample estimates runs over the counted items.
    """
    if counts is None:
        rows = torch.randint(num_items, (num_negatives,), device=device)
        share = torch.full((num_negatives,), 1 / num_items, device=device)
    else:
        probabilities = counts.to(device, torch.float64) / counts.sum()
        rows = torch.multinomial(probabilities, num_negatives, replacement=True)
        share = probabilities[rows].float()
    return rows, torch.log(num_negatives * share)


def sampled_softmax_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    log_expected: torch.Tensor,
    num_targets: int | None = None,
    logits_per_chunk: int | None = None,
) -> torch.Tensor:
    """Softmax over the target and K shared negatives, corrected for how often each is drawn (logQ).

        -s⁺ + log( exp(s⁺) + Σ_{k: id_k ≠ id⁺} exp(s_k - log(K q_k)) ),    s = q · e

    queries [T, d], items [M, d], targets [T] and negatives [K] rows of ``items``, log_expected [K] = log(K q_k), how
    often each negative is expected in the sample. The target is left out where it was drawn, and is not corrected: so
    the sum is an unbiased estimate of that of ``softmax_loss`` over all other items, and with every item drawn once
    (K q = 1) the two losses are one. Bengio and Senécal, 2008; for SASRec Klenitskiy and Vasilev, RecSys 2023.
    """

    def cross_entropy(logits, chunk, own):
        logits.sub_(log_expected).masked_fill_(negatives == targets[chunk, None], float("-inf"))
        normaliser = torch.logaddexp(logits.logsumexp(dim=1), own)
        logits.sub_(normaliser[:, None]).exp_()
        return (normaliser - own).sum(), torch.expm1(own - normaliser)

    own = (queries * nn.functional.embedding(targets, items)).sum(-1)
    candidates = nn.functional.embedding(negatives, items)
    total = chunked_loss(queries, candidates, cross_entropy, own, logits_per_chunk)
    return per_target(total, len(targets), num_targets)
