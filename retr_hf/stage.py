"""The hall where the wings meet: the command line, the recipe and the run of a training script.

A stage opens files and leaves files; nothing here keeps state between stages.
"""

import argparse
import shlex
import sys
from functools import partial

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from .entry import keep_freed_memory
from .errors import RecipeError
from .model.configuration_retr import RetrConfig
from .model.folders import require_model
from .model.hub import local_folder
from .model_section import MODEL_SECTION, SHAPES, config_on_top, model_config, same_family
from .report.results import environment
from .training.recipe import Recipe, builds, describe_schema, load_recipe
from .training.run_folder import RUN_FILE, RunFolder
from .training.settings import SETTINGS, VALIDATORS

SCHEMA = {**SETTINGS, "model": MODEL_SECTION}
# What a run without pre-trained weights does not read: its twin has the same recipe but for these.
OF_PRETRAINED = {"training.freeze", "training.pretrained_rate"}
MEMORY = "transition_memory"  # its buffers, of a model that has some, are as wide as it
RESUMES = "--resume goes on from the last checkpoint"
# Overrides that a result row tells in a place of its own, or that cannot change a result.
TOLD_ELSEWHERE = {
    *("name", "description", "expected", "output", "seed", "init", "results", "data.domains"),
    *("training.progress", "training.trackers", "training.save_every"),
    *("evaluation.cutoffs", "evaluation.batch_size", "evaluation.test"),
}


def command_line(description: str, default_recipe: str | None = None) -> argparse.Namespace:
    """The command line of a training script: a recipe, systems, overrides, what to do with an existing run."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of a recipe:\n" + describe_schema(SCHEMA).replace("%", "%%"),
    )
    nargs = "?" if default_recipe else None
    parser.add_argument("recipe", nargs=nargs, default=default_recipe, help="a YAML file of recipes/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="system.yaml or key=value",
        help="a file of recipes/systems/, laid over the recipe; or section.key=value, in YAML, which wins over both",
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_intermixed_args()
    if "=" in (args.recipe or ""):  # only overrides were given
        args.overrides.insert(0, args.recipe)
        args.recipe = default_recipe
    args.systems = [word for word in args.overrides if word.endswith((".yaml", ".yml")) and "=" not in word]
    args.overrides = [word for word in args.overrides if word not in args.systems]
    if args.quiet:
        args.overrides.append("training.progress=false")
    transformers_logging.disable_progress_bar()
    return args


def open_recipe(args: argparse.Namespace, task: str) -> Recipe:
    """The recipe of a command line, all its mistakes told at once.

    Raises:
        RecipeError: see ``load_recipe``; also a recipe of the other task.
    """

    def right_task(recipe: Recipe) -> list[str]:
        asked = recipe.run.task
        return [] if asked == task else [f"task: this script runs {task} recipes; scripts/{asked}.py runs this one"]

    def fits(recipe: Recipe) -> list[str]:
        """The model section by itself, or on top of the pre-trained model's config."""
        start = recipe.run.init
        if start is None:
            return builds("model", model_config)(recipe)
        try:
            start = local_folder(start)
            if (start / RUN_FILE).is_file():
                require_model(start)
        except ValueError as error:
            return [f"init: {error}"]
        missing = [name for name in ("config.json", RUN_FILE) if not (start / name).is_file()]
        if missing:
            return [f"init: {start} has no {' and no '.join(missing)}; expected a folder that scripts/pretrain.py left"]
        config = AutoConfig.from_pretrained(start)
        family, given = config.model_type, {key: value for key, value in recipe["model"].items() if key != "model_type"}
        if not same_family(config, recipe["model"]):
            asked = recipe["model"]["model_type"]
            return [f"init: {start} is a {family} model, and the recipe asks for model.model_type={asked}"]

        if recipe["training"].freeze == "backbone" and family != RetrConfig.model_type:
            return [f"training.freeze: a {family} model has no blocks and positions to freeze; take it out"]
        return builds("model", partial(config_on_top, start))(recipe) + [
            f"model.{name}: {value!r}, but the pre-trained model has {getattr(config, name)!r}; leave it out"
            for name, value in given.items()
            if value != getattr(config, name)
            and (name in SHAPES or (name == MEMORY and value and config.uses_ids and config.transition_memory))
        ]

    def one_type(recipe: Recipe) -> list[str]:
        marks = recipe["model"].get("modulating_marks", 1)
        no_marks = "a prepared domain does not tell types of events apart (the model itself does, given marks)"
        return [f"model.modulating_marks: {marks}: expected 1; {no_marks}"] if marks != 1 else []

    def candidates(recipe: Recipe) -> list[str]:
        every_step = recipe["model"].get("every_step", True)
        chosen = recipe["data"].candidates != "batch" or recipe["data"].extra_candidates
        wrong = "has the targets of a batch for candidates: take out data.candidates and data.extra_candidates"
        return [f"model.every_step: false {wrong}"] if chosen and not every_step else []

    validators = [*VALIDATORS, fits, one_type, candidates, right_task]
    return load_recipe(args.recipe, args.overrides, SCHEMA, validators, systems=args.systems)


def start_run(recipe: Recipe, folder: RunFolder, args: argparse.Namespace) -> Accelerator | None:
    """The Accelerator of a run, its folder opened and its trackers started; None where ``--resume`` finds it finished.

    Raises:
        RecipeError: see ``RunFolder.open``; on every process, told once.
    """
    keep_freed_memory()
    settings = recipe["training"]
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        log_with=settings.trackers or None,
        project_dir=str(folder.path),
    )
    if len(accelerator.log_with) != len(settings.trackers):  # accelerate leaves the missing ones out
        missing = f"training.trackers: {settings.trackers}: expected packages that are installed, not all of them are"
        raise RecipeError(recipe.source, [missing])
    if args.resume and folder.finished:
        folder.require_same(recipe)
        accelerator.print(f"{folder.path}: this run is finished, nothing to do")
        return None
    problems = [None]
    if accelerator.is_main_process:
        try:
            folder.open(recipe, _about_run(recipe, accelerator), args.resume, args.overwrite)
        except RecipeError as error:
            problems = [(error.source, error.problems)]
    broadcast_object_list(problems)
    if problems[0] is not None:
        raise RecipeError(*problems[0])
    if settings.trackers:
        accelerator.init_trackers(recipe.name)
    return accelerator


def recipe_as_run(recipe: Recipe) -> str:
    """The files of a recipe and what the command line changed in them, joined by " + ": what a result row tells."""
    silent = TOLD_ELSEWHERE | (OF_PRETRAINED if recipe.run.init is None else set())
    changes = (f"{key}={value}" for key, value in recipe.overrides.items() if key not in silent)
    return " + ".join([recipe.source, *changes])


def _about_run(recipe: Recipe, accelerator: Accelerator) -> dict:
    return {
        "name": recipe.name,
        "recipe": recipe_as_run(recipe),
        "seed": recipe.run.seed,
        "init": recipe.run.init,
        "command": shlex.join(sys.argv),
        "started": environment()["date"],
        "finished": None,
        "num_processes": accelerator.num_processes,
        "device": str(accelerator.device),
        **environment(),
    }
