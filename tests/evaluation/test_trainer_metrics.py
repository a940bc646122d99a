"""Ranks from logits: ties, several targets, what has no rank."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.errors import DataError
from retr_hf.evaluation.ranking import full_ranks
from retr_hf.evaluation.trainer_metrics import RankingMetrics, ranks_of_targets

NONE = -100
BEFORE = float("-inf")  # the padding row


def test_by_hand_and_ties_rank_the_target_last():
    logits = torch.tensor([[BEFORE, 3.0, 1.0, 2.0], [BEFORE, 1.0, 1.0, 0.0], [BEFORE, 5.0, 5.0, 5.0]])
    labels = torch.tensor([[NONE, 3, NONE], [2, 1, NONE], [3, NONE, NONE]])  # the last target of a row counts
    assert ranks_of_targets(logits, labels).tolist() == [2, 2, 3]
    assert ranks_of_targets((logits, torch.zeros(3, 9)), labels).tolist() == [2, 2, 3], "logits are the first output"


def test_as_the_protocol_full():
    """Small whole numbers, so that every product is exact and many are equal."""
    rng = torch.Generator().manual_seed(0)
    queries, items = (torch.randint(-2, 3, (rows, 4), generator=rng).float() for rows in (50, 40))
    targets = torch.randint(1, 40, (50,), generator=rng)
    logits = torch.cat([torch.full((50, 1), BEFORE), queries @ items[1:].T], dim=1)
    found = ranks_of_targets(logits, targets[:, None])
    assert found.tolist() == full_ranks(queries, items, targets)["full"].tolist()
    assert len(set((logits == logits.gather(1, targets[:, None])).sum(1).tolist())) > 3, "there were ties"


def test_what_has_no_rank():
    logits = torch.tensor([[BEFORE, 1.0, 2.0]])
    with pytest.raises(DataError, match="last_as_label"):
        ranks_of_targets(logits, torch.tensor([[NONE, NONE]]))
    for wrong in (float("nan"), float("inf"), BEFORE):
        with pytest.raises(DataError, match="not finite"):
            ranks_of_targets(torch.tensor([[BEFORE, wrong, 2.0]]), torch.tensor([[2]]))


def test_metrics_of_a_whole_evaluation_and_batch_by_batch():
    ranks = np.array([1, 3, 2, 8])
    whole = RankingMetrics([2])(SimpleNamespace(predictions=ranks))
    assert whole["HR@2"] == 0.5 and whole["MRR"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 8) / 4)
    metrics = RankingMetrics([2])
    for _ in range(2):  # nothing of the first evaluation is left in the second
        assert metrics(SimpleNamespace(predictions=torch.tensor(ranks[:3])), compute_result=False) == {}
        assert metrics(SimpleNamespace(predictions=torch.tensor(ranks[3:])), compute_result=True) == whole


def test_logits_are_no_ranks():
    with pytest.raises(DataError, match="preprocess_logits_for_metrics=ranks_of_targets"):
        RankingMetrics()(SimpleNamespace(predictions=np.zeros((4, 9))))
