"""UniSRec: a converted checkpoint scores as its forward pass, written out by hand, does; items keep their identity."""

import numpy as np
import pytest
import torch

from retr_hf.conversion.item_rows import tokens_from_inter
from retr_hf.conversion.safe_checkpoint import read_checkpoint
from retr_hf.conversion.their_items import encoder_stamp, features_metadata, read_features, read_items
from retr_hf.conversion.their_settings import TheirSettings
from retr_hf.conversion.unisrec import catalog_rows, convert_unisrec
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.processing_retr import RetrProcessor, check_catalog

ITEMS = 11
HISTORIES = [[7, 3, 9, 10], [0, 3, 5, 7, 2], [8, 1, 4, 6, 0], [10, 2, 6, 9, 3]]  # every token occurs


@pytest.fixture
def features(recbole):
    drawn = np.random.default_rng(3).normal(size=(ITEMS, recbole.text)).astype(np.float32)
    drawn[6] = drawn[2]  # two items with the same text
    return drawn


def theirs(recbole, base, features, stage, seed=1):
    """(weights as in their checkpoint, tokens by row) of a model fine-tuned on the dataset at ``base``."""
    tokens = ["[PAD]", *tokens_from_inter(base, recbole.unisrec)]
    weights = recbole.random_weights(len(tokens) - 1, ids=stage == "transductive_ft", adaptor=True, seed=seed)
    if stage != "pretrain":
        weights["plm_embedding.weight"] = torch.zeros(len(tokens), recbole.text)
        weights["plm_embedding.weight"][1:] = torch.from_numpy(features[[int(token) for token in tokens[1:]]])
    return weights, tokens


def catalog_of(base, recbole, encoder="bert"):
    ids, texts = read_items(base)
    vectors = read_features(base.with_name("X.feat1CLS"), len(ids), recbole.text)
    return ItemCatalog(ids, texts, vectors, features_metadata(encoder))


def convert(recbole, base, weights, stage, tokens=None, **settings):
    path = recbole.save(base.parent / "x.pth", weights, {**recbole.unisrec, "train_stage": stage, **settings})
    checkpoint, catalog = read_checkpoint(path), catalog_of(base, recbole)
    settings = TheirSettings(checkpoint)
    rows = catalog_rows(checkpoint, settings, catalog, base, tokens)
    stamp = encoder_stamp("bert", recbole.text)
    return convert_unisrec(checkpoint, settings, stamp, catalog, rows), catalog


@pytest.mark.parametrize("stage", ["transductive_ft", "inductive_ft", "pretrain"])
def test_scores_are_theirs(recbole, atomic, features, stage):
    base = atomic(HISTORIES, features)
    weights, tokens = theirs(recbole, base, features, stage)
    model, catalog = convert(recbole, base, weights, stage)
    texts = torch.zeros(len(tokens), recbole.text)
    texts[1:] = torch.from_numpy(features[[int(token) for token in tokens[1:]]])
    assert tokens[1:] != sorted(tokens[1:], key=int)  # their order is not that of the index
    check_catalog(model.config, catalog)
    processor = RetrProcessor(catalog, max_length=recbole.length)
    raw = ["none", *(f"b{ITEMS - 1 - int(token)}" for token in tokens[1:])]
    columns = catalog.index_of(raw[1:])
    for history in ([1], [5, 2, 2, 11], list(range(3, 11))):
        scores = recbole.unisrec_scores(weights, texts, history)
        with torch.no_grad():
            inputs = processor([raw[row] for row in history])
            logits = model(**inputs, text_embeddings=processor.item_table()).logits[0]
        torch.testing.assert_close(logits[columns] * 0.05, scores[1:], atol=2e-6, rtol=1e-5)
    assert model.config.item_features == ("text+id" if stage == "transductive_ft" else "text")


def test_config(recbole, atomic, features):
    base = atomic(HISTORIES, features)
    weights, _ = theirs(recbole, base, features, "transductive_ft")
    model, catalog = convert(recbole, base, weights, "transductive_ft")
    config = model.config
    assert (config.text_size, config.num_experts, config.adaptor_dropout) == (recbole.text, 3, 0.2)
    assert (config.temperature, config.sequence_loss_weight, config.score) == (0.05, 1e-3, "cosine")
    assert (config.vocab_size, config.catalog_hash) == (ITEMS + 1, catalog.hash)
    assert config.text_encoder == catalog.text_encoder == "bert not normalized"


def test_no_catalogue_is_needed_to_read_texts(recbole, tmp_path):
    weights = recbole.random_weights(0, ids=False, adaptor=True)
    path = recbole.save(tmp_path / "x.pth", weights, {**recbole.unisrec, "train_stage": "pretrain"})
    checkpoint = read_checkpoint(path)
    model = convert_unisrec(checkpoint, TheirSettings(checkpoint), encoder_stamp("bert", recbole.text))
    assert model.config.catalog_hash is None and model.get_input_embeddings() is None


def test_items_that_their_numbering_leaves_out_keep_their_text(recbole, atomic, features):
    base = atomic(HISTORIES[:3], features)
    weights, tokens = theirs(recbole, base, features, "transductive_ft")
    model, catalog = convert(recbole, base, weights, "transductive_ft")
    assert len(tokens) - 1 == ITEMS  # all occur: nothing is left out
    base = atomic(HISTORIES[1:3], features, folder="fewer")
    weights, tokens = theirs(recbole, base, features, "transductive_ft")
    model, catalog = convert(recbole, base, weights, "transductive_ft")
    absent = sorted(set(range(ITEMS)) - {int(token) for token in tokens[1:]})
    assert absent == [9, 10]
    table = model.get_input_embeddings().weight
    assert [index - 1 for index in range(1, ITEMS + 1) if not table[index].any()] == absent
    for row, token in enumerate(tokens[1:], start=1):
        assert torch.equal(table[int(token) + 1], weights["item_embedding.weight"][row])


def test_the_text_vectors_tell_the_order_where_no_file_does(recbole, atomic, features):
    features[6] += 1  # all texts differ
    base = atomic(HISTORIES, features)
    weights, _ = theirs(recbole, base, features, "transductive_ft")
    from_files, _ = convert(recbole, base, weights, "transductive_ft")
    for file in base.parent.glob("*.inter"):
        file.unlink()
    from_texts, _ = convert(recbole, base, weights, "transductive_ft")
    assert torch.equal(from_texts.get_input_embeddings().weight, from_files.get_input_embeddings().weight)


def test_an_order_that_cannot_be_known_is_refused(recbole, atomic, features):
    base = atomic(HISTORIES, features)
    weights, tokens = theirs(recbole, base, features, "transductive_ft")
    files = {file: file.read_text() for file in base.parent.glob("*.inter")}
    for file in files:
        file.unlink()
    with pytest.raises(DataError, match="2 of the 11 items of the checkpoint share their text vector"):
        convert(recbole, base, weights, "transductive_ft")
    given, _ = convert(recbole, base, weights, "transductive_ft", tokens=tokens[1:])
    assert torch.equal(given.get_input_embeddings().weight[int(tokens[4]) + 1], weights["item_embedding.weight"][4])

    swapped = [tokens[2], tokens[1], *tokens[3:]]
    with pytest.raises(DataError, match="2 of 11 rows of the checkpoint have another text vector"):
        convert(recbole, base, weights, "transductive_ft", tokens=swapped)
    with pytest.raises(DataError, match="10 items in RecBole's order, but 11 rows"):
        convert(recbole, base, weights, "transductive_ft", tokens=tokens[2:])
    with pytest.raises(DataError, match=r"11 of 11 are others, such as \['b3'"):
        convert(recbole, base, weights, "transductive_ft", tokens=[f"b{token}" for token in tokens[1:]])

    for file, content in files.items():
        file.write_text(content)
    del weights["plm_embedding.weight"]  # no proof left: the files alone
    convert(recbole, base, weights, "transductive_ft")


def test_features_of_another_dataset_are_found_out(recbole, atomic, features):
    base = atomic(HISTORIES, features)
    for stage in ("transductive_ft", "inductive_ft"):
        weights, _ = theirs(recbole, base, features, stage)
        weights["plm_embedding.weight"][4] += 0.5
        with pytest.raises(DataError, match="1 of (the )?11 (rows|text vectors)"):
            convert(recbole, base, weights, stage)


def test_contradictions(recbole, atomic, features):
    base = atomic(HISTORIES, features)
    weights, _ = theirs(recbole, base, features, "transductive_ft")
    weights["moe_adaptor.experts.3.lin.weight"] = torch.zeros(1)  # ends the row of experts: 3 have a bias, 4 a weight
    with pytest.raises(DataError, match="expected a gate, its noise, and experts of one shape"):
        convert(recbole, base, weights, "transductive_ft")
    del weights["moe_adaptor.experts.3.lin.weight"]
    wrong = {"plm_size": 768, "n_exps": 8, "adaptor_layers": [768, 300], "temperature": None}
    with pytest.raises(DataError) as told:
        convert(recbole, base, weights, "inductive_ft", **wrong)
    for mistake in (
        "plm_size: the weights show 10, but 768",
        "n_exps: the weights show 3, but 8",
        "adaptor_layers: the weights show [10, 12], but [768, 300]",
        "temperature: not in the checkpoint",
        "train_stage='inductive_ft', but the checkpoint has an id table",
        "5 mistakes",
    ):
        assert mistake in str(told.value)
