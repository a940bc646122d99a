"""Fine-tunes a pre-trained RETR on a target domain, or trains one from scratch, and tests it.

    python scripts/finetune.py recipes/finetune/scientific.yaml init=runs/open_five/X-RETR
    python scripts/finetune.py recipes/finetune/scientific.yaml init=null output=runs/scratch        # the twin
    python scripts/finetune.py recipes/finetune/arts.yaml recipes/systems/x_locker.yaml init=runs/open_five/X-Locker
    accelerate launch --num_processes 4 scripts/finetune.py recipes/finetune/scientific.yaml init=runs/open_five/X-RETR

    # the model to serve: a measured run's recipe once more, on all there is, for as many epochs as were best
    python scripts/finetune.py runs/scientific/X-RETR/seed-0/recipe.yaml data.train_on=all training.epochs=12 \\
        output=runs/scientific/served

Opens a model folder (or nothing) and prepared domains, one run a domain; leaves model folders with their catalogues and
adds result rows. An interrupted run goes on with --resume.
"""

import json
import sys

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from retr_hf.cost import inference_cost
from retr_hf.data.cloze import ClozeCollator, ClozeSequences
from retr_hf.data.collators import NextItemCollator
from retr_hf.data.domain import PreparedDomain, load_domain
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.entry import run
from retr_hf.errors import DataError, RecipeError
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.measuring import (
    about_routes,
    drawn,
    is_synthetic,
    print_metrics,
    ranks_of_split,
    require_splits,
    result_rows,
    split_for,
)
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.head_retr import RetrHead
from retr_hf.model.hub import local_folder
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.objectives import NEEDS_NEGATIVES
from retr_hf.model.other_catalog import Placement, placement
from retr_hf.model.processing_retr import RetrProcessor, check_encoder
from retr_hf.model.text_whitening import text_table
from retr_hf.model_section import config_on_top, model_config
from retr_hf.report.model_card import write_model_card
from retr_hf.report.results import append_rows, environment, require_room
from retr_hf.stage import RESUMES, command_line, open_recipe, recipe_as_run, start_run
from retr_hf.training.loop import train
from retr_hf.training.run_folder import KNOWS_ALL, RUN_FILE, KnownTests, RunFolder

TERMS = "text_path", "repeat_term", "transition_memory"  # of the score, which a pre-trained model may be without


def main() -> None:
    args = command_line(__doc__)
    recipe = open_recipe(args, task="finetune")
    domains = [load_domain(path) for path in recipe["data"].domains]
    check_domains(recipe, domains)
    for domain in domains:
        finetune(recipe, domain, args)
    Accelerator().end_training()


def check_domains(recipe, domains: list[PreparedDomain]) -> None:
    """What the runs need of their domains: of all of them before the first is trained on.

    Raises:
        RecipeError: a split is empty, a catalogue without vectors or with some that the pre-trained model cannot read,
            a model to begin with that knows what would be tested.
    """
    measured = recipe["data"].train_on == "train"
    known = known_to(recipe.run.init)
    splits = (["validation"] if measured else []) + (["test"] if measured and recipe["evaluation"].test else [])
    problems = []
    for domain in domains:
        try:
            config, _ = target_config(recipe, domain.catalog())
            require_splits(domain, *splits)
            split_for(config, domain, recipe["data"].train_on)
        except ValueError as error:
            problems.append(str(error))
        if measured and (refusal := known.refusal(domain.name)):
            problems.append(f"init: {refusal}, or set data.train_on=all")
    if problems:
        raise RecipeError(recipe.source, problems)


def finetune(recipe, domain: PreparedDomain, args) -> None:
    """One run on one domain."""
    data, settings, evaluation = recipe["data"], recipe["training"], recipe["evaluation"]
    catalog = domain.catalog()
    set_seed(recipe.run.seed)
    model, sources, carried, found = build_model(recipe, catalog)
    config = model.config
    text = text_table(config, catalog)
    if settings.freeze == "backbone":
        freeze_backbone(model)
    measured = data.train_on == "train"
    train_split = split_for(config, domain, data.train_on)
    if (chosen := drawn(len(train_split), data.train_users, recipe.run.seed)) is not None:
        train_split = train_split.select(chosen)
    if not (train_split.lengths > 1).any():
        raise DataError(f"{domain.path}: no user has two items to train on; prepare it from a log that has more")
    if model.transition_memory is not None:
        model.transition_memory.count(train_split.item_ids, train_split.offsets)

    folder = RunFolder(recipe.run.output_folder(domain.name))
    accelerator = start_run(recipe, folder, args)
    if accelerator is None:
        return
    known = known_to(recipe.run.init)
    if measured and (warning := known.warning(domain.name)):
        accelerator.print(warning, file=sys.stderr)
    if measured and recipe.run.results and accelerator.is_main_process:
        require_room(recipe.run.results)

    sequences, collate = examples(config, train_split, domain.num_items, data, settings.layout)
    batches = Batches(
        sequences,
        Mixture(sequences.domain_sizes, seed=recipe.run.seed),
        collate,
        settings.batch_size,
        settings.gradient_accumulation,
        accelerator.process_index,
        accelerator.num_processes,
    )
    accelerator.print(
        f"{recipe.name} on {domain.name}: {len(sequences):,} sequences, {domain.num_items:,} items, "
        f"{sum(p.numel() for p in model.parameters() if p.requires_grad):,} weights to train"
        + (f", from {', '.join(sources)}" if sources else ", from scratch")
        + (f"; {found}" if found else "")
        + ("" if measured else "; nothing is held out, so nothing chooses the epoch but the recipe")
    )

    def validate(model) -> dict[str, float]:
        users = evaluation.validation_users
        ranks = ranks_of_split(model, domain, "validation", text, evaluation, data.max_length, users, sampled=False)
        return metrics_from_ranks(ranks[evaluation.validation_protocol], evaluation.cutoffs)

    constants = {} if text is None else {"text_embeddings": text}
    if config.negative_sampling == "popularity":
        counts = np.bincount(train_split.item_ids, minlength=domain.num_items + 1)
        constants["item_counts"] = torch.from_numpy(counts)
    if settings.compile:
        model.model.compile_blocks()
    progress = train(
        model,
        batches,
        settings,
        folder,
        accelerator,
        seed=recipe.run.seed,
        evaluate=validate if measured else None,
        constants=constants,
        rate_of=lambda name: settings.pretrained_rate if name in carried else 1.0,
        resume=args.resume,
    )

    if accelerator.is_main_process:  # the model first: whatever becomes of the test, it is there
        folder.publish(folder.best)
        longest = data.max_length - (config.direction == "bidirectional")  # room for the [mask]
        RetrProcessor(catalog, longest, text_whitening=config.text_whitening).save_pretrained(folder.path)
    rows = (
        test(recipe, domain, model.to(accelerator.device), text, progress, sources, found, folder)
        if measured and evaluation.test
        else []
    )
    if accelerator.is_main_process:
        write_model_card(
            folder.path, recipe.as_dict(), sources, rows=rows, target=domain.name, synthetic=is_synthetic(domain)
        )
        if recipe.run.results and rows:
            append_rows(recipe.run.results, rows)
        tests = sorted({*known.domains, *([] if measured else [domain.name])})
        facts = {"sources": sources, "trained_on": [*sources, domain.name]} | ({KNOWS_ALL: tests} if tests else {})
        folder.finish(**facts, finished=environment()["date"])
        epoch = -(-progress.best_step // batches.steps_per_epoch)
        best = f"best at step {progress.best_step} of {progress.step}, epoch {epoch}"
        print_metrics(f"{folder.path}: {best if measured else 'trained on all there is, so nothing is measured'}", rows)
        if recipe.run.results and rows:
            print(f"  rows added to {recipe.run.results}")
        if rows and "routes kept" in rows[0].settings:
            print(f"  behaviours kept on the pathway, each block: {rows[0].settings['routes kept']}")
        if rows and "pathway AUC" in rows[0].settings:
            print(f"  pathway AUC of each block {rows[0].settings['pathway AUC']} (known answer; 0.5 is guessing)")
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()


def known_to(init: str | None) -> KnownTests:
    """The tests that the model to begin with, or none, knows."""
    return KnownTests(None if init is None else local_folder(init))


def examples(config: RetrConfig, train_split, num_items: int, data, layout: str):
    """What is read in training, and what makes batches of it: next items, or for a bidirectional body hidden ones."""
    lay_out = layout_named(layout, data.max_length)
    if config.direction == "bidirectional":
        shares = config.cloze_share, config.cloze_last_share
        return ClozeSequences([train_split], [num_items], data.max_length, *shares, data.window), ClozeCollator(lay_out)
    sequences = TrainingSequences([train_split], [num_items], data.max_length, config.every_step, data.window)
    negatives = config.objective in NEEDS_NEGATIVES
    seen = sequences.seen() if negatives else None
    return sequences, NextItemCollator(num_items, config.every_step, negatives, lay_out, seen)


def test(recipe, domain: PreparedDomain, model, text, progress, sources: list[str], found, folder: RunFolder):
    """Result rows of the best checkpoint on the test split; ``found`` as of ``build_model``."""
    config, evaluation, max_length = model.config, recipe["evaluation"], recipe["data"].max_length
    ranks = ranks_of_split(model, domain, "test", text, evaluation, max_length)
    settings = {
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped_early": progress.stopped_early,
        f"validation {recipe['training'].metric}": progress.best,
        "router": config.router,
        "item_features": config.item_features,
        **({"text_encoder": config.text_encoder} if config.uses_text else {}),
        "freeze": recipe["training"].freeze,
        **({"id vectors": str(found)} if found else {}),
    }
    settings |= inference_cost(config, domain.num_items) | about_routes(model, domain, text, max_length)
    return result_rows(
        ranks,
        domain,
        evaluation.cutoffs,
        recipe=recipe_as_run(recipe),
        system=recipe.name,
        sources=sources,
        seed=recipe.run.seed,
        init=recipe.run.init,
        model=str(folder.path),
        settings=settings,
    )


def target_config(recipe, catalog: ItemCatalog) -> tuple[RetrConfig, Placement | None]:
    """The config of the recommendation head for a catalogue, the recipe's or that of its pre-trained model changed; and
    where the items of the latter stand in the catalogue, if it had ids and another one.

    Raises:
        ValueError: a catalogue without text vectors, or one that the pre-trained model cannot read.
        DataError: histories longer than the pre-trained model reads.
    """
    start, length, found = recipe.run.init, recipe["data"].max_length, None
    if start is None:
        config = model_config(**recipe["model"], max_position_embeddings=length)
        if config.uses_text:
            config.text_size = catalog.item_table().shape[1]
    else:
        start = local_folder(start)  # a repository of the Hub is in the cache since the recipe was checked
        config = AutoConfig.from_pretrained(start)
        found = placement(config, start, catalog)
        check_encoder(config, catalog)
        if length > config.max_position_embeddings:
            raise DataError(f"data.max_length={length}: {start} reads {config.max_position_embeddings} items at most")
        config = config_on_top(start, **recipe["model"])
    if config.uses_text:
        config.text_encoder = catalog.text_encoder
    if config.uses_ids:
        config.vocab_size, config.catalog_hash = len(catalog) + 1, catalog.hash
    return config, found if config.uses_ids else None


def build_model(recipe, catalog: ItemCatalog) -> tuple[RetrHead, list[str], set[str], Placement | None]:
    """The recommendation head for a catalogue, the domains its weights were trained on before, their names, and where
    its items stand in the catalogue if it had another one.

    Raises:
        ValueError: see ``target_config``.
        DataError: a pre-trained model that does not fit the recipe.
    """
    config, found = target_config(recipe, catalog)
    if recipe.run.init is None:
        return AutoModelForSequenceClassification.from_config(config), [], set(), None
    start = local_folder(recipe.run.init)
    before = AutoConfig.from_pretrained(start)
    if found is not None:  # opened as it is, then its items follow the catalogue
        config.vocab_size = before.vocab_size
    transformers_logging.set_verbosity_error()  # its report of a new id table reads like a mistake; we check ourselves
    head = AutoModelForSequenceClassification
    model, loading = head.from_pretrained(start, config=config, output_loading_info=True)
    # New weights: those of the items, and terms of the score that the pre-trained model has not. Without an id table
    # there is no transition memory, whatever the config says.
    new = ("model.embed_tokens.",) if config.uses_ids else ()
    new += tuple(f"{term}." for term in TERMS if not getattr(before, term) or term == "transition_memory")
    missing = [name for name in loading["missing_keys"] if not name.startswith(new)]
    wrong = sorted([*missing, *loading["unexpected_keys"]])
    if wrong:
        raise DataError(f"{start} is another architecture than the recipe's model section: {wrong[:5]}")
    model.cut_positions(recipe["data"].max_length)
    if found is not None:
        model.place_items(torch.from_numpy(found.rows), catalog.hash)
    sources = json.loads((start / RUN_FILE).read_text(encoding="utf-8"))["trained_on"]
    return model, sources, {name for name, _ in model.named_parameters()} - set(loading["missing_keys"]), found


def freeze_backbone(model) -> None:
    """UniSRec's fine-tuning: positions and blocks keep their weights, the item side and the input norm are trained."""
    model.model.embed_positions.requires_grad_(False)
    model.model.layers.requires_grad_(False)


if __name__ == "__main__":
    run(main, RESUMES)
