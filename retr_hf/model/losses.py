"""The objectives, one function an equation. Letters: T targets, M candidate items, d width, τ temperature.

All return a scalar: the sum over the targets divided by ``num_targets``, the number of real targets in the global batch
(over gradient accumulation and processes), or the mean over the given rows where it is None. Vectors come in already
scaled: for cosine scores, normalised and the query divided by τ. What samples its negatives is in sampled_losses.py.
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from torch.autograd.function import once_differentiable

# 8 MiB of float32 stay in a processor's cache from product to product; an accelerator wants fewer, larger launches.
LOGITS_PER_CHUNK = {"cpu": 2**21, "other": 2**26}
# Fewer would pass over all items, and over their gradient, for too little work: 4 rows of 450,000 are 6 times slower,
# 128 of 18,639 in bfloat16 1.2 to 1.4 times.
LEAST_ROWS = 256
# Rows of float32 logits begin 64 bytes apart or a multiple of that: with 12,101 columns side by side the first product
# took twice as long on an AVX2 processor, and few catalogues count a multiple of 16.
COLUMN_MULTIPLE = 16


def per_target(total: torch.Tensor, rows: int, num_targets: int | torch.Tensor | None) -> torch.Tensor:
    """The sum of the losses of ``rows`` targets, divided by ``num_targets`` or, where it is None, by ``rows``."""
    return total / (max(1, rows) if num_targets is None else num_targets)


def bpr_loss(
    queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, num_targets: int | None = None
) -> torch.Tensor:
    """Bayesian personalised ranking, equation (8) of the RETR paper (Rendle et al., UAI 2009).

        -log σ(s⁺ - s⁻),    s± = q · e±

    queries, positives, negatives [T, d]. With one candidate only it is the softmax loss over {e⁺, e⁻}.
    """
    margin = (queries * (positives - negatives)).sum(-1).float()
    return per_target(-nn.functional.logsigmoid(margin).sum(), len(margin), num_targets)


def bce_loss(
    queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, num_targets: int | None = None
) -> torch.Tensor:
    """Binary cross-entropy, the loss of SASRec (Kang and McAuley, ICDM 2018).

        -log σ(s⁺) - log(1 - σ(s⁻)),    s± = q · e±

    queries, positives, negatives [T, d]. It is ``gbce_loss`` with β = 1 and one negative, twice, for that one is a mean
    over its logits. NOTE: the authors add 1e-24 inside the logarithms; softplus needs no such floor.
    """
    positive, negative = (queries * positives).sum(-1).float(), (queries * negatives).sum(-1).float()
    losses = nn.functional.softplus(-positive) + nn.functional.softplus(negative)
    return per_target(losses.sum(), len(losses), num_targets)


def softmax_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    num_targets: int | None = None,
    logits_per_chunk: int | None = None,
    added: tuple[torch.Tensor, torch.Tensor] | None = None,
    constant_columns: int = 0,
    log_chances: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy over all given items.

        -log( exp(s⁺) / (exp(s⁺) + Σ_{j≠+} exp(s_j) / c_j) ),    s_j = q · e_j + Σ_{a: row_a = j} added_a

    queries [T, d], items [M, d], targets [T] rows of ``items``. added: rows of ``items`` [T, n], -1 for none, and what
    each adds to the score of its row [T, n], with gradient. constant_columns: as for ``chunked_loss``. log_chances [M]:
    log c_j, the chance of each item to be here; None is c_j = 1. With every item of the catalogue in ``items`` this is
    full softmax, with a sample and its chances an estimate of it, with a batch's own items in-batch softmax over unique
    items, the every-step form of ``in_batch_contrastive_loss``. Memory does not grow with T x M (``chunked_loss``).
    """

    def cross_entropy(logits, chunk, more):
        own = targets[chunk, None]
        if more is not None:
            real, places = added[0][chunk] >= 0, added[0][chunk].clamp(min=0)
            logits.scatter_add_(1, places, torch.where(real, more, 0))
        if log_chances is not None:
            logits.sub_(log_chances).scatter_add_(1, own, log_chances[own].to(logits.dtype))
        logits.sub_(logits.amax(dim=1, keepdim=True))
        score = logits.gather(1, own)
        total = logits.exp_().sum(dim=1, keepdim=True)  # one exponential an item, where log_softmax would cost two
        loss = (total.log() - score).sum()
        # The derivative of -log p⁺ towards the logits: p, less one at the target.
        logits.div_(total).scatter_add_(1, own, logits.new_full(own.shape, -1.0))
        return loss, None if more is None else torch.where(real, logits.gather(1, places), 0)

    more = None if added is None else added[1]
    total = chunked_loss(queries, items, cross_entropy, more, logits_per_chunk, constant_columns)
    return per_target(total, len(targets), num_targets)


RowLosses = Callable[[torch.Tensor, slice, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor | None]]


def chunked_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    row_losses: RowLosses,
    own_scores: torch.Tensor | None = None,
    logits_per_chunk: int | None = None,
    constant_columns: int = 0,
) -> torch.Tensor:
    """Σ_t ℓ(q_t · e_1, …, q_t · e_M, s_t), with its gradient, without ever holding the T x M logits.

    The derivative of each chunk of rows is taken where the chunk is made, so there are three products (logits, ∂/∂q,
    ∂/∂e) and none is repeated; backward multiplies by the gradient of the sum. Second derivatives do not exist.

    Args:
        queries, items: [T, d], [M, d].
        row_losses: called as ``(logits, chunk, own)`` with logits [t, M] of at least float32 (their rows lie apart, so
            they are not contiguous), the slice of rows they are, and s of those rows; it returns the sum of the losses
            and ∂/∂s (None without ``own_scores``), and leaves ∂/∂logits where the logits were.
        own_scores: s [T] or [T, n], more scores a row (that of its own target, say), or None.
        logits_per_chunk: most logits at once (at least one row); None is ``LOGITS_PER_CHUNK`` of the kind of device, or
            ``LEAST_ROWS`` rows where those are more.
        constant_columns: how many of the last columns of ``items`` are data and not learned; no gradient is made for
            them, which would be as large as they are with every chunk.
    """
    device, num_items = queries.device.type, max(1, len(items))
    if logits_per_chunk is None:
        logits_per_chunk = LOGITS_PER_CHUNK.get(device, LOGITS_PER_CHUNK["other"])
        logits_per_chunk = max(logits_per_chunk, LEAST_ROWS * num_items)
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else queries.dtype
    inputs, learned = (queries, items, own_scores), items.shape[1] - constant_columns
    if not torch.is_grad_enabled():
        inputs = (None if x is None else x.detach() for x in inputs)
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        return _ChunkedLoss.apply(*inputs, row_losses, max(1, logits_per_chunk // num_items), dtype, learned)


class _ChunkedLoss(torch.autograd.Function):
    """``dtype`` is that of the products; logits, losses and all that adds up have ``wide``, at least float32."""

    @staticmethod
    def forward(ctx, queries, items, own_scores, row_losses, rows, dtype, learned):
        wide = torch.promote_types(dtype, torch.float32)
        for_queries, for_items, for_own = (
            torch.zeros_like(x, dtype=wide) if needed else None
            for x, needed in zip((queries, items[:, :learned], own_scores), ctx.needs_input_grad[:3], strict=True)
        )
        vectors = items.to(dtype)
        apart = -(-len(items) // COLUMN_MULTIPLE) * COLUMN_MULTIPLE
        buffer = vectors.new_empty(min(rows, len(queries)), apart)[:, : len(items)]
        total = queries.new_zeros((), dtype=wide)
        for start in range(0, len(queries), rows):
            chunk = slice(start, start + rows)
            asked = queries[chunk].to(dtype)
            logits = torch.mm(asked, vectors.T, out=buffer[: len(asked)]).to(wide)
            loss, own_gradient = row_losses(logits, chunk, None if own_scores is None else own_scores[chunk].to(wide))
            total += loss
            gradient = logits.to(dtype)
            if for_queries is not None:
                for_queries[chunk] = gradient @ vectors
            if for_items is not None and dtype == wide:
                for_items.addmm_(gradient.T, asked[:, :learned])
            elif for_items is not None:
                for_items += gradient.T @ asked[:, :learned]
            if for_own is not None:
                for_own[chunk] = own_gradient
        ctx.save_for_backward(for_queries, for_items, for_own)
        ctx.constant_columns = items.shape[1] - learned
        ctx.dtypes = [None if x is None else x.dtype for x in (queries, items, own_scores)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        gradients = [None if x is None else (x * upstream).to(dtype) for x, dtype in gradients]
        if gradients[1] is not None and ctx.constant_columns:
            gradients[1] = nn.functional.pad(gradients[1], (0, ctx.constant_columns))
        return *gradients, None, None, None, None


def in_batch_contrastive_loss(
    queries: torch.Tensor,
    keys: torch.Tensor,
    query_ids: torch.Tensor,
    key_ids: torch.Tensor,
    positives: torch.Tensor,
    num_targets: int | None = None,
    unisrec_compat: bool = False,
) -> torch.Tensor:
    """UniSRec's contrastive terms (equations 5 and 6): one positive a row, the other rows' keys are the negatives.

        -log( exp(q · k⁺) / (exp(q · k⁺) + Σ_{j: id_j ≠ id} exp(q · k_j)) )

    queries [B, d], keys [K, d], query_ids [B] and key_ids [K] the true next item of each row, positives [B] the row of
    each query's own key. Keys are next items (sequence-item) or augmented views (sequence-sequence). Rows with the same
    next item are no negatives of each other.

    NOTE: the authors set those logits to 0 before the exponential, so each still adds 1 to the denominator;
    ``unisrec_compat=True`` does the same, the default leaves them out.
    """
    logits = (queries @ keys.T).float()
    rows = torch.arange(len(queries), device=queries.device)
    same = query_ids[:, None] == key_ids[None, :]
    same[rows, positives] = False
    logits = logits.masked_fill(same, 0.0 if unisrec_compat else float("-inf"))
    return per_target(nn.functional.cross_entropy(logits, positives, reduction="sum"), len(logits), num_targets)
