"""A sentence-transformers model of the user's own, in a folder: by path, by hash, cut, and on several processes."""

import shutil
from contextlib import closing
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from retr_hf.data.text_embeddings import PARTIAL_DIR, embed_catalog
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.text_encoders import encode_like, encoder_of, load_encoder

WORDS = "oak elm red blue lamp chair table item".split()
TEXTS = [" ".join(np.random.default_rng(number).choice(WORDS[:-1], number % 9 + 1)) for number in range(70)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user's fine-tuning leaves: a small random BERT, mean pooling."""
    root = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS) + 2, max_position_embeddings=32, **sizes)).save_pretrained(root / "bert")
    tokenizer = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1} | {w: n + 2 for n, w in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(root / "bert")
    SentenceTransformer(str(root / "bert"), device="cpu").save(str(root / "my-encoder"))  # adds the pooling
    return root / "my-encoder"


def catalog_at(path):
    ItemCatalog([f"id{number}" for number in range(len(TEXTS))], TEXTS).save_pretrained(path)
    return path


def vectors_of(path):
    return ItemCatalog.from_pretrained(path).embeddings


def test_a_folder_is_an_encoder_known_by_its_hash(folder, tmp_path):
    shop = catalog_at(tmp_path / "shop")
    run = embed_catalog(shop, str(folder), device="cpu", prompt="item ", truncate_dim=8, batch_size=16, progress=False)
    with safe_open(run.path, framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["encoder"] == "my-encoder", "no path of this machine is told"
    assert metadata["revision"].startswith("sha256:") and len(metadata["revision"]) == len("sha256:") + 64
    assert (metadata["dim"], metadata["prompt"], metadata["normalized"]) == ("8", "item ", "true")
    plain = SentenceTransformer(str(folder), device="cpu").encode(["item " + text for text in TEXTS])[:, :8]
    expected = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors_of(shop), expected, atol=1e-5)


def test_other_weights_are_another_encoder(folder, tmp_path):
    shop, other = catalog_at(tmp_path / "shop"), tmp_path / "my-encoder"
    embed_catalog(shop, str(folder), device="cpu", progress=False)
    shutil.copytree(folder, other)
    model = SentenceTransformer(str(other), device="cpu")
    with torch.no_grad():
        model[0].auto_model.embeddings.word_embeddings.weight[3] += 1
    model.save(str(other))
    with pytest.raises(DataError, match=r"revision: 'sha256:\w+' there, 'sha256:\w+' wanted"):
        embed_catalog(shop, str(other), device="cpu", progress=False)


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_interrupted_and_give_its_vectors(folder, tmp_path, monkeypatch):
    one, two = catalog_at(tmp_path / "one"), catalog_at(tmp_path / "two")
    settings = {"batch_size": 8, "chunk_size": 32, "progress": False}
    embed_catalog(one, load_encoder(str(folder), device="cpu"), **settings)
    calls, encode = [], SentenceTransformer.encode

    def recorded(model, texts, **options):
        if not isinstance(texts, str):  # a string is the encoder asking for its width
            calls.append((len(texts), options["batch_size"], "pool" in options))
            if len(calls) == 6:
                raise KeyboardInterrupt
        return encode(model, texts, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", recorded)
    with pytest.raises(KeyboardInterrupt):
        embed_catalog(two, load_encoder(str(folder), device="cpu"), **settings)
    assert len(list((two / PARTIAL_DIR).glob("chunk-*"))) == 1 and calls == [(8, 8, False)] * 6

    before = set(active_children())
    with closing(load_encoder(str(folder), device=["cpu", "cpu"])) as encoder:
        run = embed_catalog(two, encoder, **settings)
        assert len(set(active_children()) - before) == 2
    assert not set(active_children()) - before
    assert run.encoded == 70 - 32 and calls[6:] == [(32, 8, True), (6, 8, True)], "two chunks, one start"
    np.testing.assert_allclose(vectors_of(two), vectors_of(one), atol=1e-6)
    assert np.abs(vectors_of(two)).sum(axis=1).min() > 0


def test_what_an_interrupted_pool_still_answers_is_not_read(folder, monkeypatch):
    told = []
    monkeypatch.setattr(
        SentenceTransformer, "start_multi_process_pool", lambda model, devices: told.append(devices) or 1
    )
    monkeypatch.setattr(SentenceTransformer, "stop_multi_process_pool", lambda *pool: told.append("stopped"))
    encoder = load_encoder(str(folder), device=["cpu", "cpu"])

    def interrupted(model, texts, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(SentenceTransformer, "encode", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            encoder.encode(["oak"], prompt="", normalize=True, batch_size=1)
    assert told == [["cpu", "cpu"], "stopped"] * 2
    encoder.close()
    assert len(told) == 4, "there was nothing to stop"


def test_encoders_side_by_side(folder, tmp_path):
    shop = catalog_at(tmp_path / "shop")
    run = embed_catalog(shop, f"{folder}+hashing:8", device="cpu", prompt="item ", batch_size=16, progress=False)
    assert run.metadata["encoder"] == "my-encoder+hashing:8" and run.metadata["dim"] == "24"
    alone = embed_catalog(
        catalog_at(tmp_path / "a"), str(folder), device="cpu", prompt="item ", batch_size=16, progress=False
    )
    words = embed_catalog(catalog_at(tmp_path / "b"), "hashing:8", progress=False)  # the prompt is for the first alone
    parts = np.concatenate([vectors_of(alone.path.parent), vectors_of(words.path.parent)], axis=1)
    np.testing.assert_allclose(vectors_of(shop), parts / np.sqrt(2), atol=1e-6)

    catalog = ItemCatalog.from_pretrained(shop)
    with closing(encoder_of(catalog, f"{folder}+hashing:8")) as encoder:
        np.testing.assert_allclose(encode_like(catalog, TEXTS[:5], encoder), vectors_of(shop)[:5], atol=1e-6)
    with pytest.raises(ValueError, match="vectors of two encoders do not mix"):
        encoder_of(catalog, f"{folder}+hashing:16")


def test_side_by_side_a_text_without_words_has_the_other_part_only():
    with closing(load_encoder("hashing:4+hashing:2")) as encoder:
        encoder.parts[1].encode = lambda texts, **_: np.zeros((len(texts), 2), np.float32)
        vectors = encoder.encode(["red lamp"], prompt="", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(vectors), 1, atol=1e-6)
    assert not vectors[0, 4:].any()


@pytest.mark.parametrize("name", ["hashing+", "+hashing"])
def test_side_by_side_needs_both(name):
    with pytest.raises(ValueError, match="the name of a text encoder is empty"):
        load_encoder(" ")
    with pytest.raises(ValueError, match="expected encoders joined by"):
        load_encoder(name)


def test_side_by_side_is_not_truncated():
    with pytest.raises(ValueError, match="have no truncate_dim"):
        load_encoder("hashing+hashing", truncate_dim=4)
