"""The hall where the wings meet: what the scripts of a journey share.

A stage opens files and leaves files; nothing here keeps state between stages.
"""

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import AutoConfig
from transformers.utils import logging as transformers_logging

from .data.domain import PreparedDomain, Sequences
from .data.synthetic import pathway_auc
from .errors import DataError, RecipeError, RetrError
from .evaluation.histories import rank_histories, routings
from .evaluation.metrics import metrics_from_ranks
from .model.configuration_retr import RetrConfig
from .model.folders import require_model
from .model.hub import local_folder
from .model.item_catalog import ItemCatalog
from .model_section import MODEL_SECTION, SHAPES, config_on_top, model_config, same_family
from .report.results import ResultRow, environment
from .training.recipe import Recipe, builds, describe_schema, load_recipe
from .training.run_folder import RUN_FILE, RunFolder
from .training.settings import SETTINGS, VALIDATORS

SCHEMA = {**SETTINGS, "model": MODEL_SECTION}
RESUMES = "--resume goes on from the last checkpoint"
# Overrides that a result row tells in a place of its own, or that cannot change a result.
TOLD_ELSEWHERE = {
    *("name", "description", "expected", "output", "seed", "init", "results", "data.domains"),
    *("training.freeze", "training.progress", "training.trackers", "training.save_every"),
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


def run(main: Callable[[], None], goes_on: str = "") -> None:
    """Runs a script's main: errors that are the user's are told in words, without a traceback, with exit code 2.

    Interrupted (130) or ended by SIGTERM (143), as schedulers do, it unwinds, and says how the work ``goes_on``.
    """

    def stop(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one, to the group, would cut the unwinding short
        raise KeyboardInterrupt("SIGTERM")

    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main_thread else None
    try:
        main()
    except (RetrError, ValueError) as error:
        if os.environ.get("RETR_DEBUG"):
            raise
        where = "" if isinstance(error, RetrError) else " (RETR_DEBUG=1 shows where)"
        process = os.environ.get("RANK", "0")
        if process == "0":
            print(f"error: {error}{where}", file=sys.stderr, flush=True)
        elif isinstance(error, RecipeError):
            # Every process met the same mistake, and the launcher ends the first one as soon as another leaves.
            time.sleep(5)
        else:
            print(f"[process {process}] error: {error}{where}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        ended = bool(interrupt.args)  # Ctrl-C has none
        if os.environ.get("RANK", "0") == "0":
            told = "ended by SIGTERM" if ended else "interrupted"
            print(f"{told}; {goes_on}" if goes_on else told, file=sys.stderr, flush=True)
        sys.exit(143 if ended else 130)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


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
            if name in SHAPES and value != getattr(config, name)
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
    changes = (f"{key}={value}" for key, value in recipe.overrides.items() if key not in TOLD_ELSEWHERE)
    return " + ".join([recipe.source, *changes])


def _about_run(recipe: Recipe, accelerator: Accelerator) -> dict:
    return {
        "name": recipe.name,
        "recipe": recipe_as_run(recipe),
        "seed": recipe.run.seed,
        "command": shlex.join(sys.argv),
        "started": environment()["date"],
        "finished": None,
        "num_processes": accelerator.num_processes,
        "device": str(accelerator.device),
        **environment(),
    }


def common_encoder(domains: Sequence[PreparedDomain], catalogs: Sequence[ItemCatalog]) -> str | None:
    """The text encoder that made the vectors of all domains.

    Raises:
        DataError: domains embedded by different encoders, or not at all.
    """
    encoders = {domain.name: catalog.text_encoder for domain, catalog in zip(domains, catalogs, strict=True)}
    if None in encoders.values() or len(set(encoders.values())) > 1:
        told = ", ".join(f"{name}: {encoder or 'not embedded'}" for name, encoder in encoders.items())
        raise DataError(f"expected text vectors of one encoder in all domains ({told}): run scripts/embed.py on them")
    return catalogs[0].text_encoder


def require_splits(domain: PreparedDomain, *splits: str) -> None:
    """Raises DataError for an empty split: told before the training, not after."""
    for split in splits:
        if not len(domain.split(split)):
            raise DataError(f"{domain.path}: the {split} split is empty; users need three items (a lower --k-core?)")


def split_for(config: RetrConfig, domain: PreparedDomain, name: str) -> Sequences:
    """A split of a domain as a model reads it: with times where its attention reads them, and else without.

    Raises:
        DataError: the model reads times, the domain has none.
    """
    sequences = domain.split(name)
    if not config.reads_times:
        return replace(sequences, timestamps=None)
    if sequences.timestamps is None:
        raise DataError(
            f'{domain.path}: attention="{config.attention}" reads timestamps, and domain {domain.name!r} has none: '
            "prepare it again from a table with a timestamp column (scripts/prepare.py tables --interactions FILE "
            "--columns timestamp=COLUMN), or choose another attention"
        )
    return sequences


def drawn(rows: int, most: int | None, seed: int = 0) -> np.ndarray | None:
    """A sample of ``most`` of so many rows, int [most] ascending; None where all are taken."""
    if most is None or rows <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def ranks_of_split(
    model, domain: PreparedDomain, split: str, text_embeddings, settings, max_length, max_users=None, sampled=True
):
    """Ranks by protocol, int64 [U], of a model on a split of a domain; ``max_users`` draws a fixed sample.

    sampled: also among the stored negatives, which is a hundred numbers a user to read.
    """
    sequences, negatives = split_for(model.config, domain, split), domain.negatives(split) if sampled else None
    if (chosen := drawn(len(sequences), max_users)) is not None:
        sequences, negatives = sequences.select(chosen), negatives.select(chosen) if sampled else None
    items = model.encode_catalog(text_embeddings)
    return rank_histories(model, items, sequences, negatives, max_length, settings.batch_size)


def about_routes(model, domain: PreparedDomain, text_embeddings, max_length: int) -> dict[str, list[float]]:
    """What the routers do with the test histories, a number a block: the share of behaviours kept, mean α, mean ω; of a
    bidirectional body also the share of histories whose [mask] is kept, which may ask what comes next.

    Where the world is known also "pathway AUC", how well α finds the behaviours that decide the test target; left out
    where the model reads only behaviours of one kind. Nothing without a learned router.
    """
    if model.config.router != "pathway":
        return {}
    found = routings(model, model.encode_catalog(text_embeddings), split_for(model.config, domain, "test"), max_length)
    told = {"routes kept": found.routes, "α": found.keep_probabilities, "ω": found.omegas}
    told |= {} if found.at_mask is None else {"[mask] kept": found.at_mask}
    about = {name: [round(float(block.mean()), 4) for block in values] for name, values in told.items()}
    if is_synthetic(domain):
        pivotal = domain.pivotal("test")[0][found.places]
        if len(set(pivotal)) > 1:
            about["pathway AUC"] = [round(pathway_auc(alpha, pivotal), 4) for alpha in found.keep_probabilities]
    return about


def is_synthetic(domain: PreparedDomain) -> bool:
    """Whether a domain is made up, with a known answer."""
    return domain.provenance["reader"] == "synthetic"


def result_rows(
    ranks: dict[str, np.ndarray],
    domain: PreparedDomain,
    cutoffs: Sequence[int],
    *,
    split: str = "test",
    settings: dict | None = None,
    **about,
) -> list[ResultRow]:
    """One row a protocol, stamped with commit, versions and date.

    ``candidates`` is the most any user has: under ``full-unseen`` the history's items are taken off it. The sampled
    protocol is left out where some user has no negative at all, and says in ``settings`` if some have fewer.
    """
    counts, settings = domain.negatives(split).lengths, dict(settings or {})
    candidates = {"full": domain.num_items, "full-unseen": domain.num_items, "sampled": int(counts.max()) + 1}
    if counts.min() == 0:
        ranks = {protocol: values for protocol, values in ranks.items() if protocol != "sampled"}
    rows = []
    for protocol, values in ranks.items():
        uneven = {"fewest candidates": int(counts.min()) + 1} if protocol == "sampled" and np.ptp(counts) else {}
        rows.append(
            ResultRow(
                domain=domain.name,
                split=split,
                protocol=protocol,
                candidates=candidates[protocol],
                metrics=metrics_from_ranks(values, cutoffs),
                num_users=len(values),
                synthetic=is_synthetic(domain),
                settings=settings | uneven,
                **about,
                **environment(),
            )
        )
    return rows


def print_metrics(title: str, rows: Sequence[ResultRow]) -> None:
    """One line a protocol."""
    print(title + (" (SYNTHETIC)" if rows and rows[0].synthetic else ""))
    for row in rows:
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.metrics.items())
        print(f"  {row.protocol:<12} {numbers}  ({row.num_users:,} users, {row.candidates:,} candidates)")
