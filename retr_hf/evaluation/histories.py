"""Ranks of a model over the histories of a split: encode, rank in every protocol, on one process or many."""

import numpy as np
import torch

from .ranking import full_ranks, sampled_ranks
from .sharding import sharded_ranks, take_rows

USERS_AT_ONCE = 4096  # query vectors held at a time


@torch.no_grad()
def rank_histories(
    model,
    item_embeddings: torch.Tensor,
    sequences,
    negatives=None,
    max_length: int = 50,
    batch_size: int = 512,
) -> dict[str, np.ndarray]:
    """Rank of each sequence's last item given the items before it.

    Users are encoded in order of length, so that a batch is padded to its own longest history only. The model is put
    into evaluation mode and back.

    Args:
        model: anything with ``encode_users(input_ids, attention_mask, item_embeddings=)`` -> [B, d] and
            ``candidate_vectors(item_embeddings)`` -> [M, d], score being their product.
        item_embeddings: [M, d] encoded catalogue, row 0 padding.
        sequences: ``item_ids`` [total] and ``offsets`` [U + 1]; in each row the last item is the target.
        negatives: the same form, the stored candidates of the sampled protocol; None leaves it out.
        max_length: history items the model reads, the most recent ones. Seen items are the whole history's.
        batch_size: histories encoded at a time.

    Returns:
        ``{"full": int64 [U], "full-unseen": int64 [U], "sampled": int64 [U]}``, 1-based, on every process.

    Raises:
        DataError: scores that are not finite, indices outside the table.
    """
    was_training = model.training
    model.eval()
    candidates = model.candidate_vectors(item_embeddings)
    lengths = np.diff(sequences.offsets) - 1
    targets = sequences.item_ids[sequences.offsets[1:] - 1].astype(np.int64)

    def histories(users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, offsets = take_rows((sequences.item_ids, sequences.offsets), users)
        real = np.ones(len(values), dtype=bool)
        real[offsets[1:] - 1] = False  # the target is no part of the history
        return values[real].astype(np.int64), offsets - np.arange(len(offsets))

    def encode(users: np.ndarray) -> torch.Tensor:
        values, offsets = histories(users)
        read = np.minimum(np.diff(offsets), max_length)
        column = np.arange(max(1, read.max(initial=0)))
        real = column < read[:, None]  # [B, N], right padding
        input_ids = np.zeros(real.shape, dtype=np.int64)
        input_ids[real] = values[((offsets[1:] - read)[:, None] + column)[real]]
        to = item_embeddings.device
        return model.encode_users(
            torch.from_numpy(input_ids).to(to),
            torch.from_numpy(real.astype(np.int64)).to(to),
            item_embeddings=item_embeddings,
        )

    def rank_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
        order = rows[np.argsort(lengths[rows], kind="stable")]
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(order), USERS_AT_ONCE):
            users = order[start : start + USERS_AT_ONCE]
            queries = torch.cat(
                [encode(users[begin : begin + batch_size]) for begin in range(0, len(users), batch_size)]
            )
            ranks = full_ranks(queries, candidates, targets[users], seen=histories(users))
            if negatives is not None:
                stored = take_rows((negatives.item_ids, negatives.offsets), users)
                ranks |= sampled_ranks(queries, candidates, targets[users], stored)
            for protocol, values in ranks.items():
                parts.setdefault(protocol, []).append(values)
        back = np.argsort(np.argsort(lengths[rows], kind="stable"), kind="stable")
        return {protocol: np.concatenate(values)[back] for protocol, values in parts.items()}

    try:
        return sharded_ranks(rank_rows, len(targets))
    finally:
        model.train(was_training)
