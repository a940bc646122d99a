"""Whitening: the covariance of the result, what stays, and that every reader of a catalogue gets the same table."""

import numpy as np
import pytest
import torch

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.recommender import Recommender
from retr_hf.model.text_whitening import Whitening, text_table


def cone(items=400, size=6, seed=0):
    """Vectors in a narrow cone, wide in some directions only; row 0 and one item without text are zeros."""
    rng = np.random.default_rng(seed)
    table = 3 + rng.normal(size=(items + 1, size)) * np.array([1.0, 1.0, 0.5, 0.2, 0.1, 0.05])
    table[[0, 7]] = 0
    return table.astype(np.float32)


def white_of(table, ridge):
    return Whitening.of(table, ridge)(table)


def test_without_a_ridge_the_covariance_is_that_of_equal_directions():
    white = white_of(cone(4000), 0.0)
    rows = white[white.any(axis=1)]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows.T @ rows / len(rows), np.eye(6) / 6, atol=0.02)
    assert not white[[0, 7]].any()


def test_a_large_ridge_only_centres():
    table = cone()
    rows = table[table.any(axis=1)]
    centred = rows - rows.mean(axis=0)
    white = white_of(table, 1e9)
    want = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(white[table.any(axis=1)], want, atol=1e-4)


def test_other_rows_go_through_the_same_map():
    table = cone()
    np.testing.assert_allclose(Whitening.of(table, 0.1)(table[:9]), white_of(table, 0.1)[:9], atol=1e-6)
    with pytest.raises(ValueError, match="none of the items has a text vector"):
        white_of(np.zeros((3, 4), dtype=np.float32), 0.1)
    one = white_of(np.array([[0, 0], [1, 2]], dtype=np.float32), 0.1)
    assert np.isfinite(one).all()


def test_every_reader_of_a_catalogue_gets_the_same_table(tmp_path):
    ids = [f"item-{number}" for number in range(400)]
    catalog = ItemCatalog(ids, ids, cone()[1:], {"encoder": "test", "revision": "1"})
    config = RetrConfig(hidden_size=16, num_attention_heads=2, text_size=6, text_whitening=0.1, text_path=True)
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(config)
    model.save_pretrained(tmp_path)
    catalog.save_pretrained(tmp_path)
    table = text_table(config, catalog)
    assert np.array_equal(table.numpy(), white_of(catalog.item_table(), 0.1))
    recommender = Recommender.from_pretrained(tmp_path)
    assert torch.equal(recommender.processor.item_table(), table)
    torch.testing.assert_close(recommender.item_embeddings[:, 16:], table)
    zero_shot = Recommender.from_pretrained(tmp_path, catalog=tmp_path)
    assert torch.equal(zero_shot.processor.item_table(), table)
    assert text_table(RetrConfig(item_features="id", vocab_size=401), catalog) is None
    with pytest.raises(Exception, match="expected a ridge of 0 or more"):
        RetrConfig(text_whitening=-1)
