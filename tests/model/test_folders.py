"""What is said of a folder that is not what it was taken for."""

import json

import pytest

from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender, open_model


def test_a_run_that_is_not_finished_says_how_to_go_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for command in ("scripts/finetune.py recipe.yaml seed=1", "scripts/finetune.py recipe.yaml seed=1 --resume"):
        (tmp_path / "run.json").write_text(json.dumps({"command": command, "finished": None}))
        for opening in (open_model, Recommender.from_pretrained):
            with pytest.raises(
                ValueError, match="run is not finished.*: scripts/finetune.py recipe.yaml seed=1 --resume$"
            ):
                opening(tmp_path)


def test_a_model_without_items_asks_for_some(shop, tmp_path):
    recommender = shop.recommender()
    recommender.model.save_pretrained(tmp_path / "model")
    for opening in (Recommender.from_pretrained, RetrProcessor.from_pretrained):
        with pytest.raises(ValueError, match="a model without items of its own.*catalog=FOLDER.*--catalog FOLDER"):
            opening(tmp_path / "model")
    recommender.processor.catalog.save_pretrained(tmp_path / "shop")
    opened, expected = (
        Recommender.from_pretrained(tmp_path / "model", tmp_path / "shop"),
        recommender.recommend(["item-1"]),
    )
    assert [item.item_id for item in opened.recommend(["item-1"]).items] == [item.item_id for item in expected.items]


def test_other_folders(shop, tmp_path):
    with pytest.raises(ValueError, match="no such folder; scripts/prepare.py makes one"):
        ItemCatalog.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="items.parquet and catalog.json are missing; pass a folder made by"):
        ItemCatalog.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected a model folder, but it has no config.json"):
        open_model(tmp_path)
