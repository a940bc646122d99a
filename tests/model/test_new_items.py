"""Items no training has seen: as texts in a history, and added to a catalogue."""

import numpy as np
import pytest
import torch

from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender
from retr_hf.model.text_encoders import HashingEncoder, encoder_of
from retr_hf.model.text_whitening import Whitening

TERMS = {"text_path": True, "repeat_term": True, "score_gain": 0.5, "text_whitening": 0.1}
TEXT = {"unknown_items": "text"}


def same_scores(answer, expected, names=None):
    names = names or {}
    assert [names.get(i.item_id, i.item_id) for i in answer.items] == [i.item_id for i in expected.items]
    assert [i.score for i in answer.items] == pytest.approx([i.score for i in expected.items], abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"router": "none", "score": "dot"}, TERMS], ids=["cosine", "dot", "terms"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_is_read_as_the_item_with_that_text(shop, changes, side):
    """Without exclusion, and without a repeat term's place for it, a known item and its text score all items alike."""
    recommender = shop.recommender(processor=TEXT | {"padding_side": side}, **changes)
    if "repeat_term" in changes:  # what an item gives to itself, its text cannot
        torch.nn.init.zeros_(recommender.model.repeat_term.weights)
    histories = [["item-1", "item-4", "item-2"], ["item-4"]]
    as_texts = [["item-1", shop.items["item-4"], "item-2"], [shop.items["item-4"]]]
    known = recommender.recommend(histories, exclude_seen=False)
    for answer, expected in zip(recommender.recommend(as_texts, exclude_seen=False), known, strict=True):
        same_scores(answer, expected)
        assert [step.kept for step in answer.pathway] == [step.kept for step in expected.pathway]
    shown = [] if changes.get("router") == "none" else [shop.items["item-4"]]
    assert [step.title for step in answer.pathway] == shown


def test_the_tensors_of_texts(shop):
    processor = shop.recommender(processor=TEXT).processor
    batch = processor([["item-3", "red tent", "red tent"], ["blue tent"]])
    assert batch["input_ids"].tolist() == [[4, 10, 10], [11, 0, 0]]
    expected = HashingEncoder(16).encode(["red tent", "blue tent"], prompt="", normalize=True)
    assert np.array_equal(batch["new_text_embeddings"].numpy(), expected)
    assert "new_text_embeddings" not in processor([["item-3"]])
    assert processor.decode([4, 11], ["red tent", "blue tent"]) == [
        ("item-3", shop.items["item-3"]), ("blue tent", "blue tent"),
    ]  # fmt: skip
    arrays = processor([["item-3", "red tent"]], return_tensors="np")
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    whitened = RetrProcessor(shop.catalogue(), text_whitening=0.1, **TEXT).read(["red tent", " "])
    by_hand = Whitening.of(shop.catalogue().item_table(), 0.1)(np.stack([expected[0], np.zeros(16)]).astype("float32"))
    assert np.allclose(whitened, by_hand, atol=1e-6) and not whitened[1].any()


def test_a_text_is_never_recommended_and_a_loss_refuses_it(shop):
    recommender = shop.recommender(processor=TEXT)
    answer = recommender.recommend(["red tent", "item-1"], k=50)
    assert {item.item_id for item in answer.items} == set(shop.items) - {"item-1"}
    batch = recommender.processor([["red tent"]])
    with pytest.raises(ValueError, match="a loss needs all items in the table"):
        recommender.model(**batch, item_embeddings=recommender.item_embeddings, labels=torch.tensor([[1]]))
    with pytest.raises(ValueError, match="does not read"):
        shop.recommender("id", processor=TEXT).recommend(["red tent"])
    with pytest.raises(ValueError, match="a session reads items of the catalogue alone"):
        recommender.session([["item-1"]])


def test_an_encoder_that_is_another_one_is_refused(shop):
    with pytest.raises(ValueError, match="vectors of two encoders do not mix"):
        encoder_of(shop.catalogue(), "hashing:8")
    with pytest.raises(ValueError, match="has no item embeddings"):
        encoder_of(ItemCatalog(["a"], ["A"]))
    assert encoder_of(shop.catalogue()).name == "hashing:16"


@pytest.mark.parametrize("features", ["text", "text+id"])
@pytest.mark.parametrize("whitening", [None, 0.1])
def test_new_items_are_recommended_without_training(shop, tmp_path, features, whitening):
    recommender = shop.recommender(features, text_whitening=whitening)
    before = recommender.recommend(["item-1", "item-4"], k=50)
    new = {"new-1": "red tent", "new-2": "title of number 5"}
    recommender.add_items(new)
    after = recommender.recommend(["item-1", "item-4"], k=50)
    assert {item.item_id for item in after.items} == {item.item_id for item in before.items} | set(new)
    if whitening is None:  # the old ones score what they did
        same_scores(type(after)([i for i in after.items if i.item_id not in new], []), before)
    assert recommender.recommend(["new-1"], k=1).pathway[0].title == "red tent"
    recommender.save_pretrained(tmp_path)
    opened = Recommender.from_pretrained(tmp_path)
    same_scores(opened.recommend(["item-1", "new-1"], k=50), recommender.recommend(["item-1", "new-1"], k=50))
    whole = shop.catalogue(shop.items | new)
    assert opened.processor.catalog.hash == whole.hash
    assert np.allclose(opened.processor.catalog.embeddings, whole.embeddings)
    with pytest.raises(ValueError, match="1 of 2 are in the catalogue already, such as \\['item-1'\\]"):
        recommender.add_items({"new-3": "green tent", "item-1": "again"})
    assert len(recommender.processor.catalog) == 11


@pytest.mark.parametrize(
    ("items", "came"),
    [(["new"], "list \\['new'\\]"), ({}, "dict {}"), (None, "NoneType None"), (5, "int 5"), ({"a": None}, "'a': None")]
    + [({5: "tent"}, "5: 'tent'"), ([("new", "tent")] * 99, r"list .*\.\.\.\]")],
    ids=str,
)
def test_new_items_that_are_none(shop, items, came):
    recommender = shop.recommender()
    with pytest.raises(ValueError, match=f"expected {{raw id: text}}.* got {came}$"):
        recommender.add_items(items)
    assert len(recommender.processor.catalog) == 9


@pytest.mark.parametrize("whitening", [None, 0.1])
def test_an_open_session_follows_the_catalogue(shop, whitening):
    recommender, histories = shop.recommender("text+id", text_whitening=whitening), [["item-1", "item-4"], ["item-2"]]
    session = recommender.session(histories)
    assert len(session.recommend(k=50)[0].items) == 7
    recommender.add_items({"new-1": "red tent"})
    for answer, expected in zip(session.recommend(k=50), recommender.recommend(histories, k=50), strict=True):
        same_scores(answer, expected)
    recommender.add_items({"new-2": "blue tent"})
    session.append({1: "new-2"})
    histories[1].append("new-2")
    for answer, expected in zip(session.recommend(k=50), recommender.recommend(histories, k=50), strict=True):
        same_scores(answer, expected)
    assert {item.item_id for item in session.recommend(k=50)[1].items} == {*shop.items, "new-1"} - {"item-2"}


def test_an_id_table_has_no_place_for_new_items(shop):
    with pytest.raises(ValueError, match="a new item needs training"):
        shop.recommender("id").add_items({"new": "red tent"})
    with pytest.raises(ValueError, match="exactly where the old ones have some"):
        shop.catalogue().extended({"new": "red tent"})


def test_texts_are_whitened_as_the_model_reads_them_whatever_the_processor_was_told(shop):
    model, whitened = shop.recommender(text_whitening=0.1).model, shop.recommender(text_whitening=0.1).processor
    recommender = Recommender(model, RetrProcessor(shop.catalogue(), 5, **TEXT))
    assert np.array_equal(recommender.processor.read(["red tent"]), whitened.read(["red tent"]))
