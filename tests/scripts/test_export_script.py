"""The export stage, run as a user runs it, and what serves from the folder it leaves."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world
from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.errors import DataError
from retr_hf.export.retriever import Retriever
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.recommender import Recommender
from retr_hf.model.text_whitening import text_table

ROOT = Path(__file__).resolve().parents[2]
IDS = [f"item-{number}" for number in range(40)]
HISTORIES = [IDS[:3], [IDS[7]], [IDS[1], "unknown", IDS[1], IDS[2]], IDS[10:29]]  # the last is longer than is read


def save_model(folder, **changes):
    """A model folder as training leaves it, its weights drawn anew."""
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(len(IDS), 8)).astype(np.float32)
    catalog = ItemCatalog(IDS, [f"title of {item}" for item in IDS], vectors, {"encoder": "test"})
    settings = dict(item_features="text+id", text_path=True, repeat_term=True, score_gain=1.0, text_encoder="test")
    settings |= {"transition_memory": 3, "text_whitening": 0.1} | changes
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, text_size=8, num_experts=2, initializer_range=0.4,
        max_position_embeddings=6, vocab_size=len(IDS) + 1,
        catalog_hash=catalog.hash, repeat_term_start=0.05, **settings,
    )  # fmt: skip
    model = RetrForSequentialRecommendation(config)
    if model.transition_memory is not None:
        model.transition_memory.count(torch.randint(1, len(IDS) + 1, (200,)).numpy(), range(0, 201, 10))
    model.save_pretrained(folder)
    catalog.save_pretrained(folder)
    return folder


def export(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "scripts" / "export.py"), run_name="__main__")


def refused(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        export(monkeypatch, *arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def served(model_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("served") / "onnx"
    with pytest.MonkeyPatch.context() as monkeypatch:
        export(monkeypatch, model_folder, "--output", output, "--index", "hnsw", "--queries", 50)
    return output


def test_the_folder_is_what_the_docstring_says(served, model_folder):
    names = {path.name for path in served.iterdir()}
    assert names == {
        *("user_tower.onnx", "item_tower.onnx", "item_table.safetensors", "items.faiss"),
        *("items.parquet", "catalog.json", "export.json"),
    }
    about = json.loads((served / "export.json").read_text())
    assert set(about["programs"]) == {"user_tower.onnx", "item_tower.onnx"}
    assert all(each["largest"] < 1e-5 * each["scale"] for each in about["programs"].values())
    assert about["index"]["kind"] == "hnsw" and about["index"]["recall"] == 1.0  # of 40 items a graph misses none
    assert about["index"]["histories"] == "50 histories of items drawn at random"
    table = Recommender.from_pretrained(model_folder).item_embeddings
    np.testing.assert_array_equal(load_file(served / "item_table.safetensors")["table"], table.numpy())


def test_new_texts_can_be_whitened_without_the_model(served, model_folder, tmp_path, monkeypatch):
    stored = load_file(served / "item_table.safetensors")
    white = (ItemCatalog.from_pretrained(model_folder).embeddings - stored["whitening_mean"]) @ stored[
        "whitening_matrix"
    ]
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    read = text_table(RetrConfig(text_whitening=0.1), ItemCatalog.from_pretrained(model_folder))[1:]
    np.testing.assert_allclose(white, read.numpy(), atol=1e-6)
    plain = save_model(tmp_path / "plain", text_whitening=None)
    export(monkeypatch, plain, "--output", tmp_path / "served")
    assert load_file(tmp_path / "served" / "item_table.safetensors").keys() == {"table"}


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_folder_recommends_as_the_model_does(served, model_folder, exclude_seen):
    ours = Retriever(served).recommend(HISTORIES, k=10, exclude_seen=exclude_seen)
    theirs = Recommender.from_pretrained(model_folder).recommend(HISTORIES, k=10, exclude_seen=exclude_seen)
    for mine, answer in zip(ours, theirs, strict=True):
        assert [(item_id, title) for item_id, title, _ in mine] == [(x.item_id, x.title) for x in answer.items]
        assert [score for *_, score in mine] == pytest.approx([x.score for x in answer.items], abs=1e-4)
    held = [{item for item, *_ in mine} & set(history) for mine, history in zip(ours, HISTORIES, strict=True)]
    assert not any(held) if exclude_seen else any(held)


def test_all_that_remains_is_less_than_k(served):
    (answer,) = Retriever(served).recommend([IDS[:38]], k=10)
    assert {item for item, *_ in answer} == set(IDS[38:])


def test_serving_loads_neither_torch_nor_transformers(served):
    code = (
        "import sys; from retr_hf.export.retriever import Retriever; "
        f"Retriever({str(served)!r}).recommend([['item-1']]); "
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_mistakes_of_a_caller_are_told(served, tmp_path):
    retriever = Retriever(served)
    for histories, told in (
        ([["nothing"]], "none of"), ("item-1", "got the string"), ([[]], "at least one item"), ([5], "got int 5")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            retriever.recommend(histories)
    with pytest.raises(DataError, match="k='3': expected a whole number"):
        retriever.recommend([["item-1"]], k="3")
    assert retriever.recommend([iter(["item-1"])], k=2) == retriever.recommend([["item-1"]], k=2)
    assert retriever.recommend([]) == []
    with pytest.raises(DataError, match="expected one of its programs, onnx, got 'torch'"):
        Retriever(served, program="torch")
    with pytest.raises(DataError, match="one without export.json"):
        Retriever(tmp_path)


def test_what_stands_there_is_kept(served, model_folder, monkeypatch, capsys, tmp_path):
    assert "holds an export already" in refused(monkeypatch, capsys, model_folder, "--output", served)
    assert "no export" in refused(monkeypatch, capsys, model_folder, "--output", model_folder, "--overwrite")
    assert (served / "items.faiss").is_file() and (model_folder / "model.safetensors").is_file()


def test_bert4rec_is_served_as_the_model_does(monkeypatch, tmp_path):
    """Its [mask] takes a place of what is read, and a bias stands beside each item."""
    terms = dict(text_path=False, repeat_term=False, transition_memory=0, router="none")
    ids = dict(item_features="id", score="dot", item_bias=True, direction="bidirectional", output_transform=True)
    model = save_model(tmp_path / "model", **terms, **ids)
    export(monkeypatch, model, "--output", tmp_path / "served", "--queries", 20)
    ours, theirs = Retriever(tmp_path / "served").recommend(HISTORIES), Recommender.from_pretrained(model)
    for mine, answer in zip(ours, theirs.recommend(HISTORIES), strict=True):
        assert [item for item, *_ in mine] == [item.item_id for item in answer.items]
        assert [score for *_, score in mine] == pytest.approx([item.score for item in answer.items], abs=1e-4)


def test_a_program_that_is_wrong_is_not_left(monkeypatch, capsys, tmp_path):
    ids = dict(item_features="id", text_path=False, num_hidden_layers=1, router="none")
    model, output = save_model(tmp_path / "model", **ids), tmp_path / "served"
    monkeypatch.setattr("retr_hf.export.programs.TOLERANCE", -1.0)
    assert "differs from the eager model" in refused(monkeypatch, capsys, model, "--output", output, "--torch")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_reads_times_is_exported_and_says_how_it_is_served(monkeypatch, tmp_path):
    model = save_model(tmp_path / "model", attention="modulating", num_hidden_layers=1, router="none")
    export(monkeypatch, model, "--output", tmp_path / "served", "--torch", "--queries", 20)
    assert json.loads((tmp_path / "served" / "export.json").read_text())["reads"] == ["times"]
    with pytest.raises(DataError, match="its user tower reads times"):
        Retriever(tmp_path / "served")


def test_another_catalogue_is_served_zero_shot_and_measured_on_its_test_histories(monkeypatch, tmp_path):
    domain, output = tmp_path / "cycle", tmp_path / "served"
    write_domain(cycle_world().to_raw({}), domain, k_core=0)
    embed_catalog(domain, "hashing:8", progress=False)
    encoder = ItemCatalog.from_pretrained(domain).text_encoder
    settings = dict(item_features="text", router="none", num_hidden_layers=1, text_encoder=encoder)
    model = save_model(tmp_path / "model", **settings)
    export(monkeypatch, model, "--catalog", domain, "--output", output, "--torch", "--queries", 30)
    about = json.loads((output / "export.json").read_text())
    assert about["index"]["histories"] == "30 test histories of cycle" and about["index"]["recall"] == 1.0
    history = ["cycle-item-0003", "cycle-item-0004"]
    (ours,) = Retriever(output).recommend([history], k=5)
    theirs = Recommender.from_pretrained(model, domain).recommend(history, k=5)
    assert [item for item, *_ in ours] == [item.item_id for item in theirs.items]
