"""Ragged sequences against plain loops; packing by its promises."""

from dataclasses import replace

import numpy as np
import pytest

from retr_hf.data.ragged import RaggedBatch, gather_ragged, group_by_length, one_per_row, pack_rows


def ragged(*sequences: list[int]) -> RaggedBatch:
    return RaggedBatch(np.concatenate([np.array(s) for s in sequences]), np.array([len(s) for s in sequences]))


def as_lists(batch: RaggedBatch) -> list[list[int]]:
    return [part.tolist() for part in np.split(batch.tokens, np.cumsum(batch.lengths)[:-1])]


def test_gather_is_the_slices_end_to_end():
    rng = np.random.default_rng(0)
    values = rng.integers(100, size=50)
    first, lengths = rng.integers(40, size=30), rng.integers(0, 10, size=30)
    expected = [value for start, length in zip(first, lengths, strict=True) for value in values[start : start + length]]
    assert gather_ragged(values, first, lengths).tolist() == expected
    assert gather_ragged(values, first[:0], lengths[:0]).tolist() == []


@pytest.mark.parametrize("which", [slice(1, None, 2), slice(None), np.array([3, 0, 0]), np.array([], dtype=int)])
def test_select(which):
    sequences = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
    expected = sequences[which] if isinstance(which, slice) else [sequences[index] for index in which]
    selected = ragged(*sequences).select(which)
    assert selected.tokens.tolist() == sum(expected, [])
    assert selected.lengths.tolist() == list(map(len, expected))


def test_keep():
    kept = ragged([1, 2, 3], [4], [5, 6]).keep(np.array([True, False, True, True, False, True]))
    assert as_lists(kept) == [[1, 3], [4], [6]]


def test_times_go_where_their_tokens_go():
    batch = replace(ragged([1, 2, 3], [4], [5, 6]), times=np.array([10, 20, 30, 40, 50, 60]))
    assert batch.select(np.array([2, 0])).times.tolist() == [50, 60, 10, 20, 30]
    assert batch.keep(np.array([True, False, True, True, False, True])).times.tolist() == [10, 30, 40, 60]
    assert ragged([1, 2]).select(slice(None)).times is None


def rows_of(layout, lengths: np.ndarray) -> np.ndarray:
    """[R, W] the number of the sequence in each cell, -1 where there is none; fails where two meet."""
    rows = np.full(layout.shape, -1)
    for sequence, (row, column, length) in enumerate(zip(layout.row, layout.column, lengths, strict=True)):
        assert 0 <= column and column + length <= layout.shape[1], "a sequence runs over the end of its row"
        assert (rows[row, column : column + length] == -1).all(), "two sequences in one cell"
        rows[row, column : column + length] = sequence
    return rows


@pytest.mark.parametrize(
    ("lengths", "width"),
    [([5], 5), ([1], 1), ([1, 1, 1], 1), ([7], 50), ([3, 3, 3], 5), ([2, 3, 2, 3, 1, 4], 5), ([4, 1, 6, 2, 2, 6], 8)],
)
def test_packing_places_every_token_once(lengths, width):
    lengths = np.array(lengths)
    layout = pack_rows(lengths, width)
    rows = rows_of(layout, lengths)
    assert (rows >= 0).sum() == lengths.sum()
    assert (rows >= 0).any(axis=1).all(), "a row without a sequence"
    # the flat places are those cells, token by token
    expected = [np.flatnonzero(rows == sequence) for sequence in range(len(lengths))]
    assert layout.places(lengths).tolist() == np.concatenate(expected).tolist()
    assert layout.ends(lengths).tolist() == [cells[-1] for cells in expected]


def test_packing_by_hand():
    # longest first: 4, 3, 3, 2, 1 into rows of 5: [4 1] [3 2] [3]
    layout = pack_rows(np.array([2, 3, 4, 3, 1]), 5)
    assert layout.shape == (3, 5)
    assert layout.row.tolist() == [1, 1, 0, 2, 0]
    assert layout.column.tolist() == [3, 0, 0, 0, 4]


@pytest.mark.parametrize("seed", range(5))
def test_packing_leaves_little_padding(seed):
    """Histories like those of Scientific (median 6, at most 50) in batches of 512."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(6), 0.7, size=512).astype(int), 2, 50)
    assert np.median(lengths) in (5, 6)
    layout = pack_rows(lengths, 50)
    rows_of(layout, lengths)
    assert 1 - lengths.sum() / np.prod(layout.shape) < 0.05
    assert 1 - lengths.sum() / np.prod(one_per_row(lengths).shape) > 0.5, "it would not be worth it"


def test_grouping_by_hand():
    # lengths 5 5 4 2 1: merging 4 into 5 costs one place of 17 (5.9 %), 1 into 2 another
    lengths = np.array([2, 5, 4, 1, 5])
    exact = group_by_length(lengths, waste=0)
    assert exact.groups == ((2, 5), (1, 4), (1, 2), (1, 1)) and exact.shape == (1, 17)
    assert exact.column.tolist() == [14, 0, 10, 16, 5] and exact.row.tolist() == [0] * 5
    assert group_by_length(lengths, waste=0.06).groups == ((3, 5), (1, 2), (1, 1))
    assert group_by_length(lengths, waste=0.12).groups == ((3, 5), (2, 2))
    assert group_by_length(lengths, waste=0.9).groups == ((5, 5),)


@pytest.mark.parametrize("seed", range(5))
def test_grouping_places_every_token_once_in_a_group_with_little_padding(seed):
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(6), 0.7, size=512).astype(int), 2, 50)
    layout = group_by_length(lengths)
    rows = rows_of(layout, lengths)
    assert 1 - lengths.sum() / rows.size < 0.05
    assert len(layout.groups) < len(set(lengths.tolist())), "neighbours are merged"
    begin = 0
    for count, columns in layout.groups:  # each line of a rectangle holds one history, from its first column on
        for line in rows[0, begin : begin + count * columns].reshape(count, columns):
            assert line[0] >= 0 and set(line.tolist()) <= {line[0], -1} and (line >= 0).sum() == lengths[line[0]]
        begin += count * columns
    assert begin == rows.size


def test_a_sequence_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="6 tokens does not fit into rows of 5"):
        pack_rows(np.array([2, 6, 1]), 5)


def test_one_per_row():
    lengths = np.array([2, 1, 4])
    layout = one_per_row(lengths)
    assert layout.shape == (3, 4)
    assert layout.places(lengths).tolist() == [0, 1, 4, 8, 9, 10, 11]
    assert layout.ends(lengths).tolist() == [1, 4, 11]
