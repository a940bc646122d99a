"""The two scripts that convert, as a user runs them: a folder that recommends, or one message."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retr_hf import Recommender
from retr_hf.conversion.item_rows import tokens_from_inter
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.model.item_catalog import EMBEDDINGS_FILE, ItemCatalog

ROOT = Path(__file__).resolve().parents[2]
HISTORIES = [[3, 1, 0, 2], [0, 2, 3, 1], [1, 3, 2, 0]]


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs a script of the repository in this process -> (exit code, what it printed, what it complained)."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def unisrec(recbole, atomic, tmp_path):
    """(checkpoint in the transductive setting, its dataset)."""
    features = np.random.default_rng(0).normal(size=(4, recbole.text)).astype(np.float32)
    base = atomic(HISTORIES, features)
    weights = recbole.random_weights(4, adaptor=True)
    weights["plm_embedding.weight"] = torch.zeros(5, recbole.text)
    order = [int(token) for token in tokens_from_inter(base, recbole.unisrec)]
    weights["plm_embedding.weight"][1:] = torch.from_numpy(features[order])
    return recbole.save(tmp_path / "UniSRec-X.pth", weights, recbole.unisrec), base


def test_unisrec_with_ids(script, unisrec, tmp_path):
    checkpoint, base = unisrec
    code, out, err = script("convert_unisrec.py", checkpoint, tmp_path / "made", "--dataset", base.parent)
    assert (code, err) == (0, "")
    assert "UniSRec, text+id, ItemCatalog(4 items" in out and "recbole.config.configurator.Config" in out
    made = {path.name for path in (tmp_path / "made").iterdir() if path.suffix != ".py"}
    assert made == {"config.json", "model.safetensors", "items.parquet", "catalog.json", "README.md", "run.json",
                    "processor_config.json", EMBEDDINGS_FILE}  # fmt: skip
    answer = Recommender.from_pretrained(tmp_path / "made").recommend(["b2", "b0"], k=2)
    assert {item.item_id for item in answer.items} == {"b1", "b3"}
    card = (tmp_path / "made" / "README.md").read_text()
    for told in ("UniSRec-X.pth", "sha256", "X.feat1CLS", "n_heads=3", "to epoch 7", "bert-base-uncased (CLS)"):
        assert told in card
    assert str(tmp_path) not in card
    run = json.loads((tmp_path / "made" / "run.json").read_text())
    assert run["trained_on"] == ["X"] and run["converted_from"]["file"] == "UniSRec-X.pth" and "sources" not in run

    code, _, err = script("convert_unisrec.py", checkpoint, tmp_path / "made", "--dataset", base)
    assert code == 2 and "pass --overwrite to replace it" in err
    arguments = "--dataset", base, "--overwrite", "--encoder", "other", "--sources", "A", "B"
    assert script("convert_unisrec.py", checkpoint, tmp_path / "made", *arguments)[0] == 0
    assert json.loads((tmp_path / "made" / "run.json").read_text())["trained_on"] == ["A", "B", "X"]


def test_the_made_vectors_serve_the_prepared_domain(script, unisrec, tmp_path):
    checkpoint, base = unisrec
    script("convert_unisrec.py", checkpoint, tmp_path / "made", "--dataset", base.parent)
    write_domain(read_atomic(base.parent), tmp_path / "domain", k_core=0, num_negatives=1)
    (tmp_path / "domain" / EMBEDDINGS_FILE).write_bytes((tmp_path / "made" / EMBEDDINGS_FILE).read_bytes())
    catalog = ItemCatalog.from_pretrained(tmp_path / "domain")
    assert catalog.text_encoder == "bert-base-uncased (CLS) not normalized"
    served = Recommender.from_pretrained(tmp_path / "made", catalog=tmp_path / "domain")
    assert served.processor.catalog.hash == catalog.hash


def test_pretrained_unisrec_without_a_catalogue(script, recbole, tmp_path):
    weights = recbole.random_weights(0, ids=False, adaptor=True)
    settings = recbole.unisrec | {"train_stage": "pretrain", "dataset": "FHCKM"}
    checkpoint = recbole.save(tmp_path / "x.pth", weights, settings, protocol=2)
    code, out, err = script("convert_unisrec.py", checkpoint, tmp_path / "made")
    assert (code, err) == (0, "") and "UniSRec, text, no catalogue" in out
    assert not (tmp_path / "made" / "items.parquet").exists()
    assert "trained on | FHCKM" in (tmp_path / "made" / "README.md").read_text()


def test_sasrec(script, recbole, atomic, tmp_path):
    base = atomic(HISTORIES)
    checkpoint = recbole.save(tmp_path / "SASRec.pth", recbole.random_weights(4), recbole.settings)
    code, _, err = script("convert_recbole.py", checkpoint, tmp_path / "made")
    assert code == 2 and "does not say which is which" in err and "--item-tokens" in err
    code, out, err = script("convert_recbole.py", checkpoint, tmp_path / "made", "--dataset", base.parent)
    assert (code, err) == (0, "") and "SASRec, ItemCatalog(4 items" in out
    catalog = ItemCatalog.from_pretrained(tmp_path / "made")
    assert catalog.item_ids == tokens_from_inter(base, recbole.settings)
    assert len(Recommender.from_pretrained(tmp_path / "made").recommend(["3"], k=3).items) == 3

    (tmp_path / "items.txt").write_text("[PAD]\nw\nx\ny\nz\n")
    arguments = tmp_path / "given", "--item-tokens", tmp_path / "items.txt"
    assert script("convert_recbole.py", checkpoint, *arguments)[0] == 0
    assert ItemCatalog.from_pretrained(tmp_path / "given").item_ids == ["w", "x", "y", "z"]


def test_mistakes_end_with_one_message_and_leave_nothing(script, recbole, unisrec, tmp_path):
    checkpoint, base = unisrec
    (tmp_path / "cut.pth").write_bytes(checkpoint.read_bytes()[:5000])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    made = tmp_path / "made"
    for arguments, told in (
        (("convert_unisrec.py", checkpoint, made), "has item ids (transductive_ft): say whose with --dataset"),
        (("convert_unisrec.py", tmp_path / "cut.pth", made, "--dataset", base), "truncated; copy it again"),
        (("convert_unisrec.py", checkpoint, tmp_path / "full", "--dataset", base, "--overwrite"), "no converted model"),
        (("convert_unisrec.py", checkpoint, made, "--dataset", base, "--set", "n_heads"), "expected NAME=VALUE"),
        (("convert_unisrec.py", checkpoint, made, "--dataset", base, "--set", "n_heads=4"), "--set says 4"),
        (("convert_unisrec.py", checkpoint, made, "--item-tokens", "items.txt"), "--item-tokens needs --dataset"),
        (("convert_recbole.py", checkpoint, made, "--dataset", base), "scripts/convert_unisrec.py converts it"),
    ):
        code, _, err = script(*arguments)
        assert code == 2 and told in err and "Traceback" not in err
    assert not made.exists() and (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*partial*"))
