"""scripts/embed.py as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retr_hf.model.item_catalog import AUGMENTED_EMBEDDINGS_FILE, EMBEDDINGS_FILE, ItemCatalog

ROOT = Path(__file__).parents[2]


def embed(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/embed.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture
def shops(tmp_path):
    folders = [tmp_path / "north", tmp_path / "south"]
    for folder in folders:
        ItemCatalog(["a", "b", "c"], [f"{folder.name} lamp", "walnut chair", "linen tent"]).save_pretrained(folder)
    return folders


def test_several_domains_then_up_to_date(shops):
    first = embed(*shops, "--encoder", "hashing:32", "--quiet")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count("3 items x 32, hashing:32; encoded 3") == 2
    assert all(ItemCatalog.from_pretrained(folder).embeddings.shape == (3, 32) for folder in shops)
    again = embed(*shops, "--encoder", "hashing:32", "--quiet")
    assert again.stdout.count("up to date") == 2


def test_progress_bar_prompt_and_word_drop(shops):
    settings = ("--encoder", "hashing:32", "--prompt", "item: ")
    plain = embed(shops[0], *settings)
    assert "items/s" in plain.stderr
    dropped = embed(shops[0], *settings, "--word-drop", "0.15", "--seed", "3", "--quiet")
    assert dropped.returncode == 0, dropped.stderr
    catalog = ItemCatalog.from_pretrained(shops[0])
    assert catalog.embeddings_metadata["prompt"] == "item: "
    assert catalog.augmented_embeddings is not None
    assert {EMBEDDINGS_FILE, AUGMENTED_EMBEDDINGS_FILE} <= {path.name for path in shops[0].iterdir()}


def test_mistakes_end_with_one_message(shops, tmp_path):
    embed(shops[0], "--encoder", "hashing:32", "--quiet")
    other = embed(shops[0], "--encoder", "hashing:16", "--quiet")
    nowhere = embed(tmp_path / "nowhere", "--encoder", "hashing", "--quiet")
    for run, expected in ((other, "--overwrite"), (nowhere, "scripts/prepare.py")):
        assert run.returncode == 2
        assert run.stderr.startswith("error: ") and expected in run.stderr
        assert "Traceback" not in run.stderr
    assert embed(shops[0], "--encoder", "hashing:16", "--overwrite", "--quiet").returncode == 0
