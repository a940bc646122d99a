"""ItemCatalog: indices, integrity, embeddings, and what it refuses."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr_hf.model.item_catalog import (
    AUGMENTED_EMBEDDINGS_FILE,
    CATALOG_FILE,
    EMBEDDINGS_FILE,
    ITEMS_FILE,
    ItemCatalog,
)

IDS, TEXTS = ["b", "a", "007"], ["a lamp", "", "ein Tisch für zwei"]
VECTORS = np.arange(6, dtype=np.float64).reshape(3, 2)
METADATA = {"encoder": "hashing:2", "revision": "1", "prompt": "", "normalized": "true"}


def test_indices_are_one_based_and_zero_is_unknown():
    catalog = ItemCatalog(IDS, TEXTS)
    assert len(catalog) == 3
    indices = catalog.index_of(["007", "b", "7", "a", None])
    assert indices.dtype == np.int64
    assert indices.tolist() == [3, 1, 0, 2, 0]
    assert catalog.index_of([]).tolist() == []
    large = ItemCatalog(many := [f"item-{number}" for number in range(100)], many)
    few = ["item-99", "?", "item-0", None, "item-50"]
    assert large.index_of(few).tolist() == [100, 0, 1, 0, 51] == large.index_of([*few, *many])[:5].tolist()
    assert catalog.index_of(np.array(["a", "b"])).tolist() == [2, 1]
    assert catalog.index_of(pa.chunked_array([["a"], ["b", "x"]])).tolist() == [2, 1, 0]
    assert [catalog.item_ids[i - 1] for i in (1, 2, 3)] == IDS


def test_ids_are_never_numbers():
    with pytest.raises(ValueError, match="str"):
        ItemCatalog(IDS, TEXTS).index_of([7])
    with pytest.raises(ValueError, match="expected strings"):
        ItemCatalog([1, 2], ["x", "y"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "at least one item"),
        ((["a", "b", "a"], ["", "", ""]), r"unique.*\['a'\]"),
        ((["a", "b"], [""]), "2 item_ids and 1 texts"),
        ((["a", None], ["", ""]), "None"),
        ((["a", "b"], ["", ""], np.zeros((3, 2))), r"\[2, dim\].*\[3, 2\]"),
        ((["a", "b"], ["", ""], np.zeros(2)), r"\[2, dim\]"),
        ((["a", "b"], ["", ""], np.array([[0.0], [np.nan]])), "1 rows are not finite, the first is row 1"),
        ((["a", "b"], ["", ""], np.zeros((2, 2)), {"catalog_hash": "other"}), "catalog_hash"),
        ((["a", "b"], ["", ""], None, None, np.zeros((2, 2))), "augmented_embeddings need"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ItemCatalog(*arguments)


def test_hash_sees_every_id_text_and_their_order():
    reference = ItemCatalog(["ab", "c"], ["x", "y"]).hash
    others = [
        (["a", "bc"], ["x", "y"]),  # the same letters, cut elsewhere
        (["ab", "c"], ["xy", ""]),
        (["c", "ab"], ["y", "x"]),
        (["ab", "c"], ["x", "Y"]),
    ]
    assert reference == ItemCatalog(["ab", "c"], ["x", "y"], np.zeros((2, 4))).hash
    assert len({reference, *(ItemCatalog(*other).hash for other in others)}) == 5


def test_hash_is_count_lengths_letters_of_ids_then_texts():
    # Another algorithm would orphan every embeddings file there is.
    def number(n):
        return n.to_bytes(8, "little")

    expected = number(1) + number(1) + b"a" + number(1) + number(2) + "ü".encode()
    assert ItemCatalog(["a"], ["ü"]).hash == hashlib.sha256(expected).hexdigest()


def test_item_table_has_a_zero_row_for_padding():
    table = ItemCatalog(IDS, TEXTS, VECTORS).item_table()
    assert table.dtype == np.float32
    assert table.tolist() == [[0, 0], [0, 1], [2, 3], [4, 5]]


def test_item_table_without_embeddings_says_what_to_do():
    with pytest.raises(ValueError, match=r"scripts/embed\.py"):
        ItemCatalog(IDS, TEXTS).item_table()


def test_save_and_load_change_nothing(tmp_path):
    catalog = ItemCatalog(IDS, TEXTS, VECTORS, METADATA, VECTORS + 1)
    catalog.save_pretrained(tmp_path / "new" / "folder")
    loaded = ItemCatalog.from_pretrained(tmp_path / "new" / "folder")
    assert (loaded.item_ids, loaded.texts, loaded.hash) == (IDS, TEXTS, catalog.hash)
    assert loaded.embeddings.dtype == np.float32
    np.testing.assert_array_equal(loaded.embeddings, VECTORS)
    np.testing.assert_array_equal(loaded.augmented_embeddings, VECTORS + 1)
    assert loaded.embeddings_metadata == {**METADATA, "catalog_hash": catalog.hash, "dim": "2"}
    assert ItemCatalog.from_pretrained(tmp_path / "new" / "folder", embeddings=False).embeddings is None
    files = list((tmp_path / "new" / "folder").iterdir())
    assert sorted(path.name for path in files) == sorted(
        [ITEMS_FILE, CATALOG_FILE, EMBEDDINGS_FILE, AUGMENTED_EMBEDDINGS_FILE]
    )
    assert len({path.stat().st_mode for path in files}) == 1  # who may read one may read all


def test_text_encoder_names_what_makes_vectors_interchangeable():
    def named(**changes):
        return ItemCatalog(IDS, TEXTS, VECTORS, METADATA | changes).text_encoder

    assert named() == "hashing:2@1"
    assert named(prompt="item: ") == "hashing:2@1 prompt='item: '"
    assert len({named(), named(revision="2"), named(encoder="other"), named(prompt="p")}) == 4
    assert ItemCatalog(IDS, TEXTS).text_encoder is None


def test_changed_text_is_detected(tmp_path):
    ItemCatalog(IDS, TEXTS).save_pretrained(tmp_path)
    pq.write_table(pa.table({"item_id": IDS, "text": ["a lamp!", *TEXTS[1:]]}), tmp_path / ITEMS_FILE)
    with pytest.raises(ValueError, match="changed since"):
        ItemCatalog.from_pretrained(tmp_path)


def test_embeddings_of_another_catalogue_are_refused(tmp_path):
    ItemCatalog(IDS, TEXTS, VECTORS, METADATA).save_pretrained(tmp_path)
    ItemCatalog(IDS[::-1], TEXTS).save_pretrained(tmp_path)
    assert (tmp_path / EMBEDDINGS_FILE).exists()
    with pytest.raises(ValueError, match="embed again"):
        ItemCatalog.from_pretrained(tmp_path)
    assert len(ItemCatalog.from_pretrained(tmp_path, embeddings=False)) == 3


def test_missing_files_and_other_formats(tmp_path):
    with pytest.raises(ValueError, match=f"{ITEMS_FILE} and {CATALOG_FILE} are missing"):
        ItemCatalog.from_pretrained(tmp_path)
    ItemCatalog(IDS, TEXTS).save_pretrained(tmp_path)
    about = json.loads((tmp_path / CATALOG_FILE).read_text())
    assert about["num_items"] == 3
    (tmp_path / CATALOG_FILE).write_text(json.dumps(about | {"format": 9}))
    with pytest.raises(ValueError, match="expected format 1, got 9"):
        ItemCatalog.from_pretrained(tmp_path)
