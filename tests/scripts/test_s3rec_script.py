"""scripts/s3rec.py on a tiny domain, and scripts/finetune.py from what it leaves."""

import json
import runpy
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world
from retr_hf.model.recommender import open_model
from retr_hf.report.results import read_rows
from retr_hf.training.run_folder import RUN_FILE

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "s3rec" / "beauty.yaml"
TINY = ["model.hidden_size=16", "training.max_steps=3", "training.progress=false"]


def script(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    except SystemExit as stopped:
        if stopped.code:
            raise


@pytest.fixture
def shop(tmp_path):
    write_domain(cycle_world(num_items=12, num_users=20, length=6).to_raw({}), tmp_path / "shop", k_core=0)
    items = pl.read_parquet(tmp_path / "shop" / "items.parquet")["item_id"].to_list()
    frame = pl.DataFrame({"item_id": items, "attributes": [[n % 3, 5] for n in range(len(items))]})
    frame.write_parquet(tmp_path / "attributes.parquet")
    return tmp_path / "shop"


def test_pretrained_and_fine_tuned(shop, tmp_path, monkeypatch, capsys):
    words = [f"data.domain={shop}", f"data.attributes={tmp_path}/attributes.parquet", f"output={tmp_path}/pre", *TINY]
    script(monkeypatch, "s3rec.py", RECIPE, *words)
    assert "4 attributes" in capsys.readouterr().out
    before, about = open_model(tmp_path / "pre"), json.loads((tmp_path / "pre" / RUN_FILE).read_text())
    assert before.config.direction == "causal" and about["trained_on"] == ["shop"] and about["finished"]

    system = ROOT / "recipes" / "intra" / "systems" / "s3rec.yaml"
    words = [f"data.domains=[{shop}]", f"init={tmp_path}/pre", f"output={tmp_path}/run", *TINY]
    words += [f"results={tmp_path}/rows.jsonl", "training.learning_rate=1e-9"]
    script(monkeypatch, "finetune.py", ROOT / "recipes" / "intra" / "beauty.yaml", system, *words)
    after = open_model(tmp_path / "run")
    for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0, msg=name)  # it began with the pre-trained weights
    assert {(row.system, *row.sources) for row in read_rows(tmp_path / "rows.jsonl")} == {("S3-Rec", "shop")}


def test_mistakes_are_told(shop, tmp_path, monkeypatch, capsys):
    words = [f"data.domain={shop}", "data.attributes=null", "results=rows.jsonl", "model.direction=causal", *TINY]
    words += ["training.patience=3"]
    with pytest.raises(SystemExit) as stopped:
        script(monkeypatch, "s3rec.py", RECIPE, *words, f"output={tmp_path}/pre")
    told = capsys.readouterr().err
    assert (
        stopped.value.code == 2
        and "model.direction" in told
        and "leaves no result row" in told
        and "training.patience" in told
    )
