"""Metrics of next-item recommendation: functions of the rank of the one relevant item.

A rank is 1-based: 1 is the best place. Each user has exactly one target, so recall@k and the hit rate are the same
number, and so are the average precision and the reciprocal rank. How ties become ranks is decided in ``ranking.py``.

All functions take ``ranks``: int64 [U], a numpy array (a CPU torch tensor is read without a copy), return a float in
[0, 1], and raise ``DataError`` if there is no rank, a rank is below 1, or ranks are not whole numbers.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError


def hit_rate(ranks: ArrayLike, k: int) -> float:
    """HR@k = mean_u [r_u <= k], also printed as recall@k (Kang & McAuley, SASRec, ICDM 2018, section IV-C)."""
    return float(np.mean(_hits(_checked(ranks), k)))


def ndcg(ranks: ArrayLike, k: int) -> float:
    """NDCG@k = mean_u [r_u <= k] / log2(r_u + 1).

    Järvelin & Kekäläinen, ACM TOIS 20(4), 2002; with one relevant item of gain 1 the ideal DCG is 1 / log2(2) = 1.
    """
    return float(np.mean(_gains(_checked(ranks), k)))


def mrr(ranks: ArrayLike) -> float:
    """MRR = mean_u 1 / r_u, over all ranks, no cut-off (Voorhees, The TREC-8 Question Answering Track Report, 1999)."""
    return float(np.mean(1.0 / _checked(ranks)))


def metrics_from_ranks(ranks: ArrayLike, cutoffs: Iterable[int] = (10, 50)) -> dict[str, float]:
    """All metrics under their printed names: ``HR@k`` and ``NDCG@k`` for every k of ``cutoffs``, then ``MRR``."""
    return {name: float(np.mean(values)) for name, values in user_metrics(ranks, cutoffs).items()}


def user_metrics(ranks: ArrayLike, cutoffs: Iterable[int] = (10, 50)) -> dict[str, np.ndarray]:
    """The same user by user, [U] each: what the metrics are the means of."""
    ranks, cutoffs = _checked(ranks), tuple(cutoffs)
    return (
        {f"HR@{k}": _hits(ranks, k) for k in cutoffs}
        | {f"NDCG@{k}": _gains(ranks, k) for k in cutoffs}
        | {"MRR": 1.0 / ranks}
    )


class UserDifference(NamedTuple):
    """One system minus another on the same users: the mean, and half its 95 % confidence interval over users."""

    mean: float
    margin: float

    def __str__(self) -> str:
        """``+0.0050 [+0.0038, +0.0062]``."""
        return f"{self.mean:+.4f} [{self.mean - self.margin:+.4f}, {self.mean + self.margin:+.4f}]"

    @classmethod
    def of(cls, differences: np.ndarray) -> "UserDifference":
        """d̄ ± 1.96 · sd(d) / √U of each user's difference d [U], two users at least."""
        d = differences.astype(np.float64)
        return cls(float(d.mean()), float(1.96 * d.std(ddof=1) / np.sqrt(len(d))))


def user_differences(
    ranks: ArrayLike, others: ArrayLike, cutoffs: Iterable[int] = (10, 50)
) -> dict[str, UserDifference]:
    """Metrics of ``ranks`` minus those of ``others``, the same users in the same order.

        d_u = x_u - y_u,   u = 1 … U;      mean d̄ ± 1.96 · sd(d) / √U

    Pairing takes out how hard the users are, which two intervals side by side would leave in. It says what other users
    would give, of these two models; what another seed would give it does not.

    Raises:
        DataError: of other users, or of a single one.
    """
    cutoffs = tuple(cutoffs)
    mine, theirs = user_metrics(ranks, cutoffs), user_metrics(others, cutoffs)
    sizes = len(mine["MRR"]), len(theirs["MRR"])
    if sizes[0] != sizes[1] or sizes[0] < 2:
        raise DataError(f"expected the ranks of the same users, at least two, got {sizes[0]} and {sizes[1]}")
    return {name: UserDifference.of(mine[name].astype(np.float64) - theirs[name]) for name in mine}


def _hits(ranks: np.ndarray, k: int) -> np.ndarray:
    return ranks <= _cutoff(k)


def _gains(ranks: np.ndarray, k: int) -> np.ndarray:
    return np.where(ranks <= _cutoff(k), 1.0 / np.log2(ranks + 1.0), 0.0)


def _checked(ranks: ArrayLike) -> np.ndarray:
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or ranks.size == 0:
        raise DataError(f"metrics need the ranks of at least one user as a flat array, got shape {ranks.shape}")
    if not np.issubdtype(ranks.dtype, np.integer):
        raise DataError(f"ranks are whole numbers, 1 for the best place; got dtype {ranks.dtype}")
    if (lowest := int(ranks.min())) < 1:
        raise DataError(f"ranks start at 1 for the best place, got {lowest}: add 1 if yours start at 0")
    return ranks


def _cutoff(k: int) -> int:
    if k < 1:
        raise DataError(f"a cut-off is the length of the recommended list, at least 1; got {k}")
    return k
