"""The best next items of many histories at once, read without padding as ``histories`` reads them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..errors import DataError
from .histories import USERS_AT_ONCE, batches, evaluating, read_histories, recent_items
from .sharding import take_rows

SCORES_AT_ONCE = 2**24  # 64 MB of float32
HISTORIES_AT_ONCE = 512  # of a batch


class Best(NamedTuple):
    """Of the users int [S] of a chunk the n best rows of the item table, best first, int64 [S, n], and their scores,
    float32 [S, n]: -inf where fewer may be recommended."""

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def best_items(
    model,
    item_embeddings: torch.Tensor,
    sequences,
    k: int,
    max_length: int = 50,
    exclude_seen: bool = True,
    candidates: np.ndarray | None = None,
) -> Iterator[Best]:
    """The k best items after each whole history, a chunk of users after the other, in their order.

    The model is put into evaluation mode and back. Of a batch and of a chunk no more than ``SCORES_AT_ONCE`` scores
    are held, or those of one user.

    Args:
        model, item_embeddings: as in ``histories.rank_histories``.
        sequences: ``item_ids`` [total] and ``offsets`` [U + 1], no row empty; nothing in them is a target.
        k: how many items, at most those there are.
        max_length: history items the model reads, the most recent ones.
        exclude_seen: leave the items of the whole history out.
        candidates: rows of the item table, int [C], the only ones that may come; None means all.

    Raises:
        DataError: an empty history, scores that are not finite.
    """
    table, device = model.candidate_vectors(item_embeddings), item_embeddings.device
    k, batch_size = min(k, len(table) - 1), max(1, min(HISTORIES_AT_ONCE, SCORES_AT_ONCE // len(table)))
    users_at_once = max(1, min(USERS_AT_ONCE, SCORES_AT_ONCE // 8 // k))  # whose rows become strings later
    barred = torch.zeros(len(table), device=device)
    if candidates is not None:
        barred.fill_(float("-inf"))[torch.as_tensor(candidates, device=device)] = 0
    barred[0] = float("-inf")
    read = np.minimum(np.diff(sequences.offsets), max_length)

    def best_of(users: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        row = read_histories(sequences, users, read[users], device, targets=0)
        queries = model.encode_users(sequence_ends=row.ends, item_embeddings=item_embeddings, **row.inputs)
        scores = (queries @ table.T).float()  # [S, M]
        values, offsets = take_rows((sequences.item_ids, sequences.offsets), users)
        values = values.astype(np.int64)
        if model.adds_scores:
            recent = torch.from_numpy(recent_items(values, offsets, max_length)).to(device)
            rows, added = model.added_scores(recent)
            scores.scatter_add_(1, rows, added.float())
        scores += barred
        if exclude_seen:
            owners = torch.from_numpy(np.repeat(np.arange(len(users)), np.diff(offsets))).to(device)
            scores[owners, torch.from_numpy(values).to(device)] = float("-inf")
        best = scores.topk(k, dim=1)  # NaN comes first
        if best.values.isnan().any() or (best.values == float("inf")).any():
            raise DataError("scores are not finite: expected finite weights and item vectors")
        return best.indices.cpu(), best.values.cpu()

    with evaluating(model):
        for start in range(0, len(read), users_at_once):
            users = np.arange(start, min(start + users_at_once, len(read)))
            by_length = users[np.argsort(read[users], kind="stable")]
            parts = [best_of(by_length[part]) for part in batches(read[by_length], batch_size)]
            items, scores = (torch.cat(each).numpy() for each in zip(*parts, strict=True))
            back = np.argsort(by_length, kind="stable")
            yield Best(users, items[back], scores[back])
