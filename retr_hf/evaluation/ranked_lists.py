"""Metrics of ranked lists as modules of the library `evaluate`: what the three in ``evaluate_modules`` share.

    import evaluate
    from retr_hf.evaluation.ranked_lists import module_folder

    ndcg = evaluate.load(module_folder("ndcg"))
    ndcg.compute(predictions=[["b", "a", "c"], ["c"]], references=["a", "b"], k=[1, 3])

They are a wrapper around metrics.py, for those who keep their metrics there; nothing else here needs `evaluate`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import datasets
import evaluate
import numpy as np

from ..errors import DataError

MODULES = ("hit_rate", "ndcg", "mrr")

_CITATION = """\
@inproceedings{kang2018sasrec, title={Self-Attentive Sequential Recommendation}, author={Kang, W. and McAuley, J.},
  booktitle={ICDM}, year={2018}}
"""
_INPUTS = """\
Args:
    predictions: a ranked list of items a user, best first; of any length, as strings (raw ids) or integers (indices).
    references: the one relevant item of each user.
Returns:
    a dict of floats in [0, 1], means over users. A list that does not hold the relevant item counts 0; one shorter than
    k is taken for all there is to recommend.
"""


class RankedListMetric(evaluate.Metric, ABC):
    """One relevant item a user, found at some rank of a list, or not. A module gives ``description`` and ``scores``."""

    description: str

    def _info(self) -> evaluate.MetricInfo:
        def features(kind: str) -> datasets.Features:
            item = datasets.Value(kind)
            return datasets.Features({"predictions": datasets.List(item), "references": item})

        return evaluate.MetricInfo(
            description=self.description,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[features("string"), features("int64")],
        )

    def _compute(self, predictions: Sequence, references: Sequence, **options) -> dict[str, float]:
        if not len(references):
            raise DataError("expected the ranked list of at least one user, came none")
        return self.scores(*found_ranks(predictions, references), **options)

    @abstractmethod
    def scores(self, ranks: np.ndarray, num_users: int) -> dict[str, float]:
        """Scores by printed name, from the ranks int64 [n <= U] of those that were found, and the number of users U."""


def found_ranks(predictions: Sequence[Sequence], references: Sequence) -> tuple[np.ndarray, int]:
    """1-based rank int64 [n] of each reference that its list holds (its first place), and how many users there are."""
    lengths = np.array([len(ranked) for ranked in predictions])
    owner = np.repeat(np.arange(len(lengths)), lengths)
    items = np.concatenate([np.asarray(ranked) for ranked in predictions if len(ranked)] or [np.empty(0)])
    hits = np.flatnonzero(items == np.asarray(references)[owner]) if len(items) else np.empty(0, np.int64)
    users, first = np.unique(owner[hits], return_index=True)
    begin = np.cumsum(lengths) - lengths
    return hits[first] - begin[users] + 1, len(lengths)


def cutoffs_of(k: int | Sequence[int]) -> list[int]:
    """One cut-off, or several, as a list."""
    return [k] if np.ndim(k) == 0 else list(k)


def mean_of_found(metric: Callable[..., float], ranks: np.ndarray, num_users: int, *cutoff: int) -> float:
    """A mean of metrics.py over the ranks that were found as one over all users, the others counting 0."""
    return metric(ranks, *cutoff) * len(ranks) / num_users if len(ranks) else 0.0


def module_folder(name: str) -> str:
    """The folder of a module, for ``evaluate.load``: ``"hit_rate"``, ``"ndcg"`` or ``"mrr"``.

    Raises:
        DataError: another name.
    """
    if name not in MODULES:
        raise DataError(f"evaluate module {name!r}: expected one of {', '.join(MODULES)}")
    return str(Path(__file__).parent / "evaluate_modules" / name)
