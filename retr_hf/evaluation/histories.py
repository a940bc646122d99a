"""A model over the histories of a split, without padding: ranks in every protocol, and routes.

Histories are read in order of length, those of one length as one rectangle of a long row (``length_groups`` of the
body), of which the last block computes the ends alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from ..errors import DataError
from .given import Given
from .ranking import full_ranks, sampled_ranks
from .sharding import sharded_ranks, take_rows

USERS_AT_ONCE = 4096  # query vectors held at a time
TOKENS_AT_ONCE = 8192  # more makes tensors that leave the processor's cache


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

    The model is put into evaluation mode and back.

    Args:
        model: anything with ``encode_users(input_ids, sequence_ends=, length_groups=, item_embeddings=)`` -> [S, d] and
            ``candidate_vectors(item_embeddings)`` -> [M, d], score being their product; with ``adds_scores`` also
            ``added_scores(recent)``, what some items are given beside it: for histories [S, n], newest item first and 0
            for none, rows [S, r] and scores [S, r]. ``times=`` comes with sequences that have timestamps.
        item_embeddings: [M, d] encoded catalogue, row 0 padding.
        sequences: ``item_ids`` [total] and ``offsets`` [U + 1]; in each row the last item is the target. For a model
            that reads times also ``timestamps`` [total]; without it, or None, none are read.
        negatives: the same form, the stored candidates of the sampled protocol; None leaves it out.
        max_length: history items the model reads, the most recent ones. Seen items are the whole history's.
        batch_size: histories encoded at a time, at most (long ones: no more than some thousand items).

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

    read = np.minimum(lengths - 1, max_length)

    def encode(users: np.ndarray) -> torch.Tensor:
        row = read_histories(sequences, users, read[users], item_embeddings.device)
        return model.encode_users(sequence_ends=row.ends, item_embeddings=item_embeddings, **row.inputs)

    def rank_rows(rows: np.ndarray) -> dict[str, np.ndarray]:
        by_length = np.argsort(read[rows], kind="stable")
        parts: dict[str, list[np.ndarray]] = {}
        for users in _chunks(rows[by_length], USERS_AT_ONCE):
            queries = torch.cat([encode(users[part]) for part in batches(read[users], batch_size)])
            seen = histories_of(sequences, users)
            given = _given(model, seen, targets[users], max_length, queries.device)
            ranks = full_ranks(queries, candidates, targets[users], seen, given=given)
            if negatives is not None:
                stored = take_rows((negatives.item_ids, negatives.offsets), users)
                ranks |= sampled_ranks(queries, candidates, targets[users], stored, given=given)
            for protocol, values in ranks.items():
                parts.setdefault(protocol, []).append(values)
        back = np.argsort(by_length, kind="stable")
        return {protocol: np.concatenate(values)[back] for protocol, values in parts.items()}

    with evaluating(model):
        return sharded_ranks(rank_rows, len(targets))


class Routings(NamedTuple):
    """What the routers decide about every behaviour that the model reads.

    Hard route R, α and ω, float [blocks, n] each, and the places int64 [n] of these behaviours in ``item_ids``; of a
    bidirectional body also R of the [mask] behind each history, which is what asks for the next item: [blocks, U].
    """

    routes: np.ndarray
    keep_probabilities: np.ndarray
    omegas: np.ndarray
    places: np.ndarray
    at_mask: np.ndarray | None = None


@torch.no_grad()
def routings(model, item_embeddings: torch.Tensor, sequences, max_length: int = 50, batch_size: int = 512) -> Routings:
    """The routes of the histories of a split (on this process, of all users).

    Args:
        model: a head whose body returns routes per block; the others as in ``rank_histories``.

    Raises:
        ValueError: the model has no router.
    """
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    places, at_mask = [], []
    read = np.minimum(np.diff(sequences.offsets) - 1, max_length)
    users = np.argsort(read, kind="stable")
    causal = model.config.direction == "causal"
    with evaluating(model):
        for part in batches(read[users], batch_size):
            row = read_histories(sequences, users[part], read[users[part]], item_embeddings.device)
            inputs, read_places, masks = (row.inputs, row.places, []) if causal else _asked(model, row)
            output = model.model(item_embeddings=item_embeddings, output_routes=True, **inputs)
            if output.routes is None:
                raise ValueError("this model has no router: there are no routes")
            for kept, blocks in zip(parts, (output.routes, output.keep_probabilities, output.omegas), strict=True):
                kept.append(np.delete(torch.cat(blocks).float().cpu().numpy(), masks, axis=1))
            at_mask.append(torch.cat(output.routes).float().cpu().numpy()[:, masks])
            places.append(read_places)
    routes, alphas, omegas, at_mask = (np.concatenate(part, axis=1) for part in (*parts, at_mask))
    return Routings(routes, alphas, omegas, np.concatenate(places), None if causal else at_mask)


def _asked(model, row: "_Row") -> tuple[dict[str, torch.Tensor | tuple], np.ndarray, np.ndarray]:
    """What a bidirectional body reads of a row when it answers: a [mask] behind every history, whose oldest item may
    have made room for it; the places of the items that are left, and where in the row the [mask]s stand."""
    groups = row.inputs["length_groups"]
    asked = model.ask_for_next(row.inputs["input_ids"], None, groups)
    sizes = np.cumsum([count * columns for count, columns in groups])[:-1]
    left = [
        places.reshape(count, columns)[:, columns + 1 - now :].ravel()
        for places, (count, columns), (_, now) in zip(
            np.split(row.places, sizes), groups, asked.length_groups, strict=True
        )
    ]
    names = "input_ids", "attention_mask", "length_groups"
    return {name: getattr(asked, name) for name in names}, np.concatenate(left), asked.sequence_ends.cpu().numpy()


def histories_of(sequences, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The users' histories without the target: values int64 [K], offsets [U + 1]."""
    values, offsets = take_rows((sequences.item_ids, sequences.offsets), users)
    history = np.ones(len(values), dtype=bool)
    history[offsets[1:] - 1] = False
    return values[history].astype(np.int64), offsets - np.arange(len(offsets))


def _given(model, seen: tuple[np.ndarray, np.ndarray], targets: np.ndarray, max_length: int, device) -> Given | None:
    """What the histories, as far as the model reads them, give some items beside the product."""
    if not model.adds_scores:
        return None
    recent = torch.from_numpy(recent_items(*seen, max_length)).to(device)
    rows, scores = (each.cpu() for each in model.added_scores(recent))
    user, place = (rows > 0).nonzero(as_tuple=True)
    return Given(user, rows[user, place], scores[user, place].float(), targets, seen)


def recent_items(values: np.ndarray, offsets: np.ndarray, max_length: int) -> np.ndarray:
    """The last items of histories ``(values [K], offsets [U + 1])``, newest first and 0 for none: [U, n]."""
    lengths = np.minimum(np.diff(offsets), max_length)
    ages = np.arange(lengths.max())
    return np.where(ages < lengths[:, None], values[np.maximum(offsets[1:, None] - 1 - ages, 0)], 0)


class _Row(NamedTuple):
    """Histories end to end: what the body reads of them (input_ids and, where there are, times [1, T]; length_groups
    (S, n)), ends [S], places [T] in ``item_ids``."""

    inputs: dict[str, torch.Tensor | tuple]
    ends: torch.Tensor
    places: np.ndarray


def read_histories(sequences, users: np.ndarray, read: np.ndarray, device, targets: int = 1) -> _Row:
    """The last ``read`` [S] items before the target of each of the users, who stand in order of ``read``; with
    ``targets=0`` the last items of all."""
    if read[0] == 0:
        raise DataError(
            f"{int((read == 0).sum())} of the sequences hold their target alone: expected at least one item before it"
        )
    columns, counts = np.unique(read, return_counts=True)
    begin = np.cumsum(read) - read
    ends = sequences.offsets[1:][users] - targets
    places = np.arange(read.sum()) + np.repeat(ends - read - begin, read)
    flat = {"input_ids": sequences.item_ids, "times": getattr(sequences, "timestamps", None)}
    inputs = {
        name: torch.from_numpy(values[places].astype(np.int64)).unsqueeze(0).to(device)
        for name, values in flat.items()
        if values is not None
    }
    inputs["length_groups"] = tuple(zip(counts.tolist(), columns.tolist(), strict=True))
    return _Row(inputs, torch.from_numpy(begin + read - 1).to(device), places)


def batches(read: np.ndarray, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` histories and, where there are several, about ``TOKENS_AT_ONCE`` items."""
    tokens, start = np.cumsum(read), 0
    while start < len(read):
        before = tokens[start - 1] if start else 0
        stop = int(np.searchsorted(tokens, before + TOKENS_AT_ONCE, side="right"))
        stop = min(max(stop, start + 1), start + size)
        yield slice(start, stop)
        start = stop


def _chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


@contextmanager
def evaluating(model):
    """The model in evaluation mode, and back as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
