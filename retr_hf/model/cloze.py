"""Cloze: a bidirectional body reads [mask] where it is to answer (BERT4Rec).

Sun, Liu, Wu, Pei, Lin, Ou, Jiang, *BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from
Transformer*, CIKM 2019. Letters: S histories, n columns, d width.

In training items of a history are replaced by [mask], and asked for there; afterwards a [mask] follows the history, and
the next item is asked for there:

    y = LN(GELU(z_t W_P + b_P)),    score of item i = y · e_i + b_i

The [mask] is a vector of its own, in no catalogue and never scored: in ``input_ids`` it is ``MASK``. Nothing else of
BERT4Rec is more than a setting of the body: ``direction="bidirectional"``, ``output_transform``, ``item_bias``.

NOTE: an asked place is always [mask], as in the authors' code (no 80/10/10 of BERT), and the oldest item makes room for
the last [mask] only where the history is as long as the model reads; RecBole drops it always.
NOTE: with a router the [mask] is routed as any token. Were it always kept, the last block's router would neither act
nor learn: of that block nothing but the answer at [mask] is read, and the route gates its query alone.
"""

from typing import NamedTuple

import torch

MASK = -1


class Asked(NamedTuple):
    """Rows with a [mask] at their ends: input_ids and attention_mask [B, N], length_groups, sequence_ends [S]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    length_groups: tuple[tuple[int, int], ...] | None
    sequence_ends: torch.Tensor


def ask_for_next(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    length_groups: tuple[tuple[int, int], ...] | None,
    longest: int,
) -> Asked:
    """Appends [mask] to histories in rows [B, N] padded on either side, or in groups of the row [1, T].

    longest: columns the model reads; a history of as many loses its oldest item. The result is padded on the right.
    """
    real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    if length_groups is None:
        rows, valid, ends = _append(input_ids, real.bool(), longest)
        count, columns = rows.shape
        return Asked(rows, valid.long(), None, ends + columns * torch.arange(count, device=rows.device))
    sizes = [count * columns for count, columns in length_groups]
    parts, begin = [], 0
    for ids, mask, group in zip(input_ids[0].split(sizes), real[0].split(sizes), length_groups, strict=True):
        rows, valid, ends = _append(ids.unflatten(0, group), mask.unflatten(0, group).bool(), longest)
        starts = begin + rows.shape[1] * torch.arange(len(rows), device=rows.device)
        parts.append((rows.flatten(), valid.long().flatten(), tuple(rows.shape), starts + ends))
        begin += rows.numel()
    flat_ids, flat_mask, groups, all_ends = zip(*parts, strict=True)
    return Asked(torch.cat(flat_ids)[None], torch.cat(flat_mask)[None], groups, torch.cat(all_ends))


def _append(ids: torch.Tensor, valid: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids and valid [S, n] -> ids and valid [S, n'], and the column of each [mask] [S]."""
    length, first = valid.sum(1), valid.int().argmax(1)
    kept = length.clamp(max=longest - 1)
    steps = torch.arange(min(ids.shape[1] + 1, longest), device=ids.device)
    source = (first + length - kept)[:, None] + steps
    moved = ids.gather(1, source.clamp(max=ids.shape[1] - 1))
    moved = torch.where(steps < kept[:, None], moved, 0)
    return torch.where(steps == kept[:, None], MASK, moved), steps <= kept[:, None], kept
