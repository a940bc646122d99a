"""A model over the histories of a split, in batches of like length: ranks in every protocol, and keep probabilities."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ..errors import DataError
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
        DataError: an empty split, scores that are not finite, indices outside the table.
    """
    if len(sequences.offsets) < 2:
        raise DataError(
            "no history to rank: the split is empty; users need three items (prepare with a lower --k-core?)"
        )
    candidates = model.candidate_vectors(item_embeddings)
    lengths, targets = np.diff(sequences.offsets), sequences.item_ids[sequences.offsets[1:] - 1].astype(np.int64)

    def encode(users: np.ndarray) -> torch.Tensor:
        input_ids, _ = _read_histories(sequences, users, max_length)
        input_ids = torch.from_numpy(input_ids).to(item_embeddings.device)
        return model.encode_users(input_ids, (input_ids != 0).long(), item_embeddings=item_embeddings)

    def rank_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
        by_length = np.argsort(lengths[rows], kind="stable")
        parts: dict[str, list[np.ndarray]] = {}
        for users in _chunks(rows[by_length], USERS_AT_ONCE):
            queries = torch.cat([encode(batch) for batch in _chunks(users, batch_size)])
            ranks = full_ranks(queries, candidates, targets[users], seen=histories_of(sequences, users))
            if negatives is not None:
                stored = take_rows((negatives.item_ids, negatives.offsets), users)
                ranks |= sampled_ranks(queries, candidates, targets[users], stored)
            for protocol, values in ranks.items():
                parts.setdefault(protocol, []).append(values)
        back = np.argsort(by_length, kind="stable")
        return {protocol: np.concatenate(values)[back] for protocol, values in parts.items()}

    with _evaluating(model):
        return sharded_ranks(rank_rows, len(targets))


@torch.no_grad()
def keep_probabilities(
    model, item_embeddings: torch.Tensor, sequences, max_length: int = 50, batch_size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """What the routers think of every behaviour that the model reads (on this process, of all users).

    Args:
        model: a head whose body returns ``keep_probabilities`` per block; the others as in ``rank_histories``.

    Returns:
        α float [blocks, n], and the places int64 [n] of these behaviours in ``sequences.item_ids``.

    Raises:
        ValueError: the model has no router.
    """
    alphas, places = [], []
    users = np.argsort(np.diff(sequences.offsets), kind="stable")
    with _evaluating(model):
        for batch in _chunks(users, batch_size):
            input_ids, where = _read_histories(sequences, batch, max_length)
            input_ids = torch.from_numpy(input_ids).to(item_embeddings.device)
            mask = input_ids != 0
            output = model.model(input_ids, mask.long(), item_embeddings=item_embeddings, output_routes=True)
            if output.keep_probabilities is None:
                raise ValueError("this model has no router: there are no keep probabilities")
            alphas.append(torch.stack([alpha[mask] for alpha in output.keep_probabilities]).float().cpu().numpy())
            places.append(where)
    return np.concatenate(alphas, axis=1), np.concatenate(places)


def histories_of(sequences, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The users' histories without the target: values int64 [K], offsets [U + 1]."""
    values, offsets = take_rows((sequences.item_ids, sequences.offsets), users)
    history = np.ones(len(values), dtype=bool)
    history[offsets[1:] - 1] = False
    return values[history].astype(np.int64), offsets - np.arange(len(offsets))


def _read_histories(sequences, users: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """What the model reads: indices [B, N], right padding 0; and where those came from in ``item_ids``, [n]."""
    ends = sequences.offsets[1:][users] - 1  # the target's place
    read = np.minimum(ends - sequences.offsets[:-1][users], max_length)
    column = np.arange(max(1, read.max(initial=0)))
    real = column < read[:, None]
    places = ((ends - read)[:, None] + column)[real]
    input_ids = np.zeros(real.shape, dtype=np.int64)
    input_ids[real] = sequences.item_ids[places]
    return input_ids, places


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@contextmanager
def _evaluating(model):
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
