"""One case on one workload -> one row: rates of both sides, their ratio, share of the machine's limit, peak memory."""

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .cases import CASES, Setting
from .memory import side_peaks
from .timing import ProductLimit, alternate, ratio
from .workload import Source, open_workload

RATES = ("tokens", "targets", "users")
WARMUP = 2


def measure(source: Source, name: str, setting: Setting, repeats: int = 5, memory: bool = True) -> dict[str, Any]:
    """A row of the table.

    Both sides do the same repetitions in turns (timing.alternate). All figures are medians over the repetitions;
    ``ratios`` are those of the repetitions themselves, with the least and the most of them. ``share``: operations that
    the work needs (arithmetic.py) a second, over ``gflops``, the limit measured before each turn.

    Raises:
        DataError: a source that cannot be read, or has no text vectors where the case reads them.
    """
    case, workload = CASES[name], open_workload(source)
    pair, limit = case.build(workload, setting), ProductLimit()

    def before() -> None:
        limit.measure()
        pair.before()

    seconds = alternate((pair.ours, pair.other), repeats, WARMUP, before)
    work = [pair.work(n) for n in range(WARMUP, WARMUP + repeats)]
    peaks = side_peaks(source, name, setting) if memory else (None, None)
    row = {
        "case": name,
        "workload": workload.name,
        "synthetic": workload.synthetic,
        "against": case.other,
        "max_length": workload.max_length,
        "batch_size": workload.batch_size,
        "items": workload.num_items,
        "setting": vars(setting),
        "repeats": repeats,
        "gflops": limit.gflops,
    }
    for side, taken, peak in zip(("ours", "other"), seconds, peaks, strict=True):
        rates = {
            f"{what}/s": float(np.median([getattr(one, what) for one in work] / taken))
            for what in RATES
            if getattr(work[0], what)
        }
        operations = np.array([one.operations for one in work])
        share = float(np.median(operations / taken) / 1e9 / limit.gflops) if operations.any() else None
        milliseconds = float(np.median(taken / [one.calls for one in work]) * 1e3)
        row[side] = {"ms": milliseconds, **rates, "share": share, "peak_mb": peak, "seconds": taken.tolist()}
    return row | {"ratios": {"time": ratio(*seconds)._asdict()}}


def machine() -> dict[str, Any]:
    """What the figures depend on beside the code: processor, cores, threads, settings of threads and allocator."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            processor = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "environment": {k: value for k, value in sorted(os.environ.items()) if k.startswith(("MALLOC_", "OMP_"))},
    }


COLUMNS = ("case", "workload", "against", "ratio", "of", "least - most", "ms", "tokens/s", "targets/s", "users/s")
COLUMNS += ("of the limit", "peak MB")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one line a row; two figures in a cell are ours / the other side's."""

    def cell(row: Mapping[str, Any], key: str, form: str) -> str:
        pair = [row[side].get(key) for side in ("ours", "other")]
        if all(value is None for value in pair):
            return ""
        return " / ".join("-" if value is None else format(value, form) for value in pair)

    def batch(row: Mapping[str, Any]) -> str:
        return f", {row['batch_size']} a batch" if "targets/s" in row["ours"] else ""

    lines = [
        [
            row["case"],
            f"{row['workload']}, N={row['max_length']}" + batch(row),
            row["against"],
            f"**{found['median']:.2f}**",
            rate,
            f"{found['least']:.2f} - {found['most']:.2f}",
            cell(row, "ms", ",.1f"),
            *(cell(row, f"{what}/s", ",.0f") for what in RATES),
            cell(row, "share", ".0%"),
            cell(row, "peak_mb", ",.0f"),
        ]
        for row in rows
        for rate, found in row["ratios"].items()
    ]
    cells = [list(COLUMNS), *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = ["| " + " | ".join(x.ljust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])
