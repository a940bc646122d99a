"""scripts/report.py from the command line."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from retr_hf.data.synthetic import write_world
from retr_hf.errors import DataError
from retr_hf.report.results import ResultRow, append_rows

ROOT = Path(__file__).parents[2]

ROW = ResultRow(
    recipe="recipes/scientific.yaml",
    system="X-RETR",
    domain="scientific",
    sources=[],
    split="test",
    protocol="full",
    candidates=4385,
    metrics={"HR@10": 0.1, "NDCG@10": 0.05},
    num_users=8442,
    seed=1,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
)


def report(*arguments, folder):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "report.py", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_tables_and_figures(tmp_path):
    append_rows(tmp_path / "a" / "results.jsonl", [ROW])
    (tmp_path / "a" / "log.jsonl").write_text(json.dumps({"epoch": 1, "step": 5, "loss": 2.0, "HR@10": 0.1}) + "\n")

    shown = report("*/results.jsonl", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("## full ranking, test split, real data")
    assert "X-RETR (published)" in shown.stdout and "UniSRec" not in shown.stdout

    written = report("*/results.jsonl", "--output", "new/T.md", "--published", "all", "--figures", "a", folder=tmp_path)
    assert written.returncode == 0 and written.stdout == "", written.stderr
    assert "UniSRec (published)" in (tmp_path / "new" / "T.md").read_text(encoding="utf-8")
    assert (tmp_path / "a" / "learning_curves.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["T.md"]

    drawn = report(
        "*/results.jsonl", "--chart", "new/all.png", "--systems", "X-RETR", "--metrics", "HR@10", folder=tmp_path
    )
    assert drawn.returncode == 0 and "NDCG" not in drawn.stdout, drawn.stderr
    assert (tmp_path / "new" / "all.png").read_bytes().startswith(b"\x89PNG")
    refused = report("*/results.jsonl", "--systems", "X-RTR", folder=tmp_path)
    assert refused.returncode == 2 and "no row is of X-RTR: the rows are of X-RETR" in refused.stderr

    by_domain = report("a/results.jsonl", "--by-domain", folder=tmp_path)
    assert by_domain.returncode == 0 and "## scientific, test split, real data" in by_domain.stdout, by_domain.stderr

    paired = report("a/results.jsonl", "--paired", "--metrics", "NDCG@10", folder=tmp_path)
    assert paired.returncode == 0 and "| NDCG@10 difference |" in paired.stdout, paired.stderr


def test_a_look_at_domains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(ROOT / "scripts" / "report.py"))["main"]
    sizes = {"source_users": 20, "source_items": 60, "target_users": 20, "target_items": 60}
    write_world(tmp_path / "data", **sizes)
    main(["--domain", "data/camping"])
    told = capsys.readouterr().out
    assert told.startswith("domain ") and "camping: 1 warning, 0 notes" in told
    assert "warning: few-test-rows: 20 test rows" in told
    assert "wrote looks/camping/look.html and camping.png" in told

    main(["--domain", "data/camping", "--domain", "data/pets", "--output", "new/a", "--quiet"])
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in Path("new/a").iterdir()) == ["camping.png", "look.html", "pets.png"]

    with pytest.raises(DataError, match="nowhere: expected a prepared domain, but the folder does not"):
        main(["--domain", "nowhere"])
    assert capsys.readouterr().out == ""
    for arguments, message in [
        (["--domain", "a", "--figures", "b"], "--domain stands alone"),
        (["torn.jsonl", "--quiet"], "--quiet is for --domain"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert message in capsys.readouterr().err


def test_mistakes_are_told_without_a_traceback(tmp_path):
    (tmp_path / "torn.jsonl").write_text('{"recipe": ')
    for arguments, message in [
        ((), "nothing to report: name a file of result rows"),
        (("--output", "T.md", "--figures", "a"), "--output, --chart and --systems are about result rows"),
        (("--paired", "--figures", "a"), "--paired, --by-domain and --against are about result rows"),
        (("none.jsonl",), "error: none.jsonl: no result rows there"),
        (("torn.jsonl",), "error: torn.jsonl:1: the last line is torn"),
        (("--figures", "nowhere"), "no such log"),
    ]:
        run = report(*arguments, folder=tmp_path)
        assert run.returncode == 2 and message in run.stderr and "Traceback" not in run.stderr, run.stderr
        assert run.stdout == ""
