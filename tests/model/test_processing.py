"""Histories in, tensors out; and which model may read which catalogue."""

import numpy as np
import pytest
import torch

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.processing_retr import RetrProcessor, check_catalog


@pytest.fixture
def catalog():
    vectors = np.eye(4, 6, dtype=np.float32)
    return ItemCatalog(list("abcd"), ["A", "B", "C", "D"], vectors, {"encoder": "hashing:6", "revision": "1"})


def test_batches_are_padded_on_the_right_and_keep_the_most_recent(catalog):
    batch = RetrProcessor(catalog, max_length=3)([["a", "b", "c", "d"], ["d"]])
    assert batch["input_ids"].tolist() == [[2, 3, 4], [4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_one_history_is_a_batch_of_one(catalog):
    assert RetrProcessor(catalog)(["b", "a"])["input_ids"].tolist() == [[2, 1]]


def test_unknown_items(catalog):
    assert RetrProcessor(catalog)(["a", "?", "c"])["input_ids"].tolist() == [[1, 3]]
    with pytest.raises(ValueError, match=r"1 of 3 items are not in the catalogue, such as \['\?'\]"):
        RetrProcessor(catalog, unknown_items="error")(["a", "?", "c"])
    with pytest.raises(ValueError, match="at least one item of the catalogue, none of"):
        RetrProcessor(catalog)(["?"])
    with pytest.raises(ValueError, match="empty list"):
        RetrProcessor(catalog)([[]])
    with pytest.raises(ValueError, match="expected one of skip, error, text"):
        RetrProcessor(catalog, unknown_items="guess")


def test_padding_on_the_left(catalog):
    batch = RetrProcessor(catalog, max_length=3, padding_side="left")([["a", "b", "c", "d"], ["d"]])
    assert batch["input_ids"].tolist() == [[2, 3, 4], [0, 0, 4]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="padding_side='top': expected one of right, left"):
        RetrProcessor(catalog, padding_side="top")


def test_settings_come_back_and_what_nobody_knows_is_refused(catalog, tmp_path):
    settings = {"max_length": 7, "unknown_items": "error", "padding_side": "left", "text_whitening": 0.5}
    RetrProcessor(catalog, **settings).save_pretrained(tmp_path)
    loaded = RetrProcessor.from_pretrained(tmp_path, trust_remote_code=True, dtype="auto")
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert RetrProcessor.from_pretrained(tmp_path, max_length=3).max_length == 3
    with pytest.raises(TypeError, match="max_lenght"):
        RetrProcessor.from_pretrained(tmp_path, max_lenght=3)
    assert "ItemCatalog(4 items" in repr(loaded)


def test_a_string_is_no_history(catalog):
    with pytest.raises(ValueError, match="got the string"):
        RetrProcessor(catalog)("abc")


def test_decode_and_table(catalog):
    processor = RetrProcessor(catalog)
    assert processor.decode([4, 1]) == [("d", "D"), ("a", "A")]
    assert processor.item_table().shape == (5, 6) and processor.item_table()[0].eq(0).all()


def test_saved_with_a_model_it_takes_the_models_length(catalog, tmp_path):
    RetrConfig(max_position_embeddings=2, text_size=6).save_pretrained(tmp_path)
    RetrProcessor(catalog).save_pretrained(tmp_path)
    loaded = RetrProcessor.from_pretrained(tmp_path)
    assert loaded.max_length == 2 and loaded.catalog.hash == catalog.hash
    assert torch.equal(loaded.item_table(), RetrProcessor(catalog).item_table())


@pytest.mark.parametrize(
    ("saved", "reads"), [({}, 70), ({"max_length": None}, 70), ({"max_length": 50}, 50), ({"max_length": 99}, 70)]
)
def test_beside_a_model_it_reads_as_much_as_the_model_unless_it_was_told_less(catalog, tmp_path, saved, reads):
    """A folder of before, whose processor holds 50 whatever the model reads, opens as it did."""
    RetrConfig(max_position_embeddings=70, text_size=6).save_pretrained(tmp_path)
    RetrProcessor(catalog, **saved).save_pretrained(tmp_path)
    loaded = RetrProcessor.from_pretrained(tmp_path)
    assert loaded.max_length == reads
    assert loaded([["a"] * 80])["input_ids"].shape == (1, reads)


def test_without_a_model_histories_stay_whole(catalog, tmp_path):
    RetrProcessor(catalog).save_pretrained(tmp_path)
    loaded = RetrProcessor.from_pretrained(tmp_path)
    assert loaded.max_length is None and loaded([["a"] * 80])["input_ids"].shape == (1, 80)
    with pytest.raises(ValueError, match="max_length=0: expected at least 1"):
        RetrProcessor(catalog, max_length=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"item_features": "id", "vocab_size": 5, "catalog_hash": "0" * 64}, "belongs to catalogue 000000000000"),
        ({"item_features": "id", "vocab_size": 9}, "rows for 8 items, the catalogue has 4"),
        ({"item_features": "text", "text_encoder": "other"}, "text vectors of other, the catalogue has hashing:6@1"),
    ],
)
def test_a_model_refuses_a_catalogue_it_cannot_read(catalog, config, message):
    with pytest.raises(ValueError, match=message):
        check_catalog(RetrConfig(**config), catalog)


def test_a_text_model_reads_any_catalogue_of_its_encoder(catalog):
    check_catalog(RetrConfig(item_features="text", text_encoder="hashing:6@1", catalog_hash=None), catalog)
