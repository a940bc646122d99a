"""Negatives: the draws, and what a domain's users touched, laid out once however many rows a user has."""

import tracemalloc

import numpy as np
import polars as pl
import pytest

from retr_hf.data.negatives import sample_negatives, touched_pairs
from retr_hf.data.negatives_of_splits import negatives_of_splits
from retr_hf.data.splits import split_sequences


def test_negatives_are_distinct_untouched_and_seeded():
    rng = np.random.default_rng(0)
    touched_rows, touched_items = rng.integers(0, 50, 3000), rng.integers(1, 201, 3000)
    pairs, rows = touched_pairs(touched_rows, touched_items, 200), np.arange(50)
    values, offsets = sample_negatives(pairs, rows, 200, 100, np.random.default_rng(1))
    assert (values.dtype, offsets.dtype) == (np.int32, np.int64)
    for row in range(50):
        touched = set(touched_items[touched_rows == row].tolist())
        drawn = values[offsets[row] : offsets[row + 1]].tolist()
        assert len(drawn) == len(set(drawn)) == min(100, 200 - len(touched))
        assert set(drawn) <= set(range(1, 201)) - touched
    again, _ = sample_negatives(pairs, rows, 200, 100, np.random.default_rng(1))
    other, _ = sample_negatives(pairs, rows, 200, 100, np.random.default_rng(2))
    assert np.array_equal(values, again) and not np.array_equal(values, other)


def test_negatives_are_uniform():
    # 40,000 rows touched items 2 and 5 of 8: each of the other 6 must be among 3 candidates with p = 1/2, and in the
    # first place with p = 1/6. Bounds are 5 standard deviations.
    num_rows = 40_000
    touched_rows = np.repeat(np.arange(num_rows), 2)
    touched_items = np.tile([5, 2], num_rows)
    pairs = touched_pairs(touched_rows, touched_items, 8)
    values, offsets = sample_negatives(pairs, np.arange(num_rows), 8, 3, np.random.default_rng(0))
    assert np.array_equal(offsets, 3 * np.arange(num_rows + 1))
    drawn = np.bincount(values, minlength=9)
    assert drawn[[0, 2, 5]].tolist() == [0, 0, 0]
    assert np.abs(drawn[[1, 3, 4, 6, 7, 8]] - num_rows / 2).max() < 5 * np.sqrt(num_rows / 4)
    first = np.bincount(values[::3], minlength=9)[[1, 3, 4, 6, 7, 8]]
    assert np.abs(first - num_rows / 6).max() < 5 * np.sqrt(num_rows * 5 / 36)


def test_negatives_of_many_rows_agree_with_the_block_of_each(monkeypatch):
    monkeypatch.setattr("retr_hf.data.negatives._BLOCK", 3)
    touched_rows, touched_items = np.arange(10), np.arange(10) % 4 + 1
    pairs = touched_pairs(touched_rows, touched_items, 4)
    values, offsets = sample_negatives(pairs, np.arange(10), 4, 3, np.random.default_rng(0))
    drawn = [set(values[offsets[row] : offsets[row + 1]].tolist()) for row in range(10)]
    assert drawn == [{1, 2, 3, 4} - {row % 4 + 1} for row in range(10)]


def log(users: int, length: int, num_items: int) -> pl.DataFrame:
    items = np.random.default_rng(0).integers(1, num_items + 1, (users, length)).astype(np.int32)
    return pl.DataFrame({"user_id": [f"u{user}" for user in range(users)], "item_ids": items.tolist()})


def drawn(splits, num_items: int, count: int) -> dict[str, list[tuple[str, list[int]]]]:
    """Split -> (user, candidates) of each row."""
    return {
        split: [
            pair for table in tables for pair in zip(*(column.to_pylist() for column in table.columns), strict=True)
        ]
        for split, tables in negatives_of_splits(splits, num_items, count, seed=7)
    }


@pytest.mark.parametrize("way", ["leave-one-out", "ratio"])
def test_a_domains_draws_are_those_of_every_row_joined_with_all_its_user_touched(way, monkeypatch):
    ragged = pl.col("item_ids").list.head(pl.int_range(11, 31))
    sequences = log(users=20, length=30, num_items=60).with_columns(ragged)
    splits = split_sequences(sequences, way)
    expected, streams = {}, np.random.default_rng(7).spawn(2)
    for split, rng in zip(("validation", "test"), streams, strict=True):
        names = splits[split]["user_id"].to_list()
        whole = {user: items for user, items in sequences.iter_rows()}
        rows = np.repeat(np.arange(len(names)), [len(whole[name]) for name in names])
        pairs = touched_pairs(rows, np.concatenate([whole[name] for name in names]), 60)
        values, offsets = sample_negatives(pairs, np.arange(len(names)), 60, 25, rng)
        lists = [part.tolist() for part in np.split(values, offsets[1:-1])]
        expected[split] = list(zip(names, lists, strict=True))
    assert drawn(splits, 60, 25) == expected
    monkeypatch.setattr("retr_hf.data.negatives_of_splits._ENTRIES", 7)  # some lists are longer
    assert drawn(splits, 60, 25) == expected


def test_rows_of_users_in_any_order_leave_out_what_each_touched():
    names = list("abcab")
    evaluated = pl.DataFrame({"user_id": names, "item_ids": [[1, 2], [3], [4, 5], [6], [2]]})
    splits = {"train": evaluated.head(0), "validation": evaluated.head(0), "test": evaluated}
    told = drawn(splits, num_items=7, count=7)
    left = {"a": [3, 4, 5, 7], "b": [1, 4, 5, 6, 7], "c": [1, 2, 3, 6, 7]}
    assert [(user, sorted(items)) for user, items in told["test"]] == [(name, left[name]) for name in names]
    assert told["validation"] == []


def test_memory_does_not_grow_with_rows_times_what_their_user_touched():
    """Thirty users of 200 items have 20 test rows each and 41 lists of some 180: joined with one another that were
    4.5 million pairs, in 150 MB; laid out once they are 0.2 million, and 6,000 of them are distinct."""
    splits = split_sequences(log(users=30, length=200, num_items=1000), "ratio")
    tracemalloc.start()
    try:
        rows = drawn(splits, 1000, 5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(rows["test"]) == 600 and peak < 50e6
