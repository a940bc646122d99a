"""Synthetic shapes have the lengths they are called after; domains are read as they are."""

import numpy as np
import pytest

from retr_hf.benchmark.workload import Source, open_workload
from retr_hf.errors import DataError


@pytest.mark.parametrize(
    ("name", "median", "inputs", "at_cap"), [("scientific-like", 6, 4.0, 0.0), ("movielens-like", 96, 72.5, 0.473)]
)
def test_lengths(name, median, inputs, at_cap):
    workload = open_workload(Source(name, users=4000))
    lengths, train = workload.test.lengths, workload.train
    read = np.minimum(train.lengths - 1, workload.max_length)
    assert abs(np.median(lengths) - median) <= 0.05 * median and abs(read.mean() - inputs) <= 0.05 * inputs
    assert abs((read == workload.max_length).mean() - at_cap) < 0.03
    assert train[7].tolist() == workload.test[7][:-2].tolist() and len(train) == 4000
    assert workload.test.item_ids.min() >= 1 and workload.test.item_ids.max() <= workload.num_items
    again = open_workload(Source(name, users=4000))
    assert (again.test.item_ids == workload.test.item_ids).all()


def test_random_texts_of_any_width():
    vectors = open_workload(Source("scientific-like", users=5)).text_vectors(7)
    assert vectors.shape == (4386, 7) and not vectors[0].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, rtol=1e-5)


def test_a_folder_that_is_no_domain(tmp_path):
    with pytest.raises(DataError, match="expected a prepared domain"):
        open_workload(Source(str(tmp_path / "none")))
