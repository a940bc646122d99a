"""A grid: systems x targets x seeds x {pre-trained, from scratch}, planned as commands of the scripts.

    OUTPUT/pretrain/SYSTEM                     a model folder, once for each system
    OUTPUT/DOMAIN/SYSTEM/pretrained-SEED       fine-tuned from it
    OUTPUT/DOMAIN/SYSTEM/scratch-SEED          its twin: every model line the same, same recipe, nothing loaded
    OUTPUT/DOMAIN/SYSTEM/pretraining           of a system that is pre-trained on each target itself (S3-Rec)
    OUTPUT/rows.jsonl                          all result rows, zero-shot and baselines among them

Without a pre-training recipe all runs are from scratch: an intra-domain table, or ablations, whose SYSTEM is the name
of a variant. What is done already is told by what it left behind (grid_jobs.py).
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from ..data.domain import PreparedDomain, load_domain
from ..errors import RecipeError
from ..model_section import model_config
from ..s3rec_pretraining import S3REC_SCHEMA
from ..stage import SCHEMA
from ..training.fields import setting
from ..training.recipe import Recipe, load_recipe
from ..training.run_folder import RunFolder
from ..training.settings import VALIDATORS
from ..training.settings_s3rec import S3REC_VALIDATORS
from ..training.strict_yaml import inline
from .grid_jobs import EvaluationJob, TrainingJob

ROWS_FILE, TABLE_FILE = "rows.jsonl", "table.md"
OF_A_RUN = ("seed", "output", "results", "init")  # what a grid gives each run itself


@dataclass(frozen=True, kw_only=True)
class GridSettings:
    """What a grid file holds."""

    description: str = setting("", help="what the grid is, in a sentence or two; the table opens with it")
    pretrain: str | None = setting(None, help="pre-training recipe; null where nothing is pre-trained", exists=True)
    finetune: list[str] = setting(help="fine-tuning recipes, the targets", exists=True)
    searched: str | None = setting(
        None,
        help="output of a search: what it chose for a system on a target is laid over the fine-tuning of both twins, "
        "and not over the pre-training",
        exists=True,
    )
    systems: list[str] = setting([], help="system files, laid over both kinds of recipes", exists=True)
    scratch_only: list[str] = setting(
        [], help="system files that are run from scratch and not pre-trained", exists=True
    )
    variants: list[list[str]] = setting(
        [], help="[name, system file, section.key=value, ...]: a system with settings of its own, run from scratch"
    )
    pretrain_on_target: list[list[str]] = setting(
        [],
        help="[system file, recipes of scripts/s3rec.py]: it and its variants start from a pre-training on the target",
    )
    seeds: list[int] = setting(
        [0, 1, 2], help="seeds of the fine-tuning; pre-training has its recipe's", min=0, distinct=True
    )
    starts: list[Literal["pretrained", "scratch"]] = setting(["pretrained", "scratch"], help="what is run")
    zero_shot: bool = setting(True, help="evaluate the pre-trained models on the targets without fine-tuning too")
    baselines: list[Literal["popularity", "text-similarity"]] = setting(
        ["popularity", "text-similarity"], help="what is evaluated on the targets without training"
    )
    output: str = setting(help="folder of all runs, rows and the table")
    pretrain_overrides: list[str] = setting([], help="section.key=value, over the pre-training recipe")
    finetune_overrides: list[str] = setting([], help="section.key=value, over the fine-tuning recipes")

    def __post_init__(self):
        empty = [name for name in ("finetune", "seeds", "starts") if not getattr(self, name)]
        if empty or not (self.systems or self.scratch_only or self.variants):
            raise ValueError(f"{', '.join(empty or ['systems'])}: expected at least one, came an empty list")
        if self.pretrain is None and self.starts != ["scratch"]:
            raise ValueError(f"starts: without a pre-training recipe expected [scratch], came {inline(self.starts)}")
        for variant in self.variants:
            if len(variant) < 2 or "=" in variant[1]:
                raise ValueError(f"variants: expected a name, a system file, then overrides; came {inline(variant)}")
        lists = [
            ("finetune_overrides", self.finetune_overrides, OF_A_RUN),
            ("pretrain_overrides", self.pretrain_overrides, ("output",)),
        ]
        lists += [(f"variants: {name}", overrides, (*OF_A_RUN, "name")) for name, _, *overrides in self.variants]
        if problems := [problem for each in lists for problem in overwritten(*each)]:
            raise ValueError("; ".join(problems))
        for entry in self.pretrain_on_target:
            if len(entry) < 2:
                raise ValueError(f"pretrain_on_target: expected a system file, then recipes; came {inline(entry)}")


def overwritten(where: str, overrides: list[str], keys: Collection[str]) -> list[str]:
    """A sentence for every override of one of ``keys``, which would be written over and have no effect."""
    given = (override.partition("=")[0].strip() for override in overrides)
    return [f"{where}: {key} would have no effect, every run has its own; take it out" for key in given if key in keys]


@dataclass(frozen=True)
class System:
    """What is laid over a recipe: a system file, and in a variant overrides of its own.

    stem: its name in folders. carried: whether it may be pre-trained.
    """

    file: str
    stem: str
    overrides: tuple[str, ...] = ()
    carried: bool = True

    @property
    def of_model(self) -> list[str]:
        """The overrides that another task's recipe has too."""
        return [override for override in self.overrides if override.startswith(("model.", "name="))]


@dataclass(frozen=True)
class Target:
    """A domain with its fine-tuning recipe."""

    recipe: str
    path: str
    domain: PreparedDomain

    @cached_property
    def has_text(self) -> bool:
        """Whether its items have text vectors."""
        return self.domain.catalog().text_encoder is not None

    @cached_property
    def has_times(self) -> bool:
        """Whether its events have timestamps."""
        return self.domain.split("validation").timestamps is not None


class Plan:
    """The jobs of a grid.

    Args:
        grid: the settings. scripts: folder of the scripts, as it should stand in the commands.

    Attributes:
        jobs: in the order they should start.
        left_out: one sentence for every run that the data or the model rule out.
        systems: names of what is measured, in the order of the table. targets: the domains.
        rows: file of the result rows.

    Raises:
        RecipeError: mistakes in a recipe or a system, or between them; two systems or targets of one name.
        DataError: a domain that is not prepared.
    """

    def __init__(self, grid: GridSettings, scripts: str | Path):
        self.grid, self.scripts, self.output = grid, Path(scripts), Path(grid.output)
        self.rows = self.output / ROWS_FILE
        self.jobs: list[TrainingJob | EvaluationJob] = []
        self.left_out: list[str] = []
        self.systems: list[str] = list(grid.baselines)
        self._recipes_on_target = {file: recipes for file, *recipes in grid.pretrain_on_target}
        self.targets = targets = self._targets()
        for target in targets:
            for baseline in grid.baselines:
                if baseline == "text-similarity" and not target.has_text:
                    self.left_out.append(f"{baseline} on {target.domain.name}: its items have no text vectors")
                    continue
                self._evaluate(target, baseline, None, "--baseline", baseline)
        for file in dict.fromkeys([*grid.systems, *grid.scratch_only]):
            carried = grid.pretrain is not None and file not in (*grid.scratch_only, *self._recipes_on_target)
            self._plan_system(System(file, Path(file).stem, carried=carried), targets)
        for name, file, *overrides in grid.variants:
            stem = re.sub(r"((?!-[\d.])[^a-z0-9.])+", "_", name.lower()).strip("_")  # a minus before a number stays
            self._plan_system(System(file, stem, (*overrides, f"name={inline(name)}"), carried=False), targets)
        if twice := [name for name, count in Counter(job.name for job in self.jobs).items() if count > 1]:
            raise RecipeError("grid", [f"{twice[0]}: given twice; systems differ by file name, targets by domain"])

    def _targets(self) -> list[Target]:
        targets = []
        for path in self.grid.finetune:
            recipe = _load(path, self.grid.finetune_overrides, "finetune")
            targets += [Target(path, domain, load_domain(domain)) for domain in recipe["data"].domains]
        return targets

    def _plan_system(self, system: System, targets: list[Target]) -> None:
        """Pre-training, and on each target and seed the fine-tuning and its twin."""
        grid, stem = self.grid, system.stem
        folder = RunFolder(self.output / "pretrain" / stem)
        overrides = [*grid.pretrain_overrides, f"output={inline(str(folder.path))}"]
        if grid.pretrain is None:
            first = _load(targets[0].recipe, [*grid.finetune_overrides, *system.overrides], "finetune", system.file)
            name, shape = first.name, {}
        else:
            pretraining = _load(grid.pretrain, [*overrides, *system.of_model], "pretrain", system.file)
            name, shape = pretraining.name, pretraining["model"]
        self.systems.append(name)
        if system.file in self._recipes_on_target:
            for target in targets:
                self._plan_on_target(system, name, target)
            return
        needs = None
        if "pretrained" in grid.starts and system.carried:
            sources = [Target(grid.pretrain, path, load_domain(path)) for path in pretraining["data"].domains]
            if obstacle := _obstacle(shape, sources, carried=True):
                self.left_out.append(f"{name}, pre-trained: {obstacle}")
            else:
                needs = f"pretrain/{stem}"
                words = (self._script("pretrain"), grid.pretrain, system.file, *overrides)
                self.jobs.append(TrainingJob(needs, "pretrain", None, words, pretraining, folder, None))
        for target in targets:
            for seed in grid.seeds:
                for start in (start for start in ("pretrained", "scratch") if start in grid.starts):
                    if start == "scratch":
                        self._finetune(system, target, seed, shape)
                    elif needs:
                        self._finetune(system, target, seed, shape, folder, needs)
            if needs and grid.zero_shot and target.has_text and not _obstacle(shape, [target], carried=True):
                self._evaluate(target, f"{name} zero-shot", folder, str(folder.path))

    def _plan_on_target(self, system: System, name: str, target: Target) -> None:
        """A pre-training on the target itself, and the fine-tuning of each seed from there."""
        there, recipes = Path(target.path).resolve(), self._recipes_on_target[system.file]
        own = [path for path in recipes if Path(_load_on_target(path)["data"].domain).resolve() == there]
        if not own:
            self.left_out.append(f"{name} on {target.domain.name}: no recipe of pretrain_on_target reads {target.path}")
            return
        job = f"{target.domain.name}/{system.stem}/pretraining"
        folder = RunFolder(self.output / job)
        overrides = [*self.grid.pretrain_overrides, *system.of_model, f"output={inline(str(folder.path))}"]
        recipe, words = _load_on_target(own[0], overrides), (self._script("s3rec"), own[0], *overrides)
        self.jobs.append(TrainingJob(job, f"s3rec {target.domain.name}", None, words, recipe, folder, None))
        for seed in self.grid.seeds:
            self._finetune(system, target, seed, {}, folder, needs=job)

    def _finetune(
        self,
        system: System,
        target: Target,
        seed: int,
        shape: dict,
        start: RunFolder | None = None,
        needs: str | None = None,
    ) -> None:
        stem, label = system.stem, "scratch" if start is None else "pretrained"
        file = self._file(system, target)
        job = f"{target.domain.name}/{stem}/{label}-{seed}"
        folder = RunFolder(self.output / job)
        overrides = [
            *self.grid.finetune_overrides,
            *system.overrides,
            f"data.domains={inline([target.path])}",
            f"seed={seed}",
            f"output={inline(str(folder.path))}",
            f"results={inline(str(self.rows))}",
            f"init={inline(None if start is None else str(start.path))}",
        ]
        of_scratch = ["training.freeze=none", "training.pretrained_rate=1.0"]
        recipe = _load(target.recipe, [*overrides, *of_scratch], "finetune", file)
        # The twin is the model that would have been loaded, to the last line; so both say the same.
        missing = {key: value for key, value in shape.items() if key not in recipe["model"]}
        overrides += [f"model.{key}={inline(value)}" for key, value in missing.items()]
        overrides += of_scratch if start is None else []
        obstacle = _obstacle({**shape, **recipe["model"]}, [target], carried=system.carried and start is not None)
        if obstacle:
            sentence = f"{recipe.name} on {target.domain.name}, {label}: {obstacle}"
            self.left_out += [] if sentence in self.left_out else [sentence]
            return
        recipe = _load(target.recipe, overrides, "finetune", file)
        words = (self._script("finetune"), target.recipe, file, *overrides)
        kind, rows = f"finetune {target.domain.name}", self.rows if recipe["evaluation"].test else None
        self.jobs.append(TrainingJob(job, kind, needs, words, recipe, folder, start, rows))

    def _file(self, system: System, target: Target) -> str:
        """The system file of a fine-tuning: what a search chose on this target, where one is given."""
        if self.grid.searched is None:
            return system.file
        chosen = Path(self.grid.searched) / target.domain.name / Path(system.file).name
        if not chosen.is_file():
            told = f"searched: {chosen} is not there: let scripts/search.py search {system.file} on {target.recipe}"
            raise RecipeError("grid", [told])
        return str(chosen)

    def _evaluate(self, target: Target, system: str, start: RunFolder | None, *what: str) -> None:
        cutoffs = _load(target.recipe, self.grid.finetune_overrides, "finetune")["evaluation"].cutoffs
        words = [self._script("evaluate"), *what, target.path, "--name", system, "--results", str(self.rows)]
        words += ["--cutoffs", *map(str, cutoffs)]
        stem = "" if start is None else f"{start.path.name}/"
        job = f"{target.domain.name}/{stem}{'zero-shot' if start else system}"
        needs = None if start is None else f"pretrain/{start.path.name}"
        domain = target.domain.name
        self.systems += [] if system in self.systems else [system]
        words, cutoffs = tuple(words), tuple(cutoffs)
        self.jobs.append(EvaluationJob(job, "evaluate", needs, words, self.rows, system, domain, start, cutoffs))

    def _script(self, name: str) -> str:
        return str(self.scripts / f"{name}.py")


def _load(path: str, overrides: list[str], task: str, system: str | None = None) -> Recipe:
    """A recipe; the models it starts from need not be there yet, and whether its domains are is asked elsewhere."""
    systems = [] if system is None else [system]
    recipe = load_recipe(path, overrides, SCHEMA, VALIDATORS, check_paths=False, systems=systems)
    if recipe.run.task != task:
        raise RecipeError(recipe.source, [f"task: a grid expects a {task} recipe here, came {recipe.run.task}"])
    if recipe["data"].train_on == "all":
        raise RecipeError(
            recipe.source, ["data.train_on: all leaves nothing to measure, and so to compare; take it out"]
        )
    return recipe


def _load_on_target(path: str, overrides: list[str] | None = None) -> Recipe:
    return load_recipe(path, overrides or [], S3REC_SCHEMA, S3REC_VALIDATORS, check_paths=False)


def _obstacle(model: dict, targets: list[Target], carried: bool) -> str | None:
    """What rules a model out on domains, in words; ``carried``: from one catalogue to another."""
    try:
        config = model_config(**model)
    except Exception as error:  # noqa: BLE001  transformers' strict configurations raise no ValueError
        return " ".join(str(error.__cause__ or error).split())
    if carried and not config.uses_text:
        return "item ids say nothing of the items of other domains"
    for target in targets:
        if config.uses_text and not target.has_text:
            return f"the items of {target.domain.name} have no text vectors"
        if config.reads_times and not target.has_times:
            return f"attention {config.attention} reads timestamps, and {target.domain.name} has none"
    return None
