"""Negatives from every process of a run, with gradient: what makes a contrast over the global batch."""

import torch
import torch.distributed as dist


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


def unique_across_processes(
    items: torch.Tensor, item_ids: torch.Tensor, values: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Each item of the global batch once: (vectors [M, d], their ids [M] ascending, row of each local item among them
    [m], their ``values`` [M]).

    items [m, d], item_ids [m] with 0 for padding, which becomes no candidate (its entry in the third tensor is
    meaningless), values [m] of the items. An item read by several processes is represented by the first one's vector.
    """
    all_items, offset = gather_rows(items)
    all_ids, _ = gather_rows(item_ids)
    unique, inverse = torch.unique(all_ids, return_inverse=True)
    order = torch.arange(len(all_ids), device=all_ids.device)
    first = torch.full_like(unique, len(all_ids)).scatter_reduce_(0, inverse, order, "amin")
    padding = int((unique == 0).any())  # unique is sorted: padding, where present, is its first entry
    first = first[padding:]
    row = inverse[offset : offset + len(item_ids)] - padding
    if values is not None:
        values = gather_rows(values)[0].index_select(0, first)
    return all_items.index_select(0, first), unique[padding:], row, values
