"""A model with ids on a catalogue that changed: what it knows of an item follows the raw id."""

import json

import pytest
import torch
from transformers import pipeline

import retr_hf  # noqa: F401  tells transformers of the task
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.other_catalog import place_items, placement
from retr_hf.model.recommender import Recommender

MEMORY = {"transition_memory": 4, "repeat_term": True, "text_path": True}
HISTORIES = [["item-1", "item-4", "item-2"], ["item-8"]]


def changed(shop, gone=(), new=None):
    """The shop's catalogue in another order, without some items, with new ones in its middle."""
    items = dict(reversed([pair for pair in shop.items.items() if pair[0] not in gone]))
    first = dict(list(items.items())[:3])
    return shop.catalogue(first | (new or {}) | items)


def teach(recommender):
    """Gives a model ids that say something, and a memory of transitions."""
    model, catalog = recommender.model, recommender.processor.catalog
    with torch.no_grad():
        model.model.embed_tokens.weight[1:].normal_(0, 1)
    if model.transition_memory is not None:
        history = catalog.index_of(["item-1", "item-4", "item-2", "item-5", "item-1", "item-4", "item-8", "item-3"])
        model.transition_memory.count(history, torch.tensor([0, 5, 8]).numpy())
    recommender._encode_items()
    return recommender


def scores(recommender, items):
    answers = recommender.recommend(HISTORIES, k=50, exclude_seen=False)
    return [[score[item] for item in items] for score in ({i.item_id: i.score for i in each.items} for each in answers)]


@pytest.mark.parametrize("changes", [{}, {"score": "dot"}, MEMORY], ids=["cosine", "dot", "memory"])
def test_items_keep_their_scores_wherever_they_stand(shop, tmp_path, changes):
    teach(shop.recommender("text+id", **changes)).save_pretrained(tmp_path / "model")
    new = {"new-1": "red tent", "new-2": "blue tent"}
    changed(shop, ["item-6"], new).save_pretrained(tmp_path / "grown")
    before = Recommender.from_pretrained(tmp_path / "model")
    after = Recommender.from_pretrained(tmp_path / "model", catalog=tmp_path / "grown")
    kept = [item for item in shop.items if item != "item-6"]
    for was, now in zip(scores(before, kept), scores(after, kept), strict=True):
        assert now == pytest.approx(was, abs=1e-5)
    before.add_items(new)  # the same, the long way
    for was, now in zip(scores(before, new), scores(after, new), strict=True):
        assert now == pytest.approx(was, abs=1e-5)
    assert after.model.config.catalog_hash == after.processor.catalog.hash
    after.save_pretrained(tmp_path / "again")
    assert scores(Recommender.from_pretrained(tmp_path / "again"), kept) == scores(after, kept)


def test_what_is_told(shop, tmp_path):
    shop.recommender("text+id").save_pretrained(tmp_path)
    model = Recommender.from_pretrained(tmp_path).model
    assert place_items(model, tmp_path, shop.catalogue()) is None
    found = place_items(model, tmp_path, changed(shop, ["item-6"], {"new": "tent"}))
    assert str(found) == "8 of 9 items have an id vector, 1 are new to the model, 1 of its own are gone"
    assert not model.model.embed_tokens.weight[[0, 4]].any() and model.model.embed_tokens.weight[1:4].all()
    text = shop.recommender("text").model.config
    assert placement(text, tmp_path, changed(shop)) is None


def test_items_whose_texts_all_changed_are_asked_about(shop, tmp_path):
    """Ids 1, 2, 3 are in many shops."""
    shop.recommender("text+id").save_pretrained(tmp_path)
    config = Recommender.from_pretrained(tmp_path).model.config
    films = dict.fromkeys(list(shop.items)[:6], "a film about pirates")
    assert str(placement(config, tmp_path, shop.catalogue(films))).endswith("with like ids?")
    edited = shop.catalogue(shop.items | dict.fromkeys(list(shop.items)[:4], "now cheaper") | {"x": "tent"})
    assert "ARE THEY" not in str(placement(config, tmp_path, edited))


def test_what_a_saved_folder_says_of_its_training(shop, tmp_path, monkeypatch):
    """And no more: it is neither a finished run nor a converted model that may be overwritten."""
    shop.recommender("text+id").save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text(
        '{"name": "x", "trained_on": ["may"], "finished": "2026", "command": "c"}'
    )
    (tmp_path / "run" / "README.md").write_text("the card")
    recommender = Recommender.from_pretrained(tmp_path / "run")
    recommender.add_items({"new": "tent"})
    monkeypatch.chdir(tmp_path)
    recommender.save_pretrained("saved")
    assert json.loads((tmp_path / "saved" / "run.json").read_text()) == {"name": "x", "trained_on": ["may"]}
    assert (tmp_path / "saved" / "README.md").read_text() == "the card"
    piped = pipeline("sequential-recommendation", model=str(tmp_path / "run"))
    piped.save_pretrained("piped")
    assert (tmp_path / "piped" / "run.json").is_file() and (tmp_path / "piped" / "README.md").read_text() == "the card"


def test_ids_alone(shop, tmp_path):
    """Fewer items need no training; a new one does, and starts at random."""
    teach(shop.recommender("id")).save_pretrained(tmp_path / "model")
    changed(shop, ["item-6"]).save_pretrained(tmp_path / "fewer")
    before = Recommender.from_pretrained(tmp_path / "model")
    after = Recommender.from_pretrained(tmp_path / "model", catalog=tmp_path / "fewer")
    kept = [item for item in shop.items if item != "item-6"]
    for was, now in zip(scores(before, kept), scores(after, kept), strict=True):
        assert now == pytest.approx(was, abs=1e-5)
    more = changed(shop, (), {"new": "tent"})
    with pytest.raises(ValueError, match=r"1 of 10 items .* need training: scripts/finetune.py init="):
        place_items(before.model, tmp_path / "model", more)
    rows = placement(before.model.config, tmp_path / "model", more).rows
    before.model.place_items(torch.from_numpy(rows), more.hash)
    table = before.model.model.embed_tokens.weight
    assert not table[0].any() and 0 < table[4].std() < 0.1 and (table[[3, 5]].std(1) > 0.5).all()


def test_output_tables_follow_too(shop):
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, vocab_size=4, item_features="id", score="dot", output_table=True,
        item_bias=True, max_position_embeddings=5, direction="bidirectional", router="none", objective="softmax",
    )  # fmt: skip
    model = RetrForSequentialRecommendation(config)
    torch.nn.init.normal_(model.item_bias.weight)
    tables = [model.model.embed_tokens.weight, model.output_table.weight, model.item_bias.weight]
    before = [table.detach().clone() for table in tables]
    model.place_items(torch.tensor([0, 3, 0, 1]), "hash")
    for old, table in zip(before, (model.model.embed_tokens, model.output_table, model.item_bias), strict=True):
        assert torch.equal(table.weight[[1, 3]], old[[3, 1]]) and table.weight.requires_grad
    assert model.output_table.weight[2].any() and not model.item_bias.weight[2].any()


def test_what_cannot_be_placed(shop, tmp_path):
    shop.recommender("text+id").save_pretrained(tmp_path)
    config = Recommender.from_pretrained(tmp_path).model.config
    other = shop.catalogue({"x": "red tent"})
    with pytest.raises(ValueError, match=r"none of the 1 items of this one \(such as \['x'\]\)"):
        placement(config, tmp_path, other)
    other.save_pretrained(tmp_path)
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="without its own items .items.parquet. nobody knows which row is which"):
        placement(config, tmp_path / "bare", other)
    with pytest.raises(ValueError, match="nobody knows which row is which"):
        placement(config, tmp_path, shop.catalogue(shop.items | {"x": "red tent"}))
