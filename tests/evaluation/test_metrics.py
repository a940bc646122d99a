"""Metrics against hand arithmetic."""

from math import log2

import numpy as np
import pytest
import torch

from retr_hf.errors import DataError
from retr_hf.evaluation.metrics import hit_rate, metrics_from_ranks, mrr, ndcg, user_differences

RANKS = np.array([1, 3, 10, 11], dtype=np.int64)


def test_hand_arithmetic():
    assert hit_rate(RANKS, 10) == 3 / 4
    assert ndcg(RANKS, 10) == pytest.approx((1 / log2(2) + 1 / log2(4) + 1 / log2(11) + 0) / 4)
    assert mrr(RANKS) == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11) / 4)


def test_the_cutoff_itself_is_a_hit():
    assert hit_rate([10], 10) == 1 and hit_rate([11], 10) == 0
    assert ndcg([3], 3) == pytest.approx(1 / 2) and ndcg([4], 3) == 0


def test_names_and_tensors():
    metrics = metrics_from_ranks(torch.tensor([1, 12]))
    assert list(metrics) == ["HR@10", "HR@50", "NDCG@10", "NDCG@50", "MRR"]
    assert metrics["HR@10"] == 1 / 2 and metrics["HR@50"] == 1
    assert metrics["NDCG@50"] == pytest.approx((1 + 1 / log2(13)) / 2)
    assert all(type(value) is float for value in metrics.values())
    assert list(metrics_from_ranks(RANKS, cutoffs=(5,))) == ["HR@5", "NDCG@5", "MRR"]


def test_the_difference_of_two_systems_user_by_user():
    # HR@10 hits 1 1 1 0 against 0 1 0 0: differences 1 0 1 0, mean 1/2, sd √(4 · 1/4 / 3), error of the mean sd / 2
    difference = user_differences(RANKS, [11, 1, 40, 11], cutoffs=[10])["HR@10"]
    assert difference.mean == 1 / 2 and difference.margin == pytest.approx(1.96 * (1 / 3) ** 0.5 / 2)
    assert str(difference) == "+0.5000 [-0.0658, +1.0658]"
    assert user_differences(RANKS, RANKS)["NDCG@50"] == (0, 0)
    with pytest.raises(DataError, match="the same users, at least two, got 4 and 3"):
        user_differences(RANKS, RANKS[:3])


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([0, 1], "ranks start at 1"),
        ([], "at least one user"),
        ([[1, 2]], "flat array"),
        ([1.5], "whole numbers"),
    ],
)
def test_wrong_ranks_are_refused(ranks, message):
    for metric in (mrr, metrics_from_ranks, lambda r: hit_rate(r, 10), lambda r: ndcg(r, 10)):
        with pytest.raises(DataError, match=message):
            metric(np.array(ranks, dtype=None if ranks else np.int64))


def test_a_cutoff_below_one_is_refused():
    with pytest.raises(DataError, match="at least 1; got 0"):
        hit_rate(RANKS, 0)
