"""What a run leaves on disk, and how it gets there whole: recipe, log, versions, checkpoints, the finished model.

OUTPUT/
  recipe.yaml           the resolved recipe; loading it repeats the run
  run.json              command, commit, versions, start and end
  log.jsonl             one JSON object a line: training steps and evaluations
  checkpoints/last/     everything a resumed run needs
  checkpoints/best/     the model with the best validation metric
  config.json, model.safetensors, ...   the finished model: a copy of best, written last
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

from ..errors import RecipeError
from . import strict_yaml
from .folder_lock import hold
from .recipe import Recipe

RECIPE_FILE, RUN_FILE, LOG_FILE, CHECKPOINTS = "recipe.yaml", "run.json", "log.jsonl", "checkpoints"
KNOWS_ALL = "trained_on_test_items"  # in run.json: the domains that no test can measure the model on
RESUMABLE = {"": ("description", "expected", "results"), "training": ("progress", "trackers", "save_every")}


class KnownTests:
    """The domains that a model was trained on with ``data.train_on=all``, it or one that it began with: no test of
    theirs can measure it. By ``run.json``, of a checkpoint its run's; none where there is no telling.

    Args:
        model: its folder; None is no model.
    """

    def __init__(self, model: str | Path | None):
        self.model, self.domains = model, []
        if model is None:
            return
        folder = Path(model).resolve()
        file = (folder.parents[1] if folder.parent.name == CHECKPOINTS else folder) / RUN_FILE
        if file.is_file():
            self.domains = _read_json(file).get(KNOWS_ALL, [])

    def refusal(self, domain: str) -> str | None:
        """Why it cannot be measured on a domain, or None."""
        if domain not in self.domains:
            return None
        return (
            f"{self.model} was trained on all of {domain} (data.train_on=all), what is tested too: its ranks would say "
            "nothing; take the run whose recipe it repeats"
        )

    def warning(self, domain: str) -> str | None:
        """What to think of when it is measured on another domain, or None."""
        if not self.domains or domain in self.domains:
            return None
        return (
            f"warning: {self.model} was trained on all of {', '.join(self.domains)}: what {domain} shares with it may "
            "be tested though it is known, and measured too well"
        )


class RunFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        last, best: its checkpoints.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / CHECKPOINTS / "last"
        self.best = self.path / CHECKPOINTS / "best"

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        file = self.path / RUN_FILE
        ours = file.is_file() and (self.path / RECIPE_FILE).is_file()  # a model that was saved by hand has the first
        return ours and _read_json(file).get("finished") is not None

    def open(self, recipe: Recipe, about: dict, resume: bool = False, overwrite: bool = False) -> None:
        """Prepares the folder for a run, or for its continuation.

        Raises:
            RecipeError: the folder holds a run and neither ``resume`` nor ``overwrite`` was asked for; or the run to be
                resumed had another recipe; or another process works in it; or what would be overwritten holds more than
                the run.
        """
        self._lock = hold(self.path)
        saved = self.path / RECIPE_FILE
        if saved.is_file() and resume:
            self.require_same(recipe)
            about = self._continued(about)
        elif saved.is_file() and not overwrite:
            raise RecipeError(
                str(self.path),
                ["holds a run already: --resume goes on with it, --overwrite starts anew, or set output="],
            )
        elif self.path.exists() and any(self.path.iterdir()) and not saved.is_file():
            raise RecipeError(str(self.path), ["is not empty and holds no run of ours: choose another output"])
        elif saved.is_file():
            if not (self.path / RUN_FILE).is_file():
                raise RecipeError(
                    str(self.path), [f"has a {RECIPE_FILE} but no {RUN_FILE}: not deleted, choose another output"]
                )
            if kept := list(self._not_its_own(recipe)):
                raise RecipeError(str(self.path), [f"--overwrite would delete {each}" for each in kept])
            shutil.rmtree(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        recipe.save(saved)
        self.write_json(RUN_FILE, about)

    def _not_its_own(self, recipe: Recipe) -> Iterator[str]:
        """What lies in the folder and is not of its run alone, in words."""
        here = self.path.resolve()
        for key, what in (("results", "the result rows"), ("init", "the model to begin with,")):
            path = getattr(recipe.run, key, None)
            if path is not None and Path(path).exists() and Path(path).resolve().is_relative_to(here):
                yield f"{what} {path}: set {key}= or output= to another place"
        for file in sorted(self.path.rglob(RUN_FILE)):
            if file.parent != self.path:
                yield f"another run, {file.parent}: set output= to another place, or move that run"

    def _continued(self, about: dict) -> dict:
        """``run.json`` of a resumed run: as it began, with the continuation noted."""
        file = self.path / RUN_FILE
        began = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else about
        before, now = began.get("num_processes", 1), about.get("num_processes", 1)
        if before != now:
            problem = f"began on {before} processes, resumed on {now}: the random state is one a process, use as many"
            raise RecipeError(str(self.path), [problem])
        return began | {"resumed": [*began.get("resumed", []), about]} if file.is_file() else about

    def require_same(self, recipe: Recipe) -> None:
        """Raises RecipeError, with the differences, if the folder's run has another recipe than this one."""
        saved = self.path / RECIPE_FILE
        before, after = strict_yaml.read(saved.read_text(encoding="utf-8"))[0], recipe.as_dict()
        problems = []
        for key in sorted(before.keys() | after.keys()):
            old, new = before.get(key), after.get(key)
            if isinstance(old, dict) or isinstance(new, dict):
                free = RESUMABLE.get(key, ())
                old, new = _defaults(recipe, key) | (old or {}), new or {}  # a setting that is newer than the run
                problems += [
                    f"{key}.{name}: the run has {old.get(name)!r}, now {new.get(name)!r}"
                    for name in sorted(old.keys() | new.keys())
                    if name not in free and old.get(name) != new.get(name)
                ]
            elif key not in RESUMABLE[""] and old != new:
                problems.append(f"{key}: the run has {old!r}, now {new!r}")
        if problems:
            raise RecipeError(f"{self.path}: cannot be resumed with another recipe", problems)

    def write_json(self, name: str, content: dict) -> None:
        """Writes a JSON file of the folder, whole or not at all."""
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, self.path / name)

    def finish(self, **facts) -> None:
        """Adds what is known at the end to ``run.json``; ``finished`` marks the run as done."""
        about = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
        self.write_json(RUN_FILE, about | facts)

    def log(self, **entry) -> None:
        """Adds one line to the log."""
        with open(self.path / LOG_FILE, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def rewind_log(self, step: int) -> None:
        """Takes out what a run wrote after its last checkpoint: the resumed run will write it again."""
        file = self.path / LOG_FILE
        if not file.is_file():
            return
        kept = []
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # the line an interruption cut short
                continue
            if entry["step"] <= step:
                kept.append(line)
        temporary = self.path / f".{LOG_FILE}.{os.getpid()}"
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(temporary, file)

    def publish(self, model_folder: Path) -> None:
        """Copies the files of a model folder, or of what ``newest`` finds of it, to the top of the run's."""
        for file in sorted((newest(model_folder) or model_folder).iterdir()):
            temporary = self.path / f".{file.name}.{os.getpid()}"
            shutil.copyfile(file, temporary)
            os.replace(temporary, self.path / file.name)


def _read_json(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(str(file), [f"is not JSON ({error}): the run's folder is broken; move it away"]) from None


def _defaults(recipe: Recipe, section: str) -> dict:
    """The defaults of a section's settings; of the model section, whose recipe holds what is given, none."""
    settings = recipe.sections.get(section)
    if not is_dataclass(settings):
        return {}
    return {
        field.name: field.default_factory() if field.default is MISSING else field.default
        for field in fields(settings)
        if MISSING is not field.default or MISSING is not field.default_factory
    }


def replace_folder(temporary: Path, final: Path) -> None:
    """Puts a finished folder in the place of an older one; at every moment one of the two is there whole."""
    old = final.with_name(final.name + ".old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(final, old)
    os.replace(temporary, final)
    shutil.rmtree(old, ignore_errors=True)


def newest(folder: Path) -> Path | None:
    """The folder, or what an interrupted ``replace_folder`` left of it, or None."""
    old = folder.with_name(folder.name + ".old")
    return next((path for path in (folder, old) if path.is_dir()), None)
