"""HR@k, NDCG@k and MRR by ``evaluate.load``: the numbers of metrics.py, from ranked lists, offline."""

import math

import evaluate
import numpy as np
import pytest

from retr_hf.errors import DataError
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.evaluation.ranked_lists import MODULES, found_ranks, module_folder


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """Loaded as anyone would, from a copy of their files in a cache of ours."""
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("evaluate")
        for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE"):
            patch.setattr(f"evaluate.config.{name}", str(cache / name))
        patch.setattr("evaluate.config.HF_EVALUATE_OFFLINE", True)
        yield {name: evaluate.load(module_folder(name), cache_dir=str(cache)) for name in MODULES}


def compute(modules, predictions, references, k):
    told = {}
    for name, module in modules.items():
        options = {} if name == "mrr" else {"k": k}
        told |= module.compute(predictions=predictions, references=references, **options)
    return told


def by_hand(predictions, references, cutoffs):
    """The definitions, user by user."""
    told = dict.fromkeys([f"{name}@{k}" for name in ("HR", "NDCG") for k in cutoffs] + ["MRR"], 0.0)
    for ranked, item in zip(predictions, references, strict=True):
        if item not in ranked:
            continue
        rank = ranked.index(item) + 1
        told["MRR"] += 1 / rank / len(references)
        for k in cutoffs:
            told[f"HR@{k}"] += (rank <= k) / len(references)
            told[f"NDCG@{k}"] += (rank <= k) / math.log2(rank + 1) / len(references)
    return told


def test_by_arithmetic(modules):
    # ranks 2, none, 1, 3
    predictions, references = [["b", "a"], ["c"], ["a", "c"], ["c", "b", "a", "a"]], ["a", "b", "a", "a"]
    told = compute(modules, predictions, references, k=[1, 2])
    assert told["HR@1"] == 1 / 4 and told["HR@2"] == 2 / 4
    assert told["NDCG@1"] == 1 / 4 and told["NDCG@2"] == pytest.approx((1 / math.log2(3) + 1) / 4)
    assert told["MRR"] == pytest.approx((1 / 2 + 1 + 1 / 3) / 4)


@pytest.mark.parametrize("kind", [int, str])
def test_ragged_lists_as_by_hand(modules, kind):
    rng = np.random.default_rng(0)
    predictions = [[kind(item) for item in rng.permutation(30)[: rng.integers(0, 20)]] for _ in range(200)]
    references = [kind(item) for item in rng.integers(0, 30, 200)]
    told = compute(modules, predictions, references, k=(1, 5, 10))
    assert told == pytest.approx(by_hand(predictions, references, (1, 5, 10)), abs=1e-12)
    assert 0.05 < told["HR@10"] < 0.6


def test_whole_rankings_give_what_the_toolkit_tells(modules):
    rng = np.random.default_rng(1)
    predictions = [rng.permutation(np.arange(1, 61)).tolist() for _ in range(100)]
    references = rng.integers(1, 61, 100).tolist()
    ranks = [ranked.index(item) + 1 for ranked, item in zip(predictions, references, strict=True)]
    assert compute(modules, predictions, references, k=[10, 50]) == metrics_from_ranks(ranks, [10, 50])


def test_batches_one_by_one_and_one_cutoff(modules):
    modules["hit_rate"].add_batch(predictions=[[3, 1], [2]], references=[1, 9])
    modules["hit_rate"].add(predictions=[7], references=7)
    assert modules["hit_rate"].compute(k=1) == {"HR@1": 1 / 3}
    assert modules["mrr"].compute(predictions=[[], []], references=[1, 2]) == {"MRR": 0.0}


def test_wrong_input(modules):
    with pytest.raises(DataError, match="at least 1; got 0"):
        modules["ndcg"].compute(predictions=[[1]], references=[1], k=0)
    with pytest.raises(DataError, match="'recall': expected one of hit_rate, ndcg, mrr"):
        module_folder("recall")


def test_found_ranks_take_the_first_place():
    ranks, users = found_ranks([[5, 4, 5], [], [1, 2]], [5, 1, 3])
    assert ranks.tolist() == [1] and users == 3
