"""Ours against another toolkit, each in processes of its own interpreter, which take turns."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .cases import Setting
from .drivers.clock import NOT_IMPORTABLE
from .timing import ratio
from .workload import Source, open_workload

WARMUP = 2
TASKS = {
    "training-softmax": ("--task", "training", "--loss", "softmax"),
    "training-bce": ("--task", "training", "--loss", "bce"),
    "finetuning": ("--task", "training", "--loss", "softmax"),  # items by text and id
    "ranking": ("--task", "ranking"),
}


@dataclass(frozen=True)
class Peer:
    """A toolkit: the cases it has a driver for (benchmark/drivers), and how it is installed."""

    cases: tuple[str, ...]
    install: str


PEERS = {
    "recbole": Peer(
        ("training-softmax", "ranking"),
        "pip install recbole==1.2.1 'setuptools<81' 'numpy<2' 'pandas<2.3' 'scipy<1.14'",
    ),
    "replay": Peer(
        ("training-softmax", "ranking"),
        "pip install 'replay-rec[torch]==0.22.0' 'pandas<3' 'scikit-learn<1.9' 'pyarrow<24'",
    ),
    "sasrec-pytorch": Peer(
        ("training-bce",),
        "git clone https://github.com/pmixer/SASRec.pytorch, and --peer-path SASRec.pytorch/python",
    ),
    "unisrec": Peer(
        ("finetuning",),
        "as recbole, git clone https://github.com/RUCAIBox/UniSRec, and --peer-path UniSRec",
    ),
}


def measure_against(
    name: str,
    case: str,
    source: Source,
    setting: Setting,
    script: Path,
    python: str = sys.executable,
    path: str | None = None,
    repeats: int = 5,
    steps: int = 4,
) -> dict[str, Any]:
    """A row of the table, as ``measure.measure``: ours and the peer's network on the same histories.

    Both leave out each user's last two items in training and rank the last one. Each repetition is a process of ours
    and one of the peer's, in turns, with the same environment; what is timed in them tells ``script``.

    Args:
        name: one of ``PEERS``.
        script: scripts/benchmark_peers.py, which both run.
        python, path: the peer's interpreter, and its checkout where it is no package.
        steps: optimiser steps that are timed, after a warm-up of two.

    Raises:
        DataError: a process that fails: the toolkit cannot be imported, or whatever it says.
    """
    workload = open_workload(source)
    arguments = {
        "--max-length": workload.max_length,
        "--batch-size": workload.batch_size,
        "--hidden-size": setting.hidden_size,
        "--layers": setting.layers,
        "--heads": setting.heads,
        "--inner": setting.inner,
        "--dropout": setting.dropout,
        "--router": setting.router,
        "--warmup": WARMUP,
        "--steps": steps,
    }
    with tempfile.TemporaryDirectory() as folder:
        histories = Path(folder) / "histories.npz"
        text = {"text": workload.text_vectors(None)} if case == "finetuning" else {}
        np.savez(
            histories,
            item_ids=workload.test.item_ids,
            offsets=workload.test.offsets,
            num_items=workload.num_items,
            **text,
        )
        ends = [str(histories), *TASKS[case], *(str(part) for pair in arguments.items() for part in pair)]
        sides = {
            "ours": [sys.executable, str(script), "retr_hf", *ends],
            "other": [python, str(script), name, *ends, *(["--path", path] if path else [])],
        }
        runs: dict[str, list[dict]] = {"ours": [], "other": []}
        for n in range(repeats):
            for side in list(sides)[:: -1 if n % 2 == 0 else 1]:  # the peer first: it may not be there
                runs[side].append(_run(sides[side], name if side == "other" else "retr_hf"))
    return _row(name, case, workload, setting, repeats, runs)


def _run(command: list[str], name: str) -> dict:
    """The JSON line that a driver prints last."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    except OSError as error:
        raise DataError(f"{command[0]} cannot be started ({error}): expected the Python of {name}") from None
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        hint = f"; to install it: {PEERS[name].install}" if done.returncode == NOT_IMPORTABLE and name in PEERS else ""
        raise DataError(f"{name} under {command[0]}: {told[0]}{hint}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _environment() -> dict[str, str]:
    """The same for both: ours, with this package to be found wherever it is."""
    here = str(Path(__file__).resolve().parents[2])
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": here if before is None else f"{here}{os.pathsep}{before}"}


def _row(name: str, case: str, workload, setting: Setting, repeats: int, runs: dict[str, list[dict]]) -> dict:
    row = {
        "case": case,
        "workload": workload.name,
        "synthetic": workload.synthetic,
        "against": f"{name} {runs['other'][0]['version']}",
        "max_length": workload.max_length,
        "batch_size": workload.batch_size,
        "items": workload.num_items,
        "setting": vars(setting),
        "repeats": repeats,
        "ratios": {},
    }
    rates = [f"{what}/s" for what in ("tokens", "targets", "users") if runs["ours"][0].get(what)]
    for side, done in runs.items():
        row[side] = {
            "ms": float(np.median([one["seconds"] / one["calls"] for one in done]) * 1e3),
            **{rate: float(np.median([one[rate[:-2]] / one["seconds"] for one in done])) for rate in rates},
            "peak_mb": float(np.median([one["peak_mb"] for one in done])),
            "seconds": [one["seconds"] for one in done],
        }
    for rate in rates if case != "ranking" else ["users/s"]:
        a_unit = {side: [one["seconds"] / one[rate[:-2]] for one in done] for side, done in runs.items()}
        found = ratio(a_unit["ours"], a_unit["other"])._asdict()
        if found not in row["ratios"].values():  # where every token has its target they are one
            row["ratios"][rate] = found
    return row
