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
    that scores everything alike gets the worst rank and not the best. Decided in ``not_below`` and nowhere else.

Rounding
    Ranks depend neither on the chunk size nor on the device: scores are float64 sums rounded once to float32, and
    products in float32 decide only what they can be proven to decide. How is told in ``comparison``.

A score that is not finite raises ``DataError``: no comparison with NaN is true, so it would silently give rank 1.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .comparison import Comparison, longest_vectors, not_below, pair_scores, score_memory
from .given import Given

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
    item_chunk: int = 4096,
    given: Given | None = None,
) -> dict[str, np.ndarray]:
    """Ranks among the whole catalogue, both protocols from one pass over the scores.

    Never holds more than [user_chunk, item_chunk] scores and as many flags. The work runs on the device of the
    queries; ``items`` may stay elsewhere and is then moved chunk by chunk.

    Args:
        queries: [U, D], or a function from a slice of users to their [B, D], so that the encoder runs chunk by chunk.
        items: [M, D], row 0 padding.
        targets: int [U], in 1 .. M-1.
        seen: histories without the target, ``(values, offsets)``; repeated items and zeros are ignored.
        user_chunk: users scored at a time.
        item_chunk: items scored at a time.
        given: what some items are given beside the product (a repeat term, a transition memory), or None.

    Returns:
        ``{"full": int64 [U], "full-unseen": int64 [U]}``, 1-based; without ``seen`` only ``full``.

    Raises:
        DataError: indices outside the table, offsets that do not fit, scores that are not finite.
    """
    targets = _targets(targets, len(items))
    seen = None if seen is None else _ragged(seen, len(targets), len(items), "seen")
    lengths = longest_vectors(items, item_chunk)
    full, unseen = torch.ones_like(targets), torch.ones_like(targets)  # the target itself
    memory = None

    for users, query in _chunks(queries, len(targets), user_chunk):
        target, row = targets[users].to(query.device), torch.arange(len(query), device=query.device)  # [B], [B]
        target_score = pair_scores(query, items[target.to(items.device)].to(query.device))  # [B]
        if given is not None:
            target_score = target_score + given.of_targets[users].to(query.device)
            given_row, given_item = given.of_chunk(users, query.device)
        if memory is None:
            memory = score_memory(len(query), min(item_chunk, len(items) - 1), query.device)
        comparison = Comparison(query, target_score, memory)
        if seen is not None:
            seen_row, seen_item = _seen_by(seen, users, query.device)  # [K], [K]

        for start, longest in zip(range(1, len(items), item_chunk), lengths, strict=True):
            table = items[start : start + item_chunk].to(query.device)  # [C, D]
            before, flags = comparison.with_chunk(table, longest, _within(row, target, start, len(table)))
            if given is not None:  # the product alone does not decide about these
                flags[_within(given_row, given_item, start, len(table))] = 0
                before = flags.sum(dim=1).long()
            full[users] += before.cpu()
            if seen is not None:
                flags[_within(seen_row, seen_item, start, len(table))] = 0
                unseen[users] += flags.sum(dim=1).long().cpu()
        if given is not None:
            before, new = given.before(users, query, items, target_score)
            full[users] += before
            unseen[users] += new

    ranks = {"full": full.numpy()}
    return ranks if seen is None else ranks | {"full-unseen": unseen.numpy()}


@torch.no_grad()
def sampled_ranks(
    queries: Queries,
    items: Tensor,
    targets: Indices,
    negatives: Ragged,
    user_chunk: int = 256,
    given: Given | None = None,
) -> dict[str, np.ndarray]:
    """Ranks of the target among itself and the user's stored negatives.

    Never holds more than [candidates of a user chunk, D] vectors. A user without any negative has rank 1.

    Args:
        queries, items, targets: as in ``full_ranks``.
        negatives: ``(values, offsets)``, items in 1 .. M-1 without the target; users may have different numbers.
        user_chunk: users scored at a time.
        given: as in ``full_ranks``.

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
        target = items[targets[users].to(items.device)].to(query.device)  # [B, D]
        target_score = pair_scores(query, target)  # [B]
        if given is not None:
            target_score = target_score + given.of_targets[users].to(query.device)
        chunk = slice(int(offsets[users.start]), int(offsets[users.stop]))
        row, item = (owner[chunk] - users.start).to(query.device), values[chunk].to(query.device)  # [K], [K]
        scores = pair_scores(query[row], items[item.to(items.device)].to(query.device))  # [K]
        if given is not None:
            scores = scores + given.of_pairs(owner[chunk], values[chunk]).to(query.device)
        ranks[users] += torch.bincount(row[not_below(scores, target_score[row])], minlength=len(query)).cpu()

    return {"sampled": ranks.numpy()}


def _chunks(queries: Queries, num_users: int, size: int) -> Iterator[tuple[slice, Tensor]]:
    """Slices of users and their queries [B, D]."""
    if not callable(queries) and len(queries) != num_users:
        raise DataError(f"one query a target is needed: got {len(queries)} queries and {num_users} targets")
    for start in range(0, num_users, size):
        users = slice(start, min(start + size, num_users))
        query = queries(users) if callable(queries) else queries[users]
        if query.ndim != 2 or len(query) != users.stop - users.start:
            expected = f"[{users.stop - users.start}, D]"
            raise DataError(f"queries for users {users.start}:{users.stop} must be {expected}, got {list(query.shape)}")
        yield users, query


def _seen_by(seen: tuple[Tensor, Tensor], users: slice, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row of the chunk [K] and seen item [K], as often as it was seen."""
    values, offsets = seen
    bounds = offsets[users.start : users.stop + 1]
    row = torch.repeat_interleave(torch.arange(len(bounds) - 1), bounds.diff())
    return row.to(device), values[int(bounds[0]) : int(bounds[-1])].to(device)


def _within(row: Tensor, item: Tensor, start: int, size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of those pairs whose item is in the chunk."""
    column = item - start
    inside = ((column >= 0) & (column < size)).nonzero().squeeze(1)
    return row[inside], column[inside]


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
