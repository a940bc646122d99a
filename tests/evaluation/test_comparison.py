"""Ranks by float32 products and a band equal those of float64 scores, wherever the two could part."""

import numpy as np
import pytest
import torch

from retr_hf.evaluation.comparison import Comparison
from retr_hf.evaluation.ranking import full_ranks

CHUNKS = [(1024, 4096), (64, 100), (7, 33), (150, 601), (1, 1000)]


def by_float64(queries, table, targets, histories):
    """All scores at once, summed in float64 and rounded once to float32; ties count."""
    scores = (queries.double() @ table.double().T).float()
    before = scores >= scores.gather(1, torch.from_numpy(targets)[:, None])
    before[:, 0] = False
    before[torch.arange(len(targets)), torch.from_numpy(targets)] = False
    full = 1 + before.sum(dim=1)
    for user, history in enumerate(histories):
        before[user, history] = False
    return full.tolist(), (1 + before.sum(dim=1)).tolist()


def near_ties(width, scale, users=150, items=1000):
    """Targets among items with the same vector, and with vectors an ulp away in one or in every number."""
    generator = torch.Generator().manual_seed(width)
    queries = torch.randn(users, width, generator=generator) * scale
    table = torch.randn(items, width, generator=generator) * scale
    table[10:60] = table[3]
    table[60:160] = torch.nextafter(table[3], torch.tensor(torch.inf))
    up = torch.where(torch.rand(100, width, generator=generator) < 2 / width, torch.inf, -torch.inf)
    table[160:260] = torch.nextafter(table[3].expand(100, width), torch.where(up > 0, up, table[3]))
    random = np.random.default_rng(width)
    targets = np.where(np.arange(users) % 2, random.integers(1, items, users), random.integers(1, 260, users))
    histories = [[*random.integers(0, items, 30).tolist(), *([int(target)] * 2)] for target in targets]
    return queries, table, targets, histories


def ranks_of(queries, table, targets, histories, *chunks):
    seen = np.array(sum(histories, []), np.int64), np.cumsum([0, *map(len, histories)])
    ranks = full_ranks(queries, table, targets, seen, *chunks)
    return ranks["full"].tolist(), ranks["full-unseen"].tolist()


@pytest.mark.parametrize(
    ("width", "scale"), [(1, 1), (3, 1), (64, 1), (64, 1e17), (64, 1e-17), (64, 1e-22), (257, 1), (2048, 1)]
)
def test_near_ties_rank_as_in_float64(width, scale):
    """1e17: scores up to 1e37; 1e-17: products below the normal float32 numbers; 1e-22: below all of them but 0."""
    world = near_ties(width, scale)
    expected = by_float64(*world)
    assert expected[0] != expected[1]
    for chunks in CHUNKS:
        assert ranks_of(*world, *chunks) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_inputs_of_other_types_rank_as_they_are(dtype):
    """float64 vectors that differ by less than float32 can tell still differ."""
    queries, table, targets, histories = near_ties(64, 1)
    queries, table = queries.to(dtype), table.to(dtype)
    if dtype == torch.float64:
        table[60:160] = table[3] + 1e-8 * torch.arange(100)[:, None]
    expected = by_float64(queries, table, targets, histories)
    for chunks in CHUNKS[:3]:
        assert ranks_of(queries, table, targets, histories, *chunks) == expected


def swallowed(width=65, large=2.0**12):
    """A user for each place a: q is ``large`` there and 1 elsewhere, and so is her item, whose score is 2^24 + 64: ones
    added to 2^24 are lost in float32, all 64 where the sum starts at a. Her target scores 2^24 + 62, from two terms,
    which float32 adds right in any order.

    |q| = |e|, and each addition loses all it can: the error comes as near to the bound as an error can come.
    """
    queries = 1 + (large - 1) * torch.eye(width)
    target = large * torch.eye(width) + (width - 3) * torch.eye(width).roll(1, dims=1)
    table = torch.cat([torch.zeros(1, width), queries, target, torch.zeros(400, width)])
    return queries, table, 1 + width + np.arange(width), [[0]] * width


def test_an_order_that_float32_gets_wrong_is_put_right(monkeypatch):
    queries, table, targets, histories = swallowed()
    scores = queries @ table.T
    user = torch.arange(len(queries))
    assert (scores[user, 1 + user] < scores[user, targets]).any()  # by the float32 product the target would be first
    monkeypatch.setattr(Comparison, "_exactly", None)  # not because everything is summed in float64
    assert ranks_of(queries, table, targets, histories)[0] == [2] * len(queries)


def test_a_crowd_of_equal_scores_is_told_apart_too():
    """A tenth of the users has no preference, for the others half of the items is the same."""
    queries, table, targets, histories = near_ties(32, 1)
    queries[::10] = 0
    table[::2] = table[1]
    expected = by_float64(queries, table, targets, histories)
    assert expected[0][0] == len(table) - 1
    for chunks in CHUNKS:
        assert ranks_of(queries, table, targets, histories, *chunks) == expected


@pytest.mark.parametrize(
    ("query", "vectors", "rank"),
    [
        ([1, 0], [[1e30, 0], [-2, 1e30], [3, 0]], 2),
        ([0, 1e30], [[1e30, 0], [3, 0]], 2),  # 0 against 0
        ([1e39, 0], [[1e-10, 0], [2e-10, 0]], 1),
        ([1e-10, 0], [[1e39, 0], [2e39, 0]], 1),
        ([2.0**70, 2.0**70], [[2.0**70, -(2.0**70)], [0, 0]], 2),  # 0 against 0, from products of 2^140
        ([2.0**64, 0], [*[[1, 0]] * 1000, [-(2 - 2.0**-23) * 2.0**63, 0]], 1001),  # the lowest score of float32
    ],
)
@pytest.mark.parametrize("item_chunk", [1, 1000, 4096])
def test_vectors_too_long_for_float32_are_ranked_where_their_scores_are_finite(query, vectors, rank, item_chunk):
    """The last item is the target."""
    query, table = torch.tensor([query], dtype=torch.float64), torch.tensor([[0, 0], *vectors], dtype=torch.float64)
    assert full_ranks(query, table, np.array([len(vectors)]), item_chunk=item_chunk)["full"] == rank


@pytest.fixture
def precision():
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("allowed", ["high", "medium"])
def test_products_keep_full_precision_where_the_user_allows_less(precision, allowed):
    world = near_ties(64, 1)
    expected = by_float64(*world)
    precision(allowed)
    assert ranks_of(*world) == expected
    assert torch.get_float32_matmul_precision() == allowed


def test_autocast_changes_no_rank():
    world = near_ties(64, 1)
    expected = by_float64(*world)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(ranks_of(*world, *chunks) == expected for chunks in CHUNKS[:3])
