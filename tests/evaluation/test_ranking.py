"""Ranks against a brute-force reference, whatever the chunks, the ties and the rounding."""

import numpy as np
import pytest
import torch

from retr_hf.errors import DataError
from retr_hf.evaluation.ranking import full_ranks, sampled_ranks

NO_HISTORY = (np.zeros(0, np.int64), np.zeros(2, np.int64))


def ragged(lists):
    return np.array(sum(lists, []), np.int64), np.cumsum([0, *map(len, lists)])


def world(seed=0, users=37, items=53, width=4):
    """Small whole numbers: exact products, many ties, repeated and padded histories, some targets seen before."""
    generator = np.random.default_rng(seed)
    queries = torch.from_numpy(generator.integers(-2, 3, (users, width))).float()
    table = torch.from_numpy(generator.integers(-2, 3, (items, width))).float()
    targets = generator.integers(1, items, users)
    histories = [generator.integers(0, items, generator.integers(0, 30)).tolist() for _ in range(users)]
    for user in range(0, users, 3):
        histories[user] += [int(targets[user])] * 2
    return queries, table, targets, histories


def brute_force(queries, table, targets, candidates_of):
    ranks = []
    for user, target in enumerate(targets):
        scores = (table @ queries[user]).tolist()
        others = candidates_of(user) - {0, int(target)}
        ranks.append(1 + sum(scores[item] >= scores[target] for item in others))
    return ranks


@pytest.mark.parametrize(("user_chunk", "item_chunk"), [(1024, 16384), (1, 1), (5, 7), (36, 52), (37, 51)])
def test_both_protocols_equal_the_brute_force(user_chunk, item_chunk):
    queries, table, targets, histories = world()
    ranks = full_ranks(queries, table, targets, ragged(histories), user_chunk, item_chunk)
    everything = set(range(len(table)))
    assert ranks["full"].tolist() == brute_force(queries, table, targets, lambda user: everything)
    assert ranks["full-unseen"].tolist() == brute_force(
        queries, table, targets, lambda user: everything - set(histories[user])
    )
    assert all(values.dtype == np.int64 for values in ranks.values())


def test_hand_arithmetic():
    # scores 4, 3, 3, 1 for items 1..4; the target is item 3; items 1 (twice) and 3 itself were seen
    table, seen = torch.tensor([[9.0], [4.0], [3.0], [3.0], [1.0]]), ragged([[1, 1, 0, 3]])
    ranks = full_ranks(torch.ones(1, 1), table, np.array([3]), seen)
    assert ranks["full"] == 3  # 4 is above, the other 3 ties and counts, padding's 9 does not
    assert ranks["full-unseen"] == 2  # item 1 leaves once, the seen target stays


def test_without_histories_there_is_one_protocol():
    queries, table, targets, histories = world()
    assert list(full_ranks(queries, table, targets)) == ["full"]
    empty = full_ranks(queries, table, targets, ragged([[] for _ in histories]))
    assert np.array_equal(empty["full"], empty["full-unseen"])


def test_equal_scores_give_the_worst_rank():
    ranks = full_ranks(torch.zeros(3, 2), torch.ones(11, 2), np.array([1, 5, 10]), item_chunk=4)
    assert ranks["full"].tolist() == [10, 10, 10]
    sampled = sampled_ranks(torch.zeros(1, 2), torch.ones(11, 2), np.array([1]), ragged([[2, 3, 4]]))
    assert sampled["sampled"].tolist() == [4]


def test_items_with_the_same_vector_tie_in_every_chunking():
    """Float vectors, each item eight times at far places: the copies must tie, though the products differ in shape."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 96, generator=generator)
    table = torch.cat([torch.zeros(1, 96), vectors.repeat(8, 1)])
    queries = torch.randn(64, 96, generator=generator)
    targets = torch.randint(1, len(table), (64,), generator=generator)
    exact = queries.double() @ vectors.double().T
    expected = 8 * (exact >= exact.gather(1, ((targets - 1) % 40)[:, None])).sum(dim=1)
    for user_chunk, item_chunk in [(64, 320), (3, 17), (1, 1), (7, 100), (64, 319)]:
        ranks = full_ranks(queries, table, targets, user_chunk=user_chunk, item_chunk=item_chunk)
        assert ranks["full"].tolist() == expected.tolist()


def test_memory_stays_within_a_chunk(largest_tensor):
    users, items, user_chunk, item_chunk = 300, 400, 8, 16
    vectors, table = torch.randn(users, 2), torch.randn(items, 2)
    asked = []

    def encode(rows):
        asked.append((rows.start, rows.stop))
        return vectors[rows]

    targets, seen = np.arange(users) + 1, ragged([[1, 2, 3]] * users)
    with largest_tensor() as largest:
        ranks = full_ranks(encode, table, targets, seen, user_chunk, item_chunk)
    assert asked == [(start, min(start + user_chunk, users)) for start in range(0, users, user_chunk)]
    assert largest.numel <= max(user_chunk * item_chunk, table.numel(), len(seen[0]))  # not 300 x 400
    assert np.array_equal(ranks["full"], full_ranks(vectors, table, targets)["full"])


@pytest.mark.parametrize("equal", [0, 20, 1000])
def test_memory_stays_within_a_chunk_however_many_are_close(equal, largest_tensor):
    """Neither the scores 300 x 1000 nor the table 1000 x 64 is ever copied; with no, few and only equal scores."""
    users, items, width, user_chunk, item_chunk = 300, 1000, 64, 32, 96
    vectors, table = torch.randn(users, width), torch.randn(items + 1, width)
    table[1 : equal + 1] = table[1]
    targets = np.arange(users) % items + 1
    seen = ragged([[1, 2, 3]] * users)
    with largest_tensor() as largest:
        ranks = full_ranks(vectors, table, targets, seen, user_chunk, item_chunk)
    assert largest.numel <= 2 * user_chunk * item_chunk  # scores and flags
    assert np.array_equal(ranks["full"], full_ranks(vectors, table, targets)["full"])
    assert equal < items or (ranks["full"] == items).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["queries", "item vectors"])
def test_scores_that_are_not_finite_are_an_error(bad, place):
    queries, table, targets, _ = world()
    (queries if place == "queries" else table)[20, 1] = bad
    with pytest.raises(DataError, match=f"{place} hold NaN"):
        full_ranks(queries, table, targets, user_chunk=4, item_chunk=8)
    with pytest.raises(DataError, match=f"{place} hold NaN"):
        sampled_ranks(queries, table, np.full(37, 20), ragged([[3]] * 37), user_chunk=4)


def test_scores_too_large_for_float32_are_an_error():
    with pytest.raises(DataError, match="too large"):
        full_ranks(torch.full((1, 1), 1e30), torch.full((3, 1), 1e30), np.array([1]))


def test_padding_may_hold_anything():
    queries, table, targets, _ = world()
    expected = full_ranks(queries, table, targets)["full"]
    table[0] = float("nan")
    assert np.array_equal(full_ranks(queries, table, targets)["full"], expected)


@pytest.mark.parametrize("user_chunk", [1, 5, 256])
def test_sampled_ranks_equal_the_brute_force(user_chunk):
    queries, table, targets, _ = world(seed=1)
    generator = np.random.default_rng(2)
    negatives = [
        [item for item in generator.permutation(np.arange(1, len(table)))[: generator.integers(0, 20)].tolist()
         if item != targets[user]]
        for user in range(len(targets))
    ]  # fmt: skip
    assert any(not row for row in negatives)
    ranks = sampled_ranks(queries, table, targets, ragged(negatives), user_chunk)["sampled"]
    assert ranks.tolist() == brute_force(queries, table, targets, lambda user: set(negatives[user]))
    assert ranks.dtype == np.int64


def test_half_precision_and_read_only_arrays_are_welcome():
    queries, table, targets, histories = world()
    values, offsets = ragged(histories)
    for array in (targets, values, offsets):
        array.setflags(write=False)
    expected = full_ranks(queries, table, targets, (values, offsets))
    ranks = full_ranks(queries.bfloat16(), table.half(), targets.astype(np.int32), (values, offsets))
    assert all(np.array_equal(ranks[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.array([0])}, "0 is padding"),
        ({"targets": np.array([3])}, r"1 \.\. 2"),
        ({"targets": np.array([], np.int64)}, "at least one user"),
        ({"targets": np.array([1, 2]), "seen": None}, "1 queries and 2 targets"),
        ({"seen": (np.array([1]), np.array([0]))}, "offsets must be 2 ascending"),
        ({"seen": (np.array([1]), np.array([0, 2]))}, "from 0 to 1"),
        ({"seen": (np.array([7]), np.array([0, 1]))}, "another catalogue"),
        ({"queries": lambda users: torch.ones(3, 1)}, r"users 0:1 must be \[1, D\], got \[3, 1\]"),
    ],
)
def test_wrong_input_is_named(change, message):
    arguments = {"queries": torch.ones(1, 1), "items": torch.ones(3, 1), "targets": np.array([1]), "seen": NO_HISTORY}
    with pytest.raises(DataError, match=message):
        full_ranks(**arguments | change)


@pytest.mark.parametrize("negative", [0, 1])
def test_a_negative_is_neither_padding_nor_the_target(negative):
    with pytest.raises(DataError, match="1 sampled negatives are padding"):
        sampled_ranks(torch.ones(1, 1), torch.ones(3, 1), np.array([1]), ragged([[2, negative]]))
