"""The README's code: it compiles, what needs no earlier run is run, and the files it names are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_blocks():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_blocks(block):
    code = compile(block, "README.md", "exec")
    if "runs/" not in block:  # the others open what the quickstart leaves
        exec(code, {})


def test_files_it_names_exist():
    named = set(re.findall(r"\b(?:scripts|recipes)/[\w/]+\.(?:py|sh|yaml)", README))
    assert named and [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_result_tables_stand_in_the_rows():
    """Every measured number of the README's tables is the mean of rows in recipes/results."""
    from collections import defaultdict

    from retr_hf.report.results import read_rows

    cells = defaultdict(list)
    for row in read_rows(sorted((ROOT / "recipes" / "results").glob("*.jsonl"))):
        for metric, value in row.metrics.items():
            cells[row.recipe, row.system, tuple(row.sources), row.domain, row.protocol, metric].append(value)
    known = {f"{sum(values) / len(values):.4f}" for values in cells.values()}
    results = README.split("## Results")[1].split("## The journey")[0]
    lines = [line for line in results.splitlines() if line.startswith("| ") and "published" not in line]
    numbers = [number for line in lines for number in re.findall(r"\| (0\.\d{4})", line)]
    assert numbers and [number for number in numbers if number not in known] == []
