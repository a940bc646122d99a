"""Rank of each user's target among the candidates, by full ranking or among stored negatives.

Every recommender here scores by a product, s(u, i) = q_u · e_i, of ``queries`` [U, D] and an item table ``items``
[M, D] whose row 0 is padding and never a candidate (popularity: q = 1, e = counts). Legend: U users, B users of a
chunk, M rows of the item table, C items of a chunk, D width, K candidates or seen items of a chunk in one flat list.

Protocols
    full          all items 1 .. M-1 are candidates, those of the user's history too (RecBole, UniSRec)
    full-unseen   items of the user's history are taken out; the target always stays, even where it is a repeat
    sampled       the target and the user's stored negatives
Numbers of different protocols are not comparable.

Ties
    r_u = #{candidates i : s(u, i) >= s(u, target)}: equal scores rank the target last (pessimistic), so that a model
    that scores everything alike gets the worst rank and not the best. Decided in ``_not_below`` and nowhere else.

Rounding
    The sum over D in a matrix product depends on the shape of the chunk and on the device, so two items with the same
    vector (the same text) could get scores an ulp apart, and ranks would depend on the chunk size. Therefore scores
    are summed in float64 and rounded once to float32, in which they are compared: for float32 (or lower) inputs the
    order of the sum shows in about one of 2^25 scores. Devices without float64 (mps) sum in float32.

A score that is not finite raises ``DataError``: no comparison with NaN is true, so it would silently give rank 1.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError

Indices: TypeAlias = Tensor | np.ndarray
Queries: TypeAlias = Tensor | Callable[[slice], Tensor]
Ragged: TypeAlias = tuple[Indices, Indices]  # values [K], offsets [U + 1]; values[offsets[u] : offsets[u + 1]] are u's


@torch.no_grad()
def full_ranks(
    queries: Queries,
    items: Tensor,
    targets: Indices,
    seen: Ragged | None = None,
    user_chunk: int = 1024,
    item_chunk: int = 16384,
) -> dict[str, np.ndarray]:
    """Ranks among the whole catalogue, both protocols from one pass over the scores.

    Never holds more than [user_chunk, item_chunk] scores. The work runs on the device of the queries; ``items`` may
    stay elsewhere and is then moved chunk by chunk.

    Args:
        queries: [U, D], or a function from a slice of users to their [B, D], so that the encoder runs chunk by chunk.
        items: [M, D], row 0 padding.
        targets: int [U], in 1 .. M-1.
        seen: histories without the target, ``(values, offsets)``; repeated items and zeros are ignored.
        user_chunk: users scored at a time.
        item_chunk: items scored at a time.

    Returns:
        ``{"full": int64 [U], "full-unseen": int64 [U]}``, 1-based; without ``seen`` only ``full``.

    Raises:
        DataError: indices outside the table, offsets that do not fit, scores that are not finite.
    """
    targets = _targets(targets, len(items))
    seen = None if seen is None else _ragged(seen, len(targets), len(items), "seen")
    full, among_seen = torch.zeros_like(targets), torch.zeros_like(targets)

    for users, query in _chunks(queries, len(targets), user_chunk):
        target = targets[users].to(query.device)  # [B]
        target_score = _row_scores(query, items, target)  # [B]
        above = torch.zeros_like(target)
        above_seen = torch.zeros_like(target)
        if seen is not None:
            seen_row, seen_item = _distinct_seen(seen, users, targets[users])  # [K], [K], sorted by item

        for start in range(1, len(items), item_chunk):
            table = items[start : start + item_chunk].to(query)  # [C, D]
            scores = _rounded(query @ table.T, query, table)  # [B, C]
            # The target meets itself with the very number it is compared with: counted once, whatever the rounding.
            row = ((target >= start) & (target < start + len(table))).nonzero().squeeze(1)
            scores[row, target[row] - start] = target_score[row]
            not_below = _not_below(scores, target_score[:, None])
            above += not_below.sum(dim=1)
            if seen is not None:
                low, high = torch.searchsorted(seen_item, torch.tensor([start, start + len(table)])).tolist()
                row, column = seen_row[low:high].to(query.device), seen_item[low:high].to(query.device) - start
                above_seen.index_add_(0, row, not_below[row, column].long())

        full[users], among_seen[users] = above.cpu(), above_seen.cpu()

    ranks = {"full": full.numpy()}
    return ranks if seen is None else ranks | {"full-unseen": (full - among_seen).numpy()}


@torch.no_grad()
def sampled_ranks(
    queries: Queries, items: Tensor, targets: Indices, negatives: Ragged, user_chunk: int = 256
) -> dict[str, np.ndarray]:
    """Ranks of the target among itself and the user's stored negatives.

    Never holds more than [candidates of a user chunk, D] vectors. A user without any negative has rank 1.

    Args:
        queries, items, targets: as in ``full_ranks``.
        negatives: ``(values, offsets)``, items in 1 .. M-1 without the target; users may have different numbers.
        user_chunk: users scored at a time.

    Returns:
        ``{"sampled": int64 [U]}``, 1-based.

    Raises:
        DataError: as in ``full_ranks``; also a negative that is padding or the user's own target.
    """
    targets = _targets(targets, len(items))
    values, offsets = _ragged(negatives, len(targets), len(items), "negatives")
    owner = torch.repeat_interleave(torch.arange(len(targets)), offsets.diff())  # [K]
    if wrong := int(((values == 0) | (values == targets[owner])).sum()):
        raise DataError(f"{wrong} sampled negatives are padding (0) or the user's own target: prepare the domain again")
    ranks = torch.ones_like(targets)

    for users, query in _chunks(queries, len(targets), user_chunk):
        target_score = _row_scores(query, items, targets[users].to(query.device))  # [B]
        chunk = slice(int(offsets[users.start]), int(offsets[users.stop]))
        row, item = (owner[chunk] - users.start).to(query.device), values[chunk].to(query.device)  # [K], [K]
        not_below = _not_below(_row_scores(query[row], items, item), target_score[row])  # [K]
        ranks[users] += torch.bincount(row[not_below], minlength=len(query)).cpu()

    return {"sampled": ranks.numpy()}


def _not_below(scores: Tensor, target_scores: Tensor) -> Tensor:
    """Which candidates stand before the target: those with a higher score, and those with the same one."""
    return scores >= target_scores


def _row_scores(query: Tensor, items: Tensor, index: Tensor) -> Tensor:
    """s(b, index_b) [B]: one product a row, summed and rounded like the product of a chunk."""
    vectors = items[index.to(items.device)].to(query)  # [B, D]
    return _rounded((query * vectors).sum(dim=-1), query, vectors)


def _rounded(scores: Tensor, query: Tensor, vectors: Tensor) -> Tensor:
    scores = scores.float()
    if scores.numel() and not torch.stack(scores.aminmax()).isfinite().all():
        cause = "their products are too large for float32"
        if not query.isfinite().all():
            cause = "the queries hold NaN or infinite values: the encoder gave them, see the log of its training"
        elif not vectors.isfinite().all():
            cause = "the item vectors hold NaN or infinite values: look at the item embeddings and the item encoder"
        raise DataError(f"scores must be finite to be ranked, but {cause}")
    return scores


def _chunks(queries: Queries, num_users: int, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of users and their queries [B, D], in the type that scores are summed in."""
    if not callable(queries) and len(queries) != num_users:
        raise DataError(f"one query a target is needed: got {len(queries)} queries and {num_users} targets")
    for start in range(0, num_users, size):
        users = slice(start, min(start + size, num_users))
        query = queries(users) if callable(queries) else queries[users]
        if query.ndim != 2 or len(query) != users.stop - users.start:
            expected = f"[{users.stop - users.start}, D]"
            raise DataError(f"queries for users {users.start}:{users.stop} must be {expected}, got {list(query.shape)}")
        yield users, query.to(torch.float32 if query.device.type == "mps" else torch.float64)


def _distinct_seen(seen: tuple[Tensor, Tensor], users: slice, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each (row of the chunk, seen item) once, without the user's own target, sorted by item: padding comes first,
    before the chunk that starts at item 1."""
    values, offsets = seen
    size = len(target)
    bounds = offsets[users.start : users.stop + 1]
    item = values[int(bounds[0]) : int(bounds[-1])]  # [K]
    row = torch.repeat_interleave(torch.arange(size), bounds.diff())  # [K]
    key = torch.unique((item * size + row)[item != target[row]])
    return key % size, key // size


def _targets(targets: Indices, num_rows: int) -> Tensor:
    targets = _long(targets)
    if targets.ndim != 1 or len(targets) == 0:
        raise DataError(f"targets must be a flat array of at least one user, got shape {list(targets.shape)}")
    if (low := int(targets.min())) < 1 or int(targets.max()) >= num_rows:
        raise DataError(f"targets must lie in 1 .. {num_rows - 1} (0 is padding), got {low} .. {int(targets.max())}")
    return targets


def _ragged(ragged: Ragged, num_users: int, num_rows: int, name: str) -> tuple[Tensor, Tensor]:
    values, offsets = map(_long, ragged)
    fits = len(offsets) == num_users + 1 and offsets[0] == 0 and offsets[-1] == len(values)
    if not fits or (offsets.diff() < 0).any():
        raise DataError(
            f"{name}: offsets must be {num_users + 1} ascending numbers from 0 to {len(values)} (users + 1, number of "
            f"values), got {len(offsets)}: {offsets[:3].tolist()} .. {offsets[-1:].tolist()}"
        )
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= num_rows):
        low, high = int(values.min()), int(values.max())
        raise DataError(f"{name}: items must lie in 0 .. {num_rows - 1}, got {low} .. {high}: is it another catalogue?")
    return values, offsets


def _long(values: Indices) -> Tensor:
    """int64 on the CPU; arrays are copied, for those read from parquet are not writable."""
    return values.detach().cpu().long() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.int64))
