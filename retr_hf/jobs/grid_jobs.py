"""The two kinds of jobs of a grid, and when they are done: read from what they left behind.

A training run is done if its folder is finished and was made with this very recipe, an evaluation if its rows are
there; and of a pre-trained model nothing counts that is older than it.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..errors import DataError
from ..report.results import ResultRow, read_rows
from ..training.recipe import Recipe
from ..training.run_folder import RUN_FILE, RunFolder
from ..training.strict_yaml import inline


@dataclass(frozen=True)
class TrainingJob:
    """A run of a training script; see ``queue.Job``.

    words: the command without --resume or --overwrite. start: the run whose model it begins with. rows: the file that
    its result rows go to, None of a run that has none.
    """

    name: str
    kind: str
    needs: str | None
    words: tuple[str, ...]
    recipe: Recipe
    folder: RunFolder
    start: RunFolder | None
    rows: Path | None = None

    def done(self) -> bool:
        """Whether the run is finished. RecipeError: it was made with another recipe. DataError: its rows are gone."""
        if not self.folder.finished or self._outdated():
            return False
        self.folder.require_same(self.recipe)
        if self.rows is not None and not any(map(self.made, _rows(self.rows))):
            domain, name = self.recipe["data"].domains[0], inline(self.recipe.name)
            again = f"scripts/evaluate.py {self.folder.path} {domain} --name {name} --results {self.rows}"
            raise DataError(f"{self.folder.path} is finished, but no row of it is in {self.rows}: python {again}")
        return True

    def made(self, row: ResultRow) -> bool:
        """Whether a result row is of this run's folder."""
        return row.model == str(self.folder.path)

    def took(self) -> float | None:
        """Seconds from start to end; None of a run that was interrupted."""
        about = _about(self.folder)
        return None if "resumed" in about else (_moment(about, "finished") - _moment(about, "started")).total_seconds()

    def command(self) -> list[str]:
        """The command, going on with what is there, or making it anew where its start is newer."""
        return [*self.words, "--quiet", "--overwrite" if self._outdated() else "--resume"]

    def _outdated(self) -> bool:
        began = (self.folder.path / RUN_FILE).is_file() and self.start is not None and self.start.finished
        return began and _moment(_about(self.folder), "started") < _moment(_about(self.start), "finished")


@dataclass(frozen=True)
class EvaluationJob:
    """A run of scripts/evaluate.py; see ``queue.Job``. ``start`` is the run whose model is evaluated, if any."""

    name: str
    kind: str
    needs: str | None
    words: tuple[str, ...]
    rows: Path
    system: str
    domain: str
    start: RunFolder | None
    cutoffs: tuple[int, ...]

    def done(self) -> bool:
        """Whether its rows are there, of this model and not of an older one. DataError: rows that cannot be read."""
        since = None if self.start is None else _moment(_about(self.start), "finished")
        wanted = {f"HR@{k}" for k in self.cutoffs}
        return any(
            self.made(row) and wanted <= row.metrics.keys() and (since is None or row.when >= since)
            for row in _rows(self.rows)
        )

    def made(self, row: ResultRow) -> bool:
        """Whether a result row is of this system on this domain."""
        return row.system == self.system and row.domain == self.domain

    def took(self) -> None:
        """Not known."""

    def command(self) -> list[str]:
        """The command."""
        return list(self.words)


def _rows(file: Path) -> list[ResultRow]:
    return read_rows(file) if file.is_file() else []


def _about(folder: RunFolder) -> dict:
    return json.loads((folder.path / RUN_FILE).read_text(encoding="utf-8"))


def _moment(about: dict, when: str) -> datetime:
    return datetime.fromisoformat(about[when])
