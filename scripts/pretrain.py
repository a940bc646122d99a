"""Pre-trains RETR on the item texts and histories of several prepared domains.

    python scripts/pretrain.py                                        # the synthetic world, in about a minute
    python scripts/pretrain.py recipes/pretrain/open_five.yaml seed=1 training.batch_size=256
    python scripts/pretrain.py recipes/pretrain/open_five.yaml recipes/systems/unisrec.yaml        # another model
    accelerate launch scripts/pretrain.py recipes/pretrain/open_five.yaml
    accelerate launch --num_processes 4 --mixed_precision bf16 scripts/pretrain.py RECIPE
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 scripts/pretrain.py RECIPE    # two on CPU

Opens prepared domains with embeddings, leaves a model folder. An interrupted run goes on with --resume.
Without a recipe it reads recipes/synthetic/pretrain.yaml and, if they are not there, makes the synthetic domains.
"""

from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env, set_seed

from retr_hf.data.candidate_sampling import CandidateSampling
from retr_hf.data.collators import PreTrainingCollator, TextTables
from retr_hf.data.domain import load_domain
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.entry import run
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.measuring import common_encoder, is_synthetic, ranks_of_split, require_splits, split_for
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining
from retr_hf.model.text_whitening import text_table
from retr_hf.report.model_card import write_model_card
from retr_hf.report.results import environment
from retr_hf.stage import RESUMES, command_line, open_recipe, start_run
from retr_hf.training.loop import train
from retr_hf.training.run_folder import RunFolder

SYNTHETIC = Path("recipes/synthetic/pretrain.yaml")


def main() -> None:
    args = command_line(__doc__, default_recipe=str(SYNTHETIC))
    if Path(args.recipe) == SYNTHETIC:
        # The first state made is everybody's: it must hear of the CPU as Accelerator does.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        if state.is_main_process:
            print(f"recipe {SYNTHETIC}: RETR on the synthetic world, a demonstration; see recipes/ for real ones")
        with state.main_process_first():
            make_synthetic_world(Path("data/synthetic"))
    recipe = open_recipe(args, task="pretrain")
    data, settings, evaluation = recipe["data"], recipe["training"], recipe["evaluation"]

    # What is read: histories of all domains, and the text vectors of their items.
    domains = [load_domain(folder) for folder in data.domains]
    for domain in domains:
        require_splits(domain, "validation")
    catalogs = [domain.catalog() for domain in domains]
    encoder = common_encoder(domains, catalogs)

    # What is trained.
    set_seed(recipe.run.seed)
    config = RetrConfig(
        **recipe["model"],
        text_size=catalogs[0].item_table().shape[1],
        text_encoder=encoder,
        max_position_embeddings=data.max_length,
    )
    model = RetrForPreTraining(config)
    tables = [text_table(config, catalog).numpy() for catalog in catalogs]
    words = data.views == "items+words"
    word_drop = [text_table(config, catalog, augmented=True).numpy() for catalog in catalogs] if words else None
    train_splits = [split_for(config, domain, "train") for domain in domains]

    folder = RunFolder(recipe.run.output_folder("+".join(domain.name for domain in domains)))
    accelerator = start_run(recipe, folder, args)
    if accelerator is None:
        return

    # In which order.
    sequences = TrainingSequences(
        train_splits,
        [domain.num_items for domain in domains],
        data.max_length,
        config.every_step,
        data.window,
    )
    mixture = Mixture(sequences.domain_sizes, data.temperature, data.cap, recipe.run.seed)
    sampling = None
    if data.extra_candidates:
        micro_batch = settings.batch_size // settings.gradient_accumulation
        sampling = CandidateSampling(sequences, mixture.quotas, micro_batch, data.extra_candidates)
    collate = PreTrainingCollator(
        TextTables(tables),
        None if word_drop is None else TextTables(word_drop),
        config.every_step,
        views=config.sequence_loss_weight > 0,
        lay_out=layout_named(settings.layout, data.max_length),
        sampling=sampling,
        within_domains=data.candidates == "domain",
    )
    batches = Batches(
        sequences,
        mixture,
        collate,
        settings.batch_size,
        settings.gradient_accumulation,
        accelerator.process_index,
        accelerator.num_processes,
    )
    for domain, quota in zip(domains, mixture.quotas, strict=True):
        accelerator.print(f"{domain.name:>16}: {quota:,} sequences an epoch, {domain.num_items:,} items")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    accelerator.print(
        f"{parameters:,} weights, {batches.steps_per_epoch} steps an epoch, {accelerator.num_processes} process(es)"
    )

    def validate(model) -> dict[str, float]:
        """Next-item ranking on the sources' own validation items: the mean over domains."""
        metrics = []
        for domain, table in zip(domains, tables, strict=True):
            ranks = ranks_of_split(
                model, domain, "validation", torch.from_numpy(table), evaluation, data.max_length,
                evaluation.validation_users, sampled=False,
            )  # fmt: skip
            metrics.append(metrics_from_ranks(ranks[evaluation.validation_protocol], evaluation.cutoffs))
        return {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}

    if settings.compile:
        model.model.compile_blocks()
    progress = train(
        model,
        batches,
        settings,
        folder,
        accelerator,
        seed=recipe.run.seed,
        evaluate=validate,
        resume=args.resume,
    )
    if accelerator.is_main_process:
        folder.publish(folder.best)
        sources = [domain.name for domain in domains]
        result = {"metric": settings.metric, "best": progress.best, "best_step": progress.best_step}
        synthetic = any(is_synthetic(domain) for domain in domains)
        write_model_card(folder.path, recipe.as_dict(), sources, validation=result, synthetic=synthetic)
        folder.finish(sources=sources, trained_on=sources, validation=result, finished=environment()["date"])
        print(f"{folder.path}: validation {settings.metric} {progress.best:.4f} at step {progress.best_step}")
    accelerator.end_training()


def make_synthetic_world(folder: Path) -> None:
    """The ten synthetic domains with hashed text vectors, unless they are there."""
    from retr_hf.data.synthetic import write_world
    from retr_hf.data.text_embeddings import embed_catalog

    for domain in write_world(folder):
        embed_catalog(domain, "hashing", progress=False)


if __name__ == "__main__":
    run(main, RESUMES)
