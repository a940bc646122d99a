"""The hall where the wings meet: what the scripts of a journey share.

A stage opens files and leaves files; nothing here keeps state between stages.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import logging as transformers_logging

from .data.domain import PreparedDomain
from .data.synthetic import pathway_auc
from .errors import DataError, RecipeError, RetrError
from .evaluation.histories import keep_probabilities, rank_histories
from .evaluation.metrics import metrics_from_ranks
from .model.configuration_retr import RetrConfig
from .model.item_catalog import ItemCatalog
from .report.results import ResultRow, environment
from .training.recipe import Recipe, builds, describe_schema, load_recipe
from .training.run_folder import RunFolder
from .training.settings import SETTINGS, VALIDATORS

STAMPED = {"vocab_size", "text_size", "text_encoder", "catalog_hash", "max_position_embeddings"}
MODEL_KEYS = tuple(
    sorted(
        {f.name for f in fields(RetrConfig)}
        - {f.name for f in fields(PreTrainedConfig)}
        - STAMPED
        - {"pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"}
    )  # fmt: skip
)
SCHEMA = {**SETTINGS, "model": (RetrConfig, MODEL_KEYS)}


def command_line(description: str, default_recipe: str | None = None) -> argparse.Namespace:
    """The command line of a training script: a recipe, overrides, what to do with an existing run."""
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of a recipe:\n" + describe_schema(SCHEMA).replace("%", "%%"),
    )
    nargs = "?" if default_recipe else None
    parser.add_argument("recipe", nargs=nargs, default=default_recipe, help="a YAML file of recipes/")
    parser.add_argument("overrides", nargs="*", help="section.key=value, in YAML; wins over the recipe")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_args()
    if "=" in (args.recipe or ""):  # only overrides were given
        args.overrides.insert(0, args.recipe)
        args.recipe = default_recipe
    if args.quiet:
        args.overrides.append("training.progress=false")
    transformers_logging.disable_progress_bar()
    return args


def run(main: Callable[[], None]) -> None:
    """Runs a script's main: errors that are the user's are told in words, without a traceback, with exit code 2."""
    try:
        main()
    except (RetrError, ValueError) as error:
        if os.environ.get("RETR_DEBUG"):
            raise
        if os.environ.get("RANK", "0") == "0":  # one process tells it
            where = "" if isinstance(error, RetrError) else " (RETR_DEBUG=1 shows where)"
            print(f"error: {error}{where}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


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
        return builds("model", RetrConfig if start is None else partial(RetrConfig.from_pretrained, start))(recipe)

    return load_recipe(args.recipe, args.overrides, SCHEMA, [*VALIDATORS, fits, right_task])


def start_run(recipe: Recipe, folder: RunFolder, args: argparse.Namespace) -> tuple[Accelerator, dict | None]:
    """The Accelerator of a run, its folder opened and its trackers started, and what ``run.json`` says of it.

    The second is None where ``--resume`` finds the run finished.

    Raises:
        RecipeError: see ``RunFolder.open``; on every process, told once.
    """
    settings = recipe["training"]
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        log_with=settings.trackers or None,
        project_dir=str(folder.path),
    )
    if args.resume and folder.finished:
        accelerator.print(f"{folder.path}: this run is finished, nothing to do")
        return accelerator, None
    about, problems = _about_run(accelerator), [None]
    if accelerator.is_main_process:
        try:
            folder.open(recipe, about, args.resume, args.overwrite)
        except RecipeError as error:
            problems = [(error.source, error.problems)]
    broadcast_object_list(problems)
    if problems[0] is not None:
        raise RecipeError(*problems[0])
    if settings.trackers:
        accelerator.init_trackers(recipe.name)
    return accelerator, about


def _about_run(accelerator: Accelerator) -> dict:
    return {
        "command": " ".join(sys.argv),
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


def encode_catalog(model, text_embeddings: torch.Tensor | None, device) -> torch.Tensor:
    """Item vectors of a whole catalogue [num_items + 1, d], in evaluation mode, without gradient."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        text = None if text_embeddings is None else text_embeddings.to(device)
        vectors = model.encode_items(None, text)
    model.train(was_training)
    return vectors


def ranks_of_split(model, domain: PreparedDomain, split: str, text_embeddings, settings, max_length, max_users=None):
    """Ranks by protocol, int64 [U], of a model on a split of a domain; ``max_users`` takes an even sample."""
    sequences, negatives = domain.split(split), domain.negatives(split)
    if max_users is not None and len(sequences) > max_users:
        chosen = np.random.default_rng(0).choice(len(sequences), max_users, replace=False)
        sequences, negatives = sequences.select(np.sort(chosen)), negatives.select(np.sort(chosen))
    device = next(model.parameters()).device
    return rank_histories(
        model, encode_catalog(model, text_embeddings, device), sequences, negatives, max_length, settings.batch_size
    )


def pathway_auc_of(model, domain: PreparedDomain, text_embeddings, max_length: int) -> list[float]:
    """How well each block's router finds the behaviours that decide the test target, where the world is known (AUC)."""
    test, (pivotal, _) = domain.split("test"), domain.pivotal("test")
    items = encode_catalog(model, text_embeddings, next(model.parameters()).device)
    alphas, places = keep_probabilities(model, items, test, max_length)
    return [round(pathway_auc(alpha, pivotal[places]), 4) for alpha in alphas]


def is_synthetic(domain: PreparedDomain) -> bool:
    """Whether a domain is made up, with a known answer."""
    return domain.provenance["reader"] == "synthetic"


def result_rows(
    ranks: dict[str, np.ndarray],
    domain: PreparedDomain,
    cutoffs: Sequence[int],
    *,
    negatives: int,
    split: str = "test",
    **about,
) -> list[ResultRow]:
    """One row a protocol, stamped with commit, versions and date."""
    candidates = {"full": domain.num_items, "full-unseen": domain.num_items, "sampled": negatives + 1}
    return [
        ResultRow(
            domain=domain.name,
            split=split,
            protocol=protocol,
            candidates=candidates[protocol],
            metrics=metrics_from_ranks(values, cutoffs),
            num_users=len(values),
            synthetic=is_synthetic(domain),
            **about,
            **environment(),
        )
        for protocol, values in ranks.items()
    ]


def print_metrics(title: str, rows: Sequence[ResultRow]) -> None:
    """One line a protocol."""
    print(title)
    for row in rows:
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.metrics.items())
        print(f"  {row.protocol:<12} {numbers}  ({row.num_users:,} users, {row.candidates:,} candidates)")
