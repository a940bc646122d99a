"""scripts/benchmark.py: every case runs, once and tiny, and tells what it did. Nothing here asks how long it took."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retr_hf.benchmark.cases import CASES, Setting
from retr_hf.benchmark.drivers.clock import NOT_IMPORTABLE
from retr_hf.benchmark.measure import table
from retr_hf.benchmark.memory import side_peaks
from retr_hf.benchmark.peers import PEERS, measure_against
from retr_hf.benchmark.timing import ProductLimit
from retr_hf.benchmark.workload import Source
from retr_hf.data.domain import load_domain
from retr_hf.data.synthetic import write_world
from retr_hf.errors import DataError

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = ["--users", "12", "--batch-size", "4", "--d", "16", "--length", "8", "--repeats", "1", "--quiet"]


@pytest.fixture
def benchmark(monkeypatch):
    """The script's main, with a small product as the limit."""
    monkeypatch.setattr("retr_hf.benchmark.measure.ProductLimit", lambda: ProductLimit(size=16))
    return load("benchmark").main


def load(name):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_case_on_a_synthetic_shape(benchmark, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    assert benchmark([*TINY, "--shape", "scientific-like", "--no-memory", "--json", str(rows)]) == 0
    shown = capsys.readouterr().out
    rows = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert [row["case"] for row in rows] == list(CASES)
    for row in rows:
        assert f"| {row['case']} " in shown and row["synthetic"] and row["commit"] and row["machine"]["processor"]
        (found,) = row["ratios"].values()
        seconds = {side: row[side]["seconds"][0] for side in ("ours", "other")}
        assert found["median"] == found["least"] == found["most"] == seconds["other"] / seconds["ours"]
        if row["case"].startswith("training") or row["case"] == "finetuning":
            # Every item that is read is followed by a target; in pre-training it is read in two views.
            assert row["ours"]["tokens/s"] == row["ours"]["targets/s"]
        if row["case"].startswith("pretraining"):
            assert row["ours"]["tokens/s"] > row["ours"]["targets/s"]
    assert "fewer than 5: not for quoting" in shown


def test_a_domain_instead_of_a_shape(benchmark, tmp_path, capsys):
    write_world(tmp_path, source_users=20, source_items=60, target_users=20, target_items=60)
    domain = str(tmp_path / "camping")
    assert load_domain(domain).catalog().text_encoder is None
    assert benchmark([*TINY, "--no-memory", "--data", domain, "--case", "finetuning,ranking"]) == 2
    assert "camping has no text vectors, which this case reads: run scripts/embed.py" in capsys.readouterr().err
    assert benchmark([*TINY, "--no-memory", "--data", domain]) == 0
    told = capsys.readouterr()
    assert "left out: pretraining-384: camping has no text vectors" in told.err
    assert "| ranking " in told.out and "| camping, N=8 " in told.out and "finetuning" not in told.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "rankin"], "unknown case 'rankin': did you mean ranking? expected some of training-bpr"),
        (["--shape", "netflix"], "unknown shape 'netflix'"),
        (["--data", "nowhere"], "nowhere: expected a prepared domain"),
        (["--against", "rekbole"], "unknown peer 'rekbole': did you mean recbole?"),
        (["--against", "sasrec-pytorch", "--case", "ranking"], "unknown case of sasrec-pytorch 'ranking'"),
        (["--against", "recbole,replay"], "expected one peer"),
    ],
)
def test_mistakes_are_told_before_anything_runs(benchmark, capsys, arguments, message):
    assert benchmark([*TINY, *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err and told.out == ""


def test_an_interruption_shows_what_there_is(benchmark, capsys, monkeypatch):
    module = sys.modules["retr_hf.benchmark.measure"]
    measured = []

    def one_and_no_more(*arguments):
        if measured:
            raise KeyboardInterrupt
        measured.append(module.measure(*arguments))
        return measured[0]

    script = load("benchmark")
    monkeypatch.setattr(script, "measure", one_and_no_more)
    assert script.main([*TINY, "--no-memory", "--case", "router,serving-1"]) == 130
    told = capsys.readouterr()
    assert "interrupted" in told.err and "| router " in told.out and "| serving-1 " not in told.out


def test_peak_memory_is_that_of_one_side_alone():
    source = Source("scientific-like", users=64, max_length=50, batch_size=64)
    setting = Setting(hidden_size=64, inner=64)
    ours, other = side_peaks(source, "training-softmax", setting)
    # 64 x 4 heads x 50 x 50 attention weights, several times over, against those of 260 real items.
    assert 50 < ours < other


FAKE = """import json, sys
name = sys.argv[1]
print("log line")
with open({log!r}, "a") as file:
    file.write(name + " ")
print(json.dumps(dict(tokens=60, targets=60 if name == "retr_hf" else 6, seconds=2.0 if name == "retr_hf" else 6.0,
                      calls=2, peak_mb=100, version="7")))
"""


def test_a_peer_takes_turns_with_ours(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(log=str(tmp_path / "log")))
    source = Source("scientific-like", users=4, batch_size=4)
    row = measure_against("recbole", "training-softmax", source, Setting(router="none"), script, repeats=2)
    assert (tmp_path / "log").read_text().split() == ["recbole", "retr_hf", "retr_hf", "recbole"]
    assert {rate: found["median"] for rate, found in row["ratios"].items()} == {"tokens/s": 3.0, "targets/s": 30.0}
    assert row["ours"]["tokens/s"] == 30 and row["other"]["targets/s"] == 1 and row["other"]["ms"] == 3000
    assert "| recbole 7 |" in table([row]) and "**30.00**" in table([row])


def test_a_peer_that_is_not_there(tmp_path):
    source = Source("scientific-like", users=4, batch_size=4)
    missing = tmp_path / "missing.py"
    missing.write_text("import sys; print('No module named recbole', file=sys.stderr); sys.exit(3)")
    for python, message in [(sys.executable, "install it: pip install recbole"), ("no/python", "cannot be started")]:
        with pytest.raises(DataError, match=message):
            measure_against("recbole", "ranking", source, Setting(), missing, python=python)


@pytest.mark.parametrize("task", [["--task", "ranking"], ["--loss", "softmax"], ["--loss", "bce"]])
def test_our_own_side_of_it(tmp_path, monkeypatch, capsys, task):
    items, offsets = np.random.default_rng(0).integers(1, 51, 36), [0, 9, 18, 27, 36]
    np.savez(tmp_path / "h.npz", item_ids=items, offsets=offsets, num_items=50)
    sizes = ["--max-length", "8", "--batch-size", "4", "--hidden-size", "16", "--inner", "16", "--warmup", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark_peers.py", "retr_hf", str(tmp_path / "h.npz"), *sizes, *task])
    monkeypatch.chdir(tmp_path)
    assert load("benchmark_peers").main() == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["seconds"] > 0 and told["peak_mb"] > 50
    if "ranking" in task:
        assert told["users"] == 4 and told["tokens"] == 4 * 8
    else:  # four steps of four histories, each without its last two items
        assert told["calls"] == 4 and told["tokens"] == told["targets"] == 4 * 4 * 6


def test_a_peer_needs_its_own_environment_alone():
    """Up to its toolkit's import a driver loads numpy and nothing else of weight."""
    script = load("benchmark_peers")
    assert set(script.DRIVERS) == {*PEERS, "retr_hf"}
    drivers = [f"retr_hf.benchmark.drivers.{module}" for name, module in script.DRIVERS.items() if name in PEERS]
    check = f"import sys, retr_hf.benchmark.memory, {', '.join(drivers)}; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    loaded = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "accelerate", "polars", "pyarrow", "tqdm"} & set(loaded.stdout.split())


def test_a_toolkit_that_cannot_be_imported(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "h.npz", item_ids=np.arange(1, 6), offsets=[0, 5], num_items=5)
    script = load("benchmark_peers")
    monkeypatch.setitem(sys.modules, "recbole", None)
    for arguments, code, message in [
        (["recbole"], NOT_IMPORTABLE, "recbole"),
        (["sasrec-pytorch"], 2, "sasrec-pytorch is run with --loss bce, came softmax"),
        (["sasrec-pytorch", "--loss", "bce", "--inner", "8"], 2, "feed-forward layers of the hidden size"),
    ]:
        monkeypatch.setattr(sys, "argv", ["benchmark_peers.py", arguments[0], str(tmp_path / "h.npz"), *arguments[1:]])
        assert script.main() == code and message in capsys.readouterr().err
