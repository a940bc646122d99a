"""The objectives, one function an equation. Letters: T targets, M candidate items, d width, τ temperature.

All return a scalar: the sum over the targets divided by ``num_targets``, the number of real targets in the global batch
(over gradient accumulation and processes), or the mean over the given rows where it is None. Vectors come in already
scaled: for cosine scores, normalised and the query divided by τ.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

LOGITS_PER_CHUNK = 2**23  # 32 MiB of float32: larger blocks are mapped and unmapped at every use on CPU


def _normalised(per_target: torch.Tensor, num_targets: int | torch.Tensor | None) -> torch.Tensor:
    total = per_target.sum()
    return total / (max(1, per_target.numel()) if num_targets is None else num_targets)


def bpr_loss(
    queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, num_targets: int | None = None
) -> torch.Tensor:
    """Bayesian personalised ranking, equation (8) of the RETR paper (Rendle et al., UAI 2009).

        -log σ(s⁺ - s⁻),    s± = q · e±

    queries, positives, negatives [T, d]. With one candidate only it is the softmax loss over {e⁺, e⁻}.
    """
    margin = (queries * (positives - negatives)).sum(-1).float()
    return _normalised(-nn.functional.logsigmoid(margin), num_targets)


def softmax_loss(
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    num_targets: int | None = None,
    logits_per_chunk: int = LOGITS_PER_CHUNK,
) -> torch.Tensor:
    """Cross-entropy over all given items.

        -log( exp(q · e⁺) / Σ_j exp(q · e_j) )

    queries [T, d], items [M, d], targets [T] rows of ``items``. Logits are made in chunks of at most
    ``logits_per_chunk`` and, where there is more than one, made again in the backward pass, so memory does not grow
    with T x M. With every item of the catalogue in ``items`` this is full softmax; with a batch's own items it is
    in-batch softmax over unique items, the every-step form of ``in_batch_contrastive_loss``.
    """

    def chunk_loss(chunk: torch.Tensor, chunk_targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy((chunk @ items.T).float(), chunk_targets, reduction="sum")

    rows = max(1, logits_per_chunk // max(1, items.shape[0]))
    if queries.shape[0] <= rows:
        total = chunk_loss(queries, targets)
    else:
        total = sum(
            checkpoint(chunk_loss, chunk, chunk_targets, use_reentrant=False, preserve_rng_state=False)
            for chunk, chunk_targets in zip(queries.split(rows), targets.split(rows), strict=True)
        )
    return _normalised(total, max(1, len(targets)) if num_targets is None else num_targets)


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
    return _normalised(nn.functional.cross_entropy(logits, positives, reduction="none"), num_targets)


def gather_rows(rows: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Rows [n_p, ...] of every process p in one tensor, with gradient, and the index of this process's first row.

    Processes may hold different numbers of rows. On one process the tensor itself comes back.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows, 0
    counts = torch.zeros(dist.get_world_size(), dtype=torch.long, device=rows.device)
    counts[dist.get_rank()] = len(rows)
    dist.all_reduce(counts)
    longest, counts = int(counts.max()), counts.tolist()
    padded = torch.cat([rows, rows.new_zeros(longest - len(rows), *rows.shape[1:])])
    gathered = _AllGather.apply(padded)
    whole = torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
    return whole, sum(counts[: dist.get_rank()])


class _AllGather(torch.autograd.Function):
    """[n, ...] of every process -> [P, n, ...]; backward sums what all processes want of this one's rows."""

    @staticmethod
    def forward(ctx, rows):
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def unique_across_processes(items: torch.Tensor, item_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each item of the global batch once: (vectors [M, d], row of each local item among them [m]).

    items [m, d], item_ids [m] with 0 for padding, which becomes no candidate (its entry in the second tensor is
    meaningless). An item read by several processes is represented by the first one's vector.
    """
    all_items, offset = gather_rows(items)
    all_ids, _ = gather_rows(item_ids)
    unique, inverse = torch.unique(all_ids, return_inverse=True)
    order = torch.arange(len(all_ids), device=all_ids.device)
    first = torch.full_like(unique, len(all_ids)).scatter_reduce_(0, inverse, order, "amin")
    padding = int((unique == 0).any())  # unique is sorted: padding, where present, is its first entry
    return all_items[first[padding:]], inverse[offset : offset + len(item_ids)] - padding
