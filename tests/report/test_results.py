"""Rows survive the file, concurrent writers, and say where a file is broken."""

import json
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from retr_hf.errors import DataError
from retr_hf.report.results import ResultRow, append_rows, commit_of, environment, read_rows, require_room

ROOT = Path(__file__).parents[2]

ROW = ResultRow(
    recipe="recipes/scientific.yaml",
    system="X-RETR",
    domain="scientific",
    sources=["games", "yelp"],
    split="test",
    protocol="full",
    candidates=4385,
    metrics={"HR@10": 0.125, "NDCG@10": 0.0625},
    num_users=8442,
    seed=1,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
    settings={"title": "crème | brûlée"},
)


def test_rows_survive_the_file(tmp_path):
    rows = [ROW, replace(ROW, seed=2, **environment())]
    append_rows(tmp_path / "new" / "rows.jsonl", rows[:1])
    append_rows(tmp_path / "new" / "rows.jsonl", rows[1:])
    assert read_rows(tmp_path / "new" / "rows.jsonl") == rows


def test_the_latest_of_two_equal_measurements_wins(tmp_path):
    later = replace(ROW, metrics={"HR@10": 0.5}, date="2024-05-13T10:00:00+00:00")
    earlier_elsewhere = replace(ROW, metrics={"HR@10": 0.9}, date="2024-05-13T11:45:00+02:00")  # 09:45 UTC
    append_rows(tmp_path / "a.jsonl", [ROW, later, replace(ROW, sources=[])])
    append_rows(tmp_path / "b.jsonl", [earlier_elsewhere])
    rows = read_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert rows == [later, replace(ROW, sources=[])]
    assert read_rows(tmp_path / "*.jsonl") == rows
    assert read_rows([str(tmp_path / "*.jsonl"), tmp_path / "a.jsonl"]) == rows


@pytest.mark.parametrize(
    "change",
    [
        *({name: "other"} for name in ("recipe", "system", "domain", "split", "init")),
        *({"sources": ["other"]}, {"protocol": "sampled"}, {"seed": 9}, {"synthetic": True}, {"num_users": 9}),
    ],
    ids=str,
)
def test_different_measurements_are_kept_apart(tmp_path, change):
    append_rows(tmp_path / "rows.jsonl", [ROW, replace(ROW, **change)])
    assert len(read_rows(tmp_path / "rows.jsonl")) == 2


def test_what_is_evaluated_again_at_other_cutoffs_keeps_the_first_ones(tmp_path):
    first = replace(ROW, metrics={"HR@10": 0.1, "MRR": 0.05}, settings={"steps": 7})
    again = replace(ROW, metrics={"HR@5": 0.08, "MRR": 0.05}, settings={}, date="2024-05-14T09:30:00+00:00")
    append_rows(tmp_path / "rows.jsonl", [first, again])
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert row == replace(again, metrics={"HR@10": 0.1, "MRR": 0.05, "HR@5": 0.08}, settings={"steps": 7})
    trained_anew = replace(again, metrics={"HR@5": 0.09, "MRR": 0.06}, date="2024-05-15T09:30:00+00:00")
    append_rows(tmp_path / "rows.jsonl", [trained_anew])
    assert read_rows(tmp_path / "rows.jsonl") == [trained_anew]


def test_rows_that_do_not_fit_on_the_disk_are_told_and_leave_the_file_as_it_was(tmp_path):
    code = f"""
import resource, signal
from retr_hf.report.results import append_rows, read_rows
path = {str(tmp_path / "rows.jsonl")!r}
rows = read_rows(path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * {{size}} - 9,) * 2)
try:
    append_rows(path, rows)
except OSError as error:
    print("told")
"""
    append_rows(tmp_path / "rows.jsonl", [ROW])
    before = (tmp_path / "rows.jsonl").read_bytes()
    ran = subprocess.run(
        [sys.executable, "-c", code.replace("{size}", str(len(before)))], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "told\n" and (tmp_path / "rows.jsonl").read_bytes() == before


def append_many(path, seed):
    for number in range(20):
        append_rows(path, [replace(ROW, seed=seed * 100 + number, settings={"filler": "x" * 20_000})])


def test_concurrent_writers_do_not_interleave(tmp_path):
    path = tmp_path / "rows.jsonl"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        list(pool.map(append_many, [path] * 3, range(3)))
    assert sorted(row.seed for row in read_rows(path)) == [s * 100 + n for s in range(3) for n in range(20)]


def test_a_torn_last_line_is_named_and_not_glued_to_the_next_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW, replace(ROW, seed=2)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=re.escape(f"{path}:2: the last line is torn")):
        read_rows(path)
    append_rows(path, [replace(ROW, seed=3)])
    with pytest.raises(DataError, match=re.escape(f"{path}:2: not a line of JSON")):
        read_rows(path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[2]]))  # a whole line without its newline is whole
    assert [row.seed for row in read_rows(path)] == [1, 3]


def test_lines_that_are_no_rows_are_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [ROW])
    content = json.loads(path.read_text())
    for broken, message in [
        ({**content, "colour": 1}, ":1: not a result row: unknown colour"),
        ({key: value for key, value in content.items() if key != "seed"}, ":1: not a result row: missing seed"),
        ({**content, "protocol": "half"}, ":1: protocol must be one of full, full-unseen, sampled; got 'half'"),
        ([1], ":1: expected a JSON object, got list"),
    ]:
        path.write_text(json.dumps(broken) + "\n")
        with pytest.raises(DataError, match=re.escape(f"{path}{message}")):
            read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="nothing.jsonl: no result rows there"):
        read_rows(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize(
    "change",
    [{"metrics": {"HR@10": float("nan")}}, {"metrics": {}}, {"sources": "games"}, {"date": "yesterday"}],
    ids=str,
)
def test_a_row_refuses_what_it_cannot_mean(change):
    with pytest.raises(DataError):
        replace(ROW, **change)


def test_environment(tmp_path, monkeypatch):
    told = environment()
    assert set(told["versions"]) == {"python", "retr_hf", "torch", "transformers", "datasets", "accelerate"}
    monkeypatch.chdir(tmp_path)
    assert environment()["commit"] == told["commit"], "of the package, not of the folder where one stands"


def test_the_commit_is_that_of_the_repository_that_tracks_a_file(tmp_path):
    def git(*command):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "file"
    assert commit_of(file) is None
    commit_of.cache_clear()
    git("init")
    file.write_text("1")
    git("add", "file")
    git("commit", "--no-verify", "-m", "one")
    git("tag", "v1")
    (tmp_path / "rows.jsonl").write_text("an untracked result file is no change of the code")
    clean = commit_of(file)
    assert re.fullmatch("[0-9a-f]{40}", clean) and commit_of(tmp_path / "rows.jsonl") is None
    file.write_text("2")
    assert commit_of(file) == clean, "what changes while a process runs is not what it runs"
    commit_of.cache_clear()
    assert commit_of(file) == f"{clean}-dirty"
    commit_of.cache_clear()


def test_the_report_imports_nothing_heavy():
    code = (
        "import sys, retr_hf.report.tables, retr_hf.report.results; from retr_hf.report.results import environment; "
        "environment(); sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_room_for_rows_is_asked_before_the_work(tmp_path):
    require_room(tmp_path / "new" / "rows.jsonl")
    assert not [*(tmp_path / "new").iterdir()]
    append_rows(tmp_path / "new" / "rows.jsonl", [ROW])
    require_room(tmp_path / "new" / "rows.jsonl")
    assert read_rows(tmp_path / "new" / "rows.jsonl") == [ROW]
    with pytest.raises(OSError):
        require_room(tmp_path / "new")
