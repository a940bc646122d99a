"""The candidates of a pre-training step in a batch that mixes domains: those of its own domain.

What is evaluated is a ranking within one catalogue. Among the items of all domains a target is told apart from most by
its domain alone, which teaches next to nothing, and costs as much as the rest (recipes/results/LOG.md).
"""

import torch

from .losses import per_target, softmax_loss


def softmax_within_domains(
    queries: torch.Tensor,
    items: torch.Tensor,
    item_ids: torch.Tensor,
    targets: torch.Tensor,
    domain_offsets: torch.Tensor,
    num_targets: int | torch.Tensor | None = None,
    added: tuple[torch.Tensor, torch.Tensor] | None = None,
    constant_columns: int = 0,
    log_chances: torch.Tensor | None = None,
) -> torch.Tensor:
    """``losses.softmax_loss`` of each target over the items of its own domain.

    Args:
        queries, items: [T, d], [M, d].
        item_ids: [M] ascending ids over all domains; domain k has domain_offsets[k] + 1 .. domain_offsets[k + 1].
        targets: [T] rows of ``items``.
        domain_offsets: [D + 1].
        num_targets, constant_columns: as for ``softmax_loss``.
        added: as for ``softmax_loss``; rows of items of another domain are left out.
        log_chances: [M] or None.
    """
    starts = torch.searchsorted(item_ids, domain_offsets, right=True)  # [D + 1]: a domain's items lie side by side
    domain = torch.searchsorted(starts, targets, right=True) - 1
    total = 0 * (queries.sum() + items.sum())  # in the graph also where this process has no target
    starts = starts.tolist()
    for number, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        (mine,) = (domain == number).nonzero(as_tuple=True)
        if not len(mine):
            continue
        beside = None
        if added is not None:
            rows = added[0][mine]
            rows = torch.where((rows >= start) & (rows < stop), rows - start, -1)
            beside = rows, added[1][mine]
        total = total + softmax_loss(
            queries[mine],
            items[start:stop],
            targets[mine] - start,
            num_targets=1,
            added=beside,
            constant_columns=constant_columns,
            log_chances=None if log_chances is None else log_chances[start:stop],
        )
    return per_target(total, len(targets), num_targets)
