"""Cosine to the last item."""

import numpy as np
import pytest

from retr_hf.baselines.text_similarity import text_similarity
from retr_hf.errors import DataError
from retr_hf.evaluation.ranking import full_ranks

TABLE = np.array([[0, 0], [2, 0], [5, 1], [0, 3], [-1, 0], [0, 0]], dtype=np.float32)  # item 5 has no text


def test_the_length_of_a_vector_does_not_matter():
    queries, items = text_similarity(TABLE, np.array([1]))
    assert (queries @ items.T)[0].tolist() == pytest.approx([0, 1, 5 / 26**0.5, 0, -1, 0])


def test_nearest_text_is_first_once_the_last_item_is_out():
    queries, items = text_similarity(TABLE, np.array([1, 1]))
    ranks = full_ranks(queries, items, np.array([2, 4]), (np.array([1, 1]), np.array([0, 1, 2])))
    assert ranks["full"].tolist() == [2, 5] and ranks["full-unseen"].tolist() == [1, 4]


def test_an_empty_history_or_text_ties_with_everything():
    queries, items = text_similarity(TABLE, np.array([0, 5]))
    assert full_ranks(queries, items, np.array([1, 1]))["full"].tolist() == [5, 5]


def test_an_index_outside_the_table_is_refused():
    with pytest.raises(DataError, match=r"0 \.\. 5, got 6 \.\. 6"):
        text_similarity(TABLE, np.array([6]))
