"""A search: every system tries the same values of some keys, from scratch, and what validation likes best is kept.

    OUTPUT/DOMAIN/TRY/scratch-SEED    a run that is not tested (grid.py: a try is a variant of its system)
    OUTPUT/tries.jsonl                one line a try and seed
    OUTPUT/DOMAIN/SYSTEM.yaml         a system file with the values chosen, for recipes and grids
    OUTPUT/table.md                   all tries

The number of tries is the same for all systems, so no system of a table is searched longer than another.
"""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean

import yaml

from ..errors import RecipeError
from ..model.item_catalog import write_whole
from ..report.tables import markdown, mean_cell
from ..training import strict_yaml
from ..training.fields import setting
from ..training.run_folder import LOG_FILE, RUN_FILE
from ..training.strict_yaml import inline
from .grid import OF_A_RUN, GridSettings, Plan, overwritten
from .grid_jobs import TrainingJob

TRIES_FILE, TABLE_FILE = "tries.jsonl", "table.md"
SECTIONS = ("model", "training")  # what a system file may give
NOT_SEARCHED = {  # key -> why its values cannot be compared
    "training.metric": "tries are compared by it",
    "training.freeze": "from scratch nothing is pre-trained",
    "training.pretrained_rate": "from scratch nothing is pre-trained",
}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What a search file holds."""

    description: str = setting("", help="what is searched, in a sentence or two; the table opens with it")
    finetune: list[str] = setting(help="fine-tuning recipes, the targets", exists=True)
    systems: list[str] = setting(help="system files", exists=True)
    values: list[str] = setting(help="section.key=[value, value, ...]; every combination of them is tried")
    seeds: list[int] = setting([0], help="seeds of each try; their mean decides", min=0, distinct=True)
    overrides: list[str] = setting([], help="section.key=value, over the recipes")
    output: str = setting(help="folder of all runs, the table and the system files")

    def __post_init__(self):
        if empty := [name for name in ("finetune", "systems", "values", "seeds") if not getattr(self, name)]:
            raise ValueError(f"{', '.join(empty)}: expected at least one, came an empty list")
        problems = [problem for entry in self.values for problem in _problems(entry)]
        keys = [entry.partition("=")[0].strip() for entry in self.values]
        problems += [f"values: {key}: given twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
        problems += overwritten("overrides", self.overrides, [*OF_A_RUN, "name", "evaluation.test", *keys])
        if problems:
            raise ValueError("; ".join(problems))


def _problems(entry: str) -> Iterator[str]:
    key, _, text = entry.partition("=")
    section, _, name = key.strip().partition(".")
    if section not in SECTIONS or not name:
        yield f"values: expected a key of {' or '.join(SECTIONS)}, which a system file may give, came {key.strip()}"
    if key.strip() in NOT_SEARCHED:
        yield f"values: {key.strip()} cannot be searched: {NOT_SEARCHED[key.strip()]}"
    try:
        values = strict_yaml.read(text)[0]
    except yaml.YAMLError:
        values = None
    if not isinstance(values, list) or not values:
        yield f"values: expected section.key=[value, value, ...], came {entry}"
    elif any(value in values[:place] for place, value in enumerate(values)):
        yield f"values: expected every value of {key.strip()} once, came {text.strip()}"


@dataclass(frozen=True)
class Try:
    """One run: a system with some of the values.

    values: key -> value. score: best validation metric of the run, after ``epoch`` epochs; None while it is not done.
    """

    domain: str
    system: str
    values: tuple[tuple[str, object], ...]
    seed: int
    job: TrainingJob
    score: float | None
    epoch: int | None


class Search:
    """The runs of a search, and what became of them.

    Args:
        settings: the search file. scripts: folder of the scripts, as it should stand in the commands.

    Attributes:
        jobs, left_out: as of ``grid.Plan``.

    Raises:
        RecipeError, DataError: as ``grid.Plan``.
    """

    def __init__(self, settings: SearchSettings, scripts: str | Path):
        self.settings, self.output = settings, Path(settings.output)
        self.keys = [entry.partition("=")[0].strip() for entry in settings.values]
        lists = [strict_yaml.read(entry.partition("=")[2])[0] for entry in settings.values]
        self._variants: dict[str, tuple[str, tuple]] = {}  # name -> system file, values
        for system, *values in product(settings.systems, *lists):
            words = (f"{key.rpartition('.')[2]} {inline(value)}" for key, value in zip(self.keys, values, strict=True))
            name = " ".join([Path(system).stem, *words])
            if name in self._variants:
                raise RecipeError("search", [f"systems: {Path(system).stem}: given twice; they differ by file name"])
            self._variants[name] = system, tuple(zip(self.keys, values, strict=True))
        grid = GridSettings(
            finetune=settings.finetune,
            variants=[
                [name, system, *(f"{key}={inline(value)}" for key, value in values)]
                for name, (system, values) in self._variants.items()
            ],
            seeds=settings.seeds,
            starts=["scratch"],
            baselines=[],
            output=settings.output,
            finetune_overrides=[*settings.overrides, "evaluation.test=false"],
        )
        self._tries_each = len(self._variants) // len(settings.systems) * len(settings.seeds)
        plan = Plan(grid, scripts)
        self.jobs, self.left_out = plan.jobs, plan.left_out
        self.domains = [target.domain.name for target in plan.targets]
        metrics = sorted({job.recipe["training"].metric for job in self.jobs})
        if len(metrics) > 1:
            told = f"training.metric: {' and '.join(metrics)}: tries are compared by one, set it in overrides"
            raise RecipeError("search", [told])
        self.metric = metrics[0] if metrics else ""

    def tries(self, finished: Collection[str]) -> list[Try]:
        """Every run, by domain and system; with its score if the name of its job is among ``finished``."""
        found = []
        for job in self.jobs:
            best = _best(job) if job.name in finished else (None, None)
            variant = self._variants[job.recipe.name]
            found.append(Try(job.name.partition("/")[0], *variant, job.recipe.run.seed, job, *best))
        return sorted(found, key=lambda one: (one.domain, self.settings.systems.index(one.system)))

    def conclude(self, finished: Collection[str]) -> list[Path]:
        """Writes the tries, the table, and a system file for each system whose tries are all done; these are given.

        A system with a try that failed or was left out has none: it would have been searched less than the others. Of
        equals the first is chosen.
        """
        tries, lines, written = self.tries(finished), [], []
        _write(self.output / TRIES_FILE, "".join(_json_line(one) for one in tries if one.score is not None))
        for domain, system in product(self.domains, self.settings.systems):
            group = [one for one in tries if (one.domain, one.system) == (domain, system)]
            choices = {one.values: [each for each in group if each.values == one.values] for one in group}
            best, path = None, self.output / domain / f"{Path(system).stem}.yaml"
            if len(group) == self._tries_each and all(one.score is not None for one in group):
                best = max(choices, key=lambda values: fmean(one.score for one in choices[values]))
                _write(path, self._system_file(path, choices[best]))
                written.append(path)
            else:
                path.unlink(missing_ok=True)  # of an earlier search, of other values
            lines += [_line(seeds, "yes" if values == best else "") for values, seeds in choices.items()]
        header = ["domain", "system", *self.keys, f"validation {self.metric}", "best epoch", "chosen"]
        notes = [self.settings.description, *(f"left out: {sentence}" for sentence in self.left_out)]
        _write(self.output / TABLE_FILE, "\n\n".join([*filter(None, notes), "\n".join(markdown([header, *lines])), ""]))
        return written

    def _system_file(self, path: Path, chosen: list[Try]) -> str:
        """A system over the one that was searched, with the values chosen."""
        first, about = chosen[0], _about(chosen[0].job)
        content: dict = {"extends": os.path.relpath(first.system, path.parent)}
        for key, value in first.values:
            section, _, name = key.partition(".")
            content.setdefault(section, {})[name] = value
        return (
            f"# {Path(first.system).stem}, chosen on {first.domain}: validation {self.metric} "
            f"{fmean(one.score for one in chosen):.4f}, seeds {self.settings.seeds}, {about['date'][:10]}"
            + (f", commit {about['commit'][:7]}\n" if about["commit"] else "\n")
            + "".join(f"#   {entry}\n" for entry in self.settings.values)
            + "# For fine-tuning. A grid that pre-trains takes the folder of the search as `searched`.\n"
            + strict_yaml.write(content)
        )


def _best(job: TrainingJob) -> tuple[float, int]:
    """Best validation metric of a finished run, and the epoch."""
    metric = job.recipe["training"].metric
    entries = [json.loads(line) for line in (job.folder.path / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    return max(((entry[metric], entry["epoch"]) for entry in entries if metric in entry), key=lambda pair: pair[0])


def _about(job: TrainingJob) -> dict:
    return json.loads((job.folder.path / RUN_FILE).read_text(encoding="utf-8"))


def _metric(one: Try) -> str:
    return one.job.recipe["training"].metric


def _json_line(one: Try) -> str:
    about = _about(one.job)
    row = {"domain": one.domain, "system": Path(one.system).stem, **dict(one.values), "seed": one.seed}
    row |= {f"validation {_metric(one)}": one.score, "epoch": one.epoch}
    return json.dumps(row | {name: about[name] for name in ("recipe", "commit", "versions", "date")}) + "\n"


def _line(seeds: list[Try], chosen: str) -> list[str]:
    """A line of the table; its score is empty until all seeds are done."""
    one, scores = seeds[0], [each.score for each in seeds if each.score is not None]
    score = mean_cell(scores) if len(scores) == len(seeds) else ""
    epochs = ", ".join(str(each.epoch) for each in seeds if each.epoch is not None)
    return [one.domain, Path(one.system).stem, *(inline(value) for _, value in one.values), score, epochs, chosen]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
