"""A saved folder opens in a fresh process, where the package is not installed and where it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retr_hf.model.hub import AUTO_MAP, local_folder
from retr_hf.model.modeling_retr import RetrForPreTraining
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender

FEATURES = ("id", "text", "text+id")


OPEN = """
import json, sys
if {without}:
    sys.modules["retr_hf"] = None  # as good as not installed: importing it raises ModuleNotFoundError
else:
    import retr_hf
from pathlib import Path
from transformers import (
    AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification, AutoProcessor, pipeline
)
answers = {{}}
for folder in sorted(Path({root!r}).iterdir()):
    trust = dict(trust_remote_code={trust})
    processor = AutoProcessor.from_pretrained(folder, **trust)
    classes = [AutoConfig.from_pretrained(folder, **trust), processor]
    for slot in (AutoModel, AutoModelForSequenceClassification, AutoModelForPreTraining):
        if slot is not AutoModelForPreTraining or folder.name == "text":
            model, info = slot.from_pretrained(folder, output_loading_info=True, **trust)
            assert not info["missing_keys"] and not info["mismatched_keys"], info
            classes.append(model)
    names = [type(each).__name__ for each in classes]
    pipe = pipeline("sequential-recommendation", model=str(folder), device="cpu", **trust)
    answer = pipe({{"history": ["item-1", "item-4"]}}, top_k=3)
    again = Path({again!r}) / folder.name
    pipe.save_pretrained(again)
    copied = pipeline("sequential-recommendation", model=str(again), device="cpu", **trust)
    assert copied({{"history": ["item-1", "item-4"]}}, top_k=3) == answer
    answers[folder.name] = names, answer
assert {without} != any(name.startswith("retr_hf.") for name in sys.modules), "the package, or its copy, was used"
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folders(shop, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for features in FEATURES:
        shop.recommender(features).save_pretrained(root / features)
    return root


@pytest.mark.parametrize("without", [True, False], ids=["without the package", "with it"])
def test_auto_classes_and_pipeline_in_a_fresh_process(shop, folders, tmp_path, without):
    code = OPEN.format(root=str(folders), without=without, trust=without, again=str(tmp_path / "again"))
    path = "" if without else str(Path(__file__).parents[2])
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answers = json.loads(run.stdout.splitlines()[-1])
    assert set(answers) == set(FEATURES)
    heads = ["RetrModel", "RetrForSequentialRecommendation", "RetrForPreTraining"]
    for features, (names, answer) in answers.items():
        assert names == ["RetrConfig", "RetrProcessor", *(heads if features == "text" else heads[:2])]
        expected = shop.recommender(features).recommend(["item-1", "item-4"], k=3)
        assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected.items]
        assert [item["title"] for item in answer["items"]] == [shop.items[item.item_id] for item in expected.items]
        assert [item["score"] for item in answer["items"]] == pytest.approx([item.score for item in expected.items])
        assert [step["item_id"] for step in answer["pathway"]] == ["item-1", "item-4"]


def test_every_class_saves_the_same_code_and_names_every_slot(shop, folders, tmp_path):
    RetrForPreTraining(shop.recommender().model.config).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["auto_map"] == AUTO_MAP
    package = Path(__file__).parents[2] / "retr_hf" / "model"
    code = {file.name for file in package.glob("*.py")} - {"__init__.py"}
    assert {file.name for file in tmp_path.glob("*.py")} == code == {f.name for f in (folders / "id").glob("*.py")}
    named = {reference.split(".")[0] + ".py" for reference in AUTO_MAP.values()}
    assert named <= code and "README.md" in {file.name for file in (folders / "id").iterdir()}


def test_a_card_that_was_there_travels(folders, tmp_path):
    (folders / "text" / "README.md").write_text("# mine\n")
    Recommender.from_pretrained(folders / "text").save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# mine\n"


def test_a_card_somebody_wrote_is_not_replaced(shop, tmp_path):
    (tmp_path / "README.md").write_text("# mine\n")
    shop.recommender().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# mine\n"


def test_a_repository_of_the_hub_opens_from_its_cache(shop, folders, tmp_path):
    """The cache is laid out as huggingface_hub leaves it; no network is asked."""
    cache, commit = tmp_path / "models--someone--shop", "0" * 40
    snapshot = cache / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    os.symlink(folders / "text", snapshot)
    opened = Recommender.from_pretrained("someone/shop", cache_dir=tmp_path, local_files_only=True)
    assert [i.item_id for i in opened.recommend(["item-1"], k=3).items] == [
        i.item_id for i in shop.recommender().recommend(["item-1"], k=3).items
    ]
    processor = RetrProcessor.from_pretrained("someone/shop", cache_dir=tmp_path, local_files_only=True)
    assert processor.catalog.hash == shop.catalogue().hash
    with pytest.raises(ValueError, match="someone/other: expected a folder, or the id of a repository on the Hub"):
        local_folder("someone/other", cache_dir=tmp_path, local_files_only=True)


def test_push_to_hub_sends_code_config_weights_catalogue_and_card(shop, folders, monkeypatch):
    sent = {}

    def upload(self, working_dir, repo_id, files_timestamps, **kwargs):
        sent[repo_id] = {file.name for file in Path(working_dir).iterdir()}

    class Api:
        def create_repo(self, repo_id, **kwargs):
            return type("Repository", (), {"repo_id": repo_id})

    monkeypatch.setattr("transformers.utils.hub.hf_api", Api)
    monkeypatch.setattr("transformers.utils.hub.PushToHubMixin._upload_modified_files", upload)
    Recommender.from_pretrained(folders / "text").push_to_hub("someone/shop")
    shop.recommender().processor.push_to_hub("someone/catalogue")
    catalog_files = {"items.parquet", "catalog.json", "item_embeddings.safetensors", "processor_config.json"}
    assert sent["someone/shop"] >= catalog_files | {"config.json", "model.safetensors", "modeling_retr.py", "README.md"}
    assert sent["someone/catalogue"] >= catalog_files | {"processing_retr.py"}


def test_the_model_of_a_saved_folder_computes_what_was_saved(shop, folders):
    opened = Recommender.from_pretrained(folders / "text+id")
    assert torch.equal(opened.item_embeddings, shop.recommender("text+id").item_embeddings)
