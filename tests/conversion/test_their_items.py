"""The items of RecBole's and UniSRec's files: one catalogue with what scripts/prepare.py makes of them."""

import numpy as np
import pytest

from retr_hf.conversion.their_items import find_dataset, read_features, read_items
from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import ItemCatalog

HISTORIES = [[3, 1, 0, 2], [0, 2, 3, 1], [1, 3, 2, 0]]


def test_the_catalogue_is_that_of_the_prepared_domain(atomic, tmp_path):
    base = atomic(HISTORIES, np.ones((5, 2)))  # the last item is in no history
    ids, texts = read_items(base)
    assert ids == ["b4", "b3", "b2", "b1", "b0"]
    assert texts == ["", "Thing b3.", "Thing b2.", "Thing b1.", "Thing b0."]
    write_domain(read_atomic(base.parent), tmp_path / "domain", k_core=0, num_negatives=1)
    assert ItemCatalog(ids, texts).hash == load_domain(tmp_path / "domain").catalog().hash


def test_tokens_choose_and_order_the_items(atomic, tmp_path):
    base = atomic(HISTORIES, np.ones((5, 2)))
    assert read_items(base, ["2", "0"]) == (["b2", "b4"], ["Thing b2.", ""])
    with pytest.raises(DataError, match=r"1 of 2 are others, such as \['5'\]"):
        read_items(base, ["2", "5"])
    bare = atomic(HISTORIES, folder="bare")
    assert read_items(bare, ["i2", "i0"]) == (["i2", "i0"], ["", ""])
    with pytest.raises(DataError, match="X.item2index: no such file"):
        read_items(bare)


def test_features_must_be_of_these_items_and_this_width(tmp_path):
    path = tmp_path / "X.feat1CLS"
    vectors = np.arange(12, dtype="<f4").reshape(4, 3)
    vectors.tofile(path)
    assert (read_features(path, 4, 3) == vectors).all()
    with pytest.raises(DataError, match="expected 4 items .* x 6 float32 .* got 48, which is vectors 3 wide"):
        read_features(path, 4, 6)
    with pytest.raises(DataError, match="no whole vectors for those items, or 4 items"):
        read_features(path, 5, 3)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="got 47, which is no whole vectors"):
        read_features(path, 4, 3)
    with pytest.raises(DataError, match="no such file"):
        read_features(tmp_path / "X.feat2CLS", 4, 3)


def test_a_folder_has_one_dataset_or_it_is_named(atomic, tmp_path):
    base = atomic(HISTORIES)
    assert find_dataset(base.parent) == base
    (base.parent / "Y.text").write_text("item_id:token\ttext:token_seq\n")
    with pytest.raises(DataError, match=r"got several \(X, Y\): name one"):
        find_dataset(base.parent)
    assert find_dataset(base) == base
    with pytest.raises(DataError, match="no such folder, and no files Z"):
        find_dataset(base.parent / "Z")
    with pytest.raises(DataError, match="got none"):
        find_dataset(tmp_path)
