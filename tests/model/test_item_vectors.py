"""Item vectors on disk: the library reads what we write, and what is opened is the file and no copy of it."""

import os
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import EMBEDDINGS_FILE, ItemCatalog
from retr_hf.model.item_vectors import in_blocks, map_table, write_vectors
from retr_hf.model.text_whitening import text_table

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
IDS, TEXTS = list("abcd"), ["one", "two", "three", "four"]


def file_under(array: np.ndarray) -> str | None:
    """The file whose memory map an array lies in, by its bases; None for one in memory."""
    while array is not None:
        if isinstance(array, np.memmap):
            return str(array.filename)
        array = array.base
    return None


@pytest.mark.parametrize("reserving", [True, False])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_the_library_reads_what_is_written(tmp_path, monkeypatch, dim, reserving):
    if not reserving:  # as on macOS and Windows
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    vectors = np.arange(4 * dim, dtype=np.float32).reshape(4, dim)
    blocks = [(np.array([3, 0]), vectors[[3, 0]]), (slice(1, 2), vectors[1:2])]  # in any order, row 2 not at all
    write_vectors(tmp_path / "v", 4, dim, blocks, {"encoder": "ein Tisch für zwei"})
    found = load_file(tmp_path / "v")
    np.testing.assert_array_equal(found["embeddings"], vectors * [[1], [1], [0], [1]])
    assert found["padding"].tolist() == [[0] * dim]
    np.testing.assert_array_equal(map_table(tmp_path / "v")[1:], found["embeddings"])


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    catalog = ItemCatalog(IDS, TEXTS, VECTORS)
    catalog.save_pretrained(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        ItemCatalog(IDS, TEXTS, VECTORS + 1).save_pretrained(tmp_path)
    np.testing.assert_array_equal(ItemCatalog.from_pretrained(tmp_path).embeddings, VECTORS)
    assert not list(tmp_path.glob(".*")), "and nothing is left of it"


def test_writing_holds_a_block_and_not_the_table(tmp_path):
    rows, dim = 2**17, 32  # 16 MB in blocks of 2
    one = np.ones((2**14, dim), dtype=np.float32)
    tracemalloc.start()
    write_vectors(tmp_path / "v", rows, dim, ((slice(at, at + 2**14), one) for at in range(0, rows, 2**14)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert map_table(tmp_path / "v")[1:].all()
    assert peak < 4 * 2**20


def test_a_catalogue_that_is_opened_is_its_files(tmp_path):
    ItemCatalog(IDS, TEXTS, VECTORS, {"encoder": "e"}, VECTORS + 1).save_pretrained(tmp_path)
    catalog = ItemCatalog.from_pretrained(tmp_path)
    config = RetrConfig(text_size=3)
    for augmented, expected in ((False, VECTORS), (True, VECTORS + 1)):
        table = catalog.item_table(augmented)
        assert table.tolist() == [[0, 0, 0], *expected.tolist()]
        assert file_under(table) == file_under(table[1:]) is not None
        tensor = text_table(config, catalog, augmented)
        assert tensor.data_ptr() == table.ctypes.data, "what a model reads is no copy either"
    assert file_under(catalog.embeddings) == str(tmp_path / EMBEDDINGS_FILE)
    assert file_under(ItemCatalog(IDS, TEXTS, VECTORS).item_table()) is None


def test_who_writes_to_a_table_writes_to_no_file(tmp_path):
    ItemCatalog(IDS, TEXTS, VECTORS).save_pretrained(tmp_path)
    ItemCatalog.from_pretrained(tmp_path).item_table()[:] = 7
    torch.from_numpy(ItemCatalog.from_pretrained(tmp_path).item_table()).mul_(2)
    np.testing.assert_array_equal(ItemCatalog.from_pretrained(tmp_path).embeddings, VECTORS)


def test_a_catalogue_is_written_over_the_file_it_is_a_map_of(tmp_path):
    ItemCatalog(IDS, TEXTS, VECTORS).save_pretrained(tmp_path)
    catalog = ItemCatalog.from_pretrained(tmp_path)
    catalog.save_pretrained(tmp_path)
    for each in (catalog, ItemCatalog.from_pretrained(tmp_path)):
        np.testing.assert_array_equal(each.embeddings, VECTORS)


@pytest.mark.parametrize("tensors", [
    {"embeddings": VECTORS},  # as it was written once, and as others write it
    {"embeddings": VECTORS, "padding": np.zeros((1, 3), np.float32)},  # the library orders by name: the row comes last
    {"embeddings": VECTORS.astype(np.float16), "padding": np.zeros((1, 3), np.float16)},
])  # fmt: skip
def test_other_layouts_are_read_into_memory(tmp_path, tensors):
    catalog = ItemCatalog(IDS, TEXTS)
    catalog.save_pretrained(tmp_path)
    save_file(tensors, tmp_path / EMBEDDINGS_FILE, {"catalog_hash": catalog.hash})
    assert map_table(tmp_path / EMBEDDINGS_FILE) is None
    assert ItemCatalog.from_pretrained(tmp_path).item_table().tolist() == [[0, 0, 0], *VECTORS.tolist()]


def test_vectors_of_another_shape_are_refused(tmp_path):
    catalog = ItemCatalog(IDS, TEXTS, VECTORS, None, VECTORS)
    catalog.save_pretrained(tmp_path)
    about = {"catalog_hash": catalog.hash}
    write_vectors(tmp_path / "item_embeddings_word_drop.safetensors", 4, 2, in_blocks(VECTORS[:, :2]), about)
    with pytest.raises(ValueError, match="expected 4 vectors of width 3, got 4 of width 2"):
        ItemCatalog.from_pretrained(tmp_path)
    write_vectors(tmp_path / EMBEDDINGS_FILE, 3, 3, in_blocks(VECTORS[:3]), about)
    with pytest.raises(ValueError, match="expected 4 vectors, got 3"):
        ItemCatalog.from_pretrained(tmp_path)
