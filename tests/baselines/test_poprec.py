"""Popularity counts the train split alone and goes through the common ranking."""

import numpy as np
import pytest
import torch

from retr_hf.baselines.poprec import poprec
from retr_hf.errors import DataError
from retr_hf.evaluation.ranking import full_ranks

A, B, C, NEVER_TRAINED = 1, 2, 3, 4
TRAIN = np.array([A, B, A, C, A, B])  # sequences (a, b), (a, c), (a, b)


def test_counts_and_ranking():
    queries, items = poprec(TRAIN, num_items=4, num_users=4)
    assert items[:, 0].tolist() == [0, 3, 2, 1, 0]
    assert full_ranks(queries, items, np.array([A, B, C, NEVER_TRAINED]))["full"].tolist() == [1, 2, 3, 4]


def test_histories_change_no_count_only_the_candidates():
    queries, items = poprec(TRAIN, num_items=4, num_users=1)
    seen = np.array([A, B, B]), np.array([0, 3])  # a test history with the validation item b at its end
    ranks = full_ranks(queries, items, np.array([C]), seen)
    assert ranks["full"] == 3 and ranks["full-unseen"] == 1


def test_items_never_trained_rank_last_and_not_first():
    queries, items = poprec(TRAIN, num_items=9, num_users=1)
    assert full_ranks(queries, items, np.array([5]))["full"] == 9


def test_padding_is_not_counted_and_other_catalogues_are_refused():
    _, items = poprec(np.array([0, 0, 1]), num_items=2, num_users=1)
    assert items.dtype == torch.float32 and items[:, 0].tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="train split of another catalogue"):
        poprec(np.array([3]), num_items=2, num_users=1)
