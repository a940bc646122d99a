"""One row format for every measurement: a JSON line, appended by evaluation and read by the report."""

import glob
import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..version import __version__

PROTOCOLS = ("full", "full-unseen", "sampled")
PACKAGES = ("torch", "transformers", "datasets", "accelerate")


@cache  # what is committed while a process runs is not what it runs
def commit_of(file: Path) -> str | None:
    """The git commit of the repository that tracks a file, with ``-dirty`` at its end if tracked files were changed.

    None where no repository tracks it: a package installed inside somebody's repository is not at that one's commit.
    """
    tracked = ["git", "ls-files", "--error-unmatch", file.name]
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        subprocess.run(tracked, cwd=file.parent, capture_output=True, check=True)
        git = subprocess.run(describe, cwd=file.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return git.stdout.strip()


def environment() -> dict[str, Any]:
    """What a measurement was made with: the fields ``commit`` (of this package, ``commit_of``), ``versions`` and
    ``date`` of a row. Versions come from package metadata: nothing heavy is imported."""
    versions = {"python": platform.python_version(), "retr_hf": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    commit = commit_of(Path(__file__))
    return {"commit": commit, "versions": versions, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One system on one split of one domain, under one protocol, with one seed.

    ``ResultRow(recipe=..., ..., **environment())`` stamps it with the code that made it.

    Raises:
        DataError: an unknown protocol, no metrics, or a metric that is not a finite number.
    """

    recipe: str
    system: str
    domain: str
    sources: list[str]  # domains of the pre-training; [] is from scratch
    split: str
    protocol: str  # one of PROTOCOLS, see retr_hf/evaluation/ranking.py
    candidates: int  # how many items a target is ranked among, itself included
    metrics: dict[str, float]
    num_users: int
    seed: int
    synthetic: bool
    commit: str | None = None
    versions: dict[str, str | None] = field(default_factory=dict)
    date: str  # ISO 8601; without a zone it is read as UTC
    init: str | None = None  # the model whose weights it began with, as the recipe names it; None is from scratch
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise DataError(f"protocol must be one of {', '.join(PROTOCOLS)}; got {self.protocol!r}")
        if not isinstance(self.sources, list):
            raise DataError(f"sources must be a list of domain names ([] = from scratch), got {self.sources!r}")
        if not isinstance(self.metrics, dict) or not self.metrics:
            raise DataError(f'metrics must be a dictionary such as {{"HR@10": 0.1}}, got {self.metrics!r}')
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise DataError(f"metric {name} must be a finite number, got {value!r}")
        try:
            _moment(self.date)
        except (TypeError, ValueError):
            raise DataError(f"date must be ISO 8601 such as 2024-05-13T09:30:00+00:00, got {self.date!r}") from None

    @property
    def when(self) -> datetime:
        return _moment(self.date)

    @property
    def key(self) -> tuple:
        """What was measured. Two rows with the same key are the same measurement made twice."""
        measured = (self.made_by, self.system, self.domain, tuple(self.sources), self.split, self.protocol)
        return (*measured, self.seed, self.synthetic, self.num_users, self.candidates)

    @property
    def made_by(self) -> str:
        """The recipe and what it began with: rows that differ in it are no seeds of one another."""
        return self.recipe if self.init is None else f"{self.recipe} + init={self.init}"

    def repeats(self, other: "ResultRow") -> bool:
        """Whether both measured the same weights: what both tell of them is equal."""
        shared = self.metrics.keys() & other.metrics.keys()
        same = (math.isclose(self.metrics[name], other.metrics[name], rel_tol=1e-9) for name in shared)
        return self.key == other.key and bool(shared) and all(same)


FIELDS = {entry.name for entry in fields(ResultRow)}
REQUIRED = FIELDS - {"commit", "versions", "init", "model", "settings"}


def require_room(path: str | Path) -> None:
    """Makes the folder of a file of rows, and asks whether rows can be added: told before the work, not after.

    Raises:
        OSError: they cannot.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        open(path, "ab").close()
    else:
        tempfile.TemporaryFile(dir=path.parent).close()


def append_rows(path: str | Path, rows: Iterable[ResultRow]) -> None:
    """Appends rows to a JSON lines file, which is made if it is missing. Nothing in it is replaced.

    All rows go out in one write under a lock and are on the disk when it returns, so that runs that end at the same
    time do not interleave. A torn last line (a crash) is closed first and stays visible to ``read_rows``.

    Raises:
        OSError: they do not fit on the disk; the file is as it was.
    """
    lines = "".join(json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        _lock(file)  # released when the file is closed
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            lines = lines if file.read(1) == b"\n" else "\n" + lines
        left = memoryview(lines.encode())
        try:
            while left:  # a disk that is nearly full takes a part, and refuses the next
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def read_rows(paths: str | Path | Iterable[str | Path]) -> list[ResultRow]:
    """Rows of one or several JSON lines files; a path may be a pattern (``runs/*/rows.jsonl``).

    The same measurement (``ResultRow.key``) seen twice, in one file or in several: the one with the latest date wins,
    of equal dates the one read last. Where both measured the same weights (evaluated again, at other cutoffs say), the
    metrics and settings that only the other has are kept. The order is that of the first appearance.

    Raises:
        DataError: no such file, a torn or malformed line (named by file and number), missing or unknown fields.
    """
    rows: dict[tuple, ResultRow] = {}
    for path in _expand([paths] if isinstance(paths, (str, Path)) else paths):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _parse(line, f"{path}:{number}", torn=number == len(lines))
                rows[row.key] = _later(rows[row.key], row) if row.key in rows else row
    return list(rows.values())


def _later(first: ResultRow, second: ResultRow) -> ResultRow:
    older, newer = (first, second) if second.when >= first.when else (second, first)
    if not newer.repeats(older):
        return newer
    return replace(newer, metrics=older.metrics | newer.metrics, settings=older.settings | newer.settings)


def _moment(date: str) -> datetime:
    moment = datetime.fromisoformat(date)
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _expand(patterns: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        # A file whose own name looks like a pattern is that file.
        matches = [str(pattern)] if os.path.isfile(pattern) else sorted(glob.glob(str(pattern), recursive=True))
        files = [Path(match) for match in matches if os.path.isfile(match)]
        if not files:
            raise DataError(f"{pattern}: no result rows there; expected a JSON lines file that an evaluation wrote")
        found |= dict.fromkeys(files)
    return list(found)


def _parse(line: bytes, place: str, torn: bool) -> ResultRow:
    try:
        content = json.loads(line)
    except ValueError as error:
        if torn:
            reason = "the last line is torn (its run was interrupted while writing): remove the line, run that again"
        else:
            reason = f"not a line of JSON ({error}): remove the line or mend it"
        raise DataError(f"{place}: {reason}") from None
    if not isinstance(content, dict):
        raise DataError(f"{place}: expected a JSON object, got {type(content).__name__}")
    missing, unknown = sorted(REQUIRED - content.keys()), sorted(content.keys() - FIELDS)
    if missing or unknown:
        problems = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise DataError(f"{place}: not a result row: {'; '.join(problems)}")
    try:
        return ResultRow(**content)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None


def _lock(file) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no advisory locks; there the one append has to do
        return
    fcntl.flock(file, fcntl.LOCK_EX)
