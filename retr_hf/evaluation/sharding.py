"""Evaluation over several processes: each user is ranked exactly once, and every process gets all ranks."""

from collections.abc import Callable

import numpy as np
import torch.distributed as dist

from ..errors import RetrError

RankRows = Callable[[np.ndarray], dict[str, np.ndarray]]


def sharded_ranks(rank_rows: RankRows, num_users: int) -> dict[str, np.ndarray]:
    """Runs ``rank_rows`` on the users p, p + P, p + 2P, ... of process p of P and puts the answers in order.

    Uses the default ``torch.distributed`` group, which ``accelerate`` sets up; without one it is a plain call. No
    user is repeated to fill a last batch (a data loader with even batches does that, and the mean is then wrong).
    Must be called on all processes; an error on one is raised on all, so that none waits for ever.

    Args:
        rank_rows: from users, int64 [V] (indices into 0 .. U-1), to their ranks by protocol, each int64 [V].
        num_users: U, the same on every process.

    Returns:
        The ranks by protocol, each int64 [U] in the order of the users, the same on every process.

    Raises:
        RetrError: on every process where another process failed; the failed one raises its own error.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rank_rows(np.arange(num_users))

    process, world = dist.get_rank(), dist.get_world_size()
    rows, own, error = np.arange(process, num_users, world), {}, None
    try:
        own = rank_rows(rows) if len(rows) else {}
    except Exception as raised:  # told to the others first: they stand at the gathering below
        error = raised
    parts: list[tuple[dict[str, np.ndarray], str | None]] = [({}, None)] * world
    dist.all_gather_object(parts, (own, None if error is None else f"{type(error).__name__}: {error}"))
    if error is not None:
        raise error
    if failed := [f"process {number}: {message}" for number, (_, message) in enumerate(parts) if message]:
        raise RetrError("evaluation failed on another process\n" + "\n".join(failed))

    ranks = {protocol: np.zeros(num_users, np.int64) for protocol in parts[0][0]}
    for number, (part, _) in enumerate(parts):
        for protocol, values in part.items():
            ranks[protocol][number::world] = values
    return ranks


def take_rows(ragged: tuple[np.ndarray, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists of the users ``rows`` out of ``(values [K], offsets [U + 1])``, in the same form and in that order."""
    values, offsets = map(np.asarray, ragged)
    lengths = offsets[1:][rows] - offsets[:-1][rows]
    taken = np.concatenate([[0], np.cumsum(lengths)])
    shift = np.repeat(offsets[:-1][rows] - taken[:-1], lengths)
    return values[np.arange(taken[-1]) + shift], taken
