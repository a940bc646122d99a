"""scripts/prepare.py --engine, as a user runs it: another engine, the same domain."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from retr_hf.data.domain import load_domain

ROOT = Path(__file__).parents[2]
ROWS = [(f"i{(user * 3 + step) % 7}", f"u{user}", 5, step) for user in range(8) for step in range(5)]


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "prepare.py"), *map(str, arguments)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)


@pytest.fixture
def reader(tmp_path):
    log = tmp_path / "X.csv"
    log.write_text("".join(f"{item},{user},{rating},{time}\n" for item, user, rating, time in ROWS))
    return ["amazon2018", "--input", log, "--output", tmp_path / "made" / "shop", "--k-core", 2]


def test_another_engine_finds_the_domain_up_to_date(reader, tmp_path):
    first = run(*reader, "--engine", "duckdb", "--memory-limit", "200MB")
    assert first.returncode == 0, first.stderr
    assert load_domain(tmp_path / "made" / "shop").statistics["interactions"] == 40
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["shop"]  # and nothing of the engine's
    again = run(*reader)
    assert again.returncode == 0 and "up to date" in again.stdout


def test_a_stored_log(tmp_path):
    log = pl.DataFrame(ROWS, schema=["item_id", "user_id", "stars", "timestamp"], orient="row")
    log.write_parquet(tmp_path / "part-0.parquet")
    stored = ["stored", "--interactions", tmp_path / "*.parquet", "--output", tmp_path / "shop", "--engine", "duckdb"]
    options = ["--columns", "rating=stars", "--k-core", 2, "--min-rating", 5]
    for told in ("interactions", "up to date"):
        result = run(*stored, *options)
        assert result.returncode == 0 and told in result.stdout, result.stderr
    assert load_domain(tmp_path / "shop").statistics["interactions"] == 40


def test_a_memory_limit_without_duckdb_is_told(reader, tmp_path):
    result = run(*reader, "--memory-limit", "1GB")
    assert result.returncode == 2 and "expected with duckdb only" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()
