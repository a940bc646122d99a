"""What every driver is given, how its steps are timed, and what it returns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

NOT_IMPORTABLE = 3  # exit code of scripts/benchmark_peers.py where the toolkit is not there


@dataclass(frozen=True)
class Given:
    """Whole histories (1-based items, oldest first), the number of items, and their texts.

    Every toolkit trains on a history without its last two items, and ranks the last one given all before it.
    text: [num_items + 1, T] or None.
    """

    histories: list[list[int]]
    num_items: int
    text: np.ndarray | None = None

    def ranked(self, max_length: int, seconds: float) -> dict[str, Any]:
        """The result of a driver that ranked all users in one pass."""
        tokens = sum(min(len(history) - 1, max_length) for history in self.histories)
        return {"users": len(self.histories), "tokens": tokens, "seconds": seconds, "calls": 1}


@dataclass
class Clock:
    """Marks the time whenever a loop asks for its next batch; counts what was in the batches.

    warmup, steps: not timed, and timed.
    read: (tokens, targets) of each batch: items that the encoder reads, padding excluded, and terms of the loss.
    """

    warmup: int
    steps: int
    marks: list[float] = field(default_factory=list)
    read: list[tuple[int, int]] = field(default_factory=list)

    def next_step(self) -> bool:
        """Marks the time; whether another step is wanted."""
        self.marks.append(time.perf_counter())
        return len(self.marks) <= self.warmup + self.steps

    def result(self) -> dict[str, Any]:
        """The result of a driver that trained."""
        tokens, targets = (
            sum(int(step[part]) for step in self.read[self.warmup : self.warmup + self.steps]) for part in (0, 1)
        )
        seconds = self.marks[self.warmup + self.steps] - self.marks[self.warmup]
        return {"tokens": tokens, "targets": targets, "seconds": seconds, "calls": self.steps}


def version_of(package: str) -> str:
    """Of an installed package, or "checkout"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "checkout"


def require_loss(loss: str, options: Any) -> None:
    """Raises ValueError for a loss that a toolkit's driver does not train with."""
    if options.task == "training" and options.loss != loss:
        raise ValueError(f"{options.toolkit} is run with --loss {loss}, came {options.loss}")
