"""One row format for every measurement: a JSON line, appended by evaluation and read by the report."""

import glob
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..version import __version__

PROTOCOLS = ("full", "full-unseen", "sampled")
PACKAGES = ("torch", "transformers", "datasets", "accelerate")


def environment(folder: str | Path = ".") -> dict[str, Any]:
    """What a measurement was made with: the fields ``commit``, ``versions`` and ``date`` of a row.

    ``commit`` is the git commit of ``folder``, with ``-dirty`` at its end if tracked files were changed, None outside
    of a repository. Versions come from package metadata: nothing heavy is imported.
    """
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True)
        commit = git.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    versions = {"python": platform.python_version(), "retr_hf": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
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
        measured = (self.recipe, self.system, self.domain, tuple(self.sources), self.split, self.protocol)
        return (*measured, self.seed, self.synthetic)


FIELDS = {entry.name for entry in fields(ResultRow)}
REQUIRED = FIELDS - {"commit", "versions", "model", "settings"}


def append_rows(path: str | Path, rows: Iterable[ResultRow]) -> None:
    """Appends rows to a JSON lines file, which is made if it is missing. Nothing in it is replaced.

    All rows go out in one write under a lock and are on the disk when it returns, so that runs that end at the same
    time do not interleave. A torn last line (a full disk, a crash) is closed first and stays visible to ``read_rows``.
    """
    lines = "".join(json.dumps(asdict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+", buffering=0) as file:
        _lock(file)  # released when the file is closed
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            lines = lines if file.read(1) == b"\n" else "\n" + lines
        file.write(lines.encode())
        os.fsync(file.fileno())


def read_rows(paths: str | Path | Iterable[str | Path]) -> list[ResultRow]:
    """Rows of one or several JSON lines files; a path may be a pattern (``runs/*/rows.jsonl``).

    The same measurement (``ResultRow.key``) seen twice, in one file or in several: the one with the latest date wins,
    of equal dates the one read last. The order is that of the first appearance.

    Raises:
        DataError: no such file, a torn or malformed line (named by file and number), missing or unknown fields.
    """
    rows: dict[tuple, ResultRow] = {}
    for path in _expand([paths] if isinstance(paths, (str, Path)) else paths):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _parse(line, f"{path}:{number}", torn=number == len(lines))
                if row.key not in rows or row.when >= rows[row.key].when:
                    rows[row.key] = row
    return list(rows.values())


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
