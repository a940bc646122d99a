"""Pre-trains S3-Rec on one domain and its items' attributes; scripts/finetune.py goes on from what it leaves.

    python scripts/s3rec.py recipes/s3rec/beauty.yaml
    python scripts/s3rec.py recipes/s3rec/beauty.yaml data.domain=data/yelp data.attributes=yelp/attributes.parquet
    accelerate launch --num_processes 4 scripts/s3rec.py recipes/s3rec/beauty.yaml

Opens a prepared domain and a parquet file of attributes; leaves a model folder of item ids with its catalogue, the
weights of the last epoch. An interrupted run goes on with --resume.
"""

import argparse

import torch
from accelerate.utils import set_seed
from transformers.utils import logging as transformers_logging

from retr_hf.data.domain import load_domain
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.s3rec import S3RecCollator, read_attributes
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.entry import run
from retr_hf.measuring import is_synthetic, split_for
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.report.model_card import write_model_card
from retr_hf.report.results import environment
from retr_hf.s3rec_pretraining import S3REC_SCHEMA, S3RecConfig, S3RecForPreTraining
from retr_hf.stage import RESUMES, start_run
from retr_hf.training.loop import train
from retr_hf.training.recipe import builds, describe_schema, load_recipe
from retr_hf.training.run_folder import RunFolder
from retr_hf.training.settings_s3rec import S3REC_VALIDATORS


def main() -> None:
    args = command_line()
    recipe = load_recipe(args.recipe, args.overrides, S3REC_SCHEMA, [*S3REC_VALIDATORS, builds("model", S3RecConfig)])
    data, settings = recipe["data"], recipe["training"]
    domain = load_domain(data.domain)
    catalog = domain.catalog(embeddings=False)
    attributes = None if data.attributes is None else read_attributes(data.attributes, catalog)

    set_seed(recipe.run.seed)
    config = S3RecConfig(
        **recipe["model"],
        num_attributes=0 if attributes is None else attributes.shape[1],
        max_position_embeddings=data.max_length,
        vocab_size=domain.num_items + 1,
        catalog_hash=catalog.hash,
    )
    model = S3RecForPreTraining(config)
    folder = RunFolder(recipe.run.output_folder(domain.name))
    accelerator = start_run(recipe, folder, args)
    if accelerator is None:
        return

    split = split_for(config, domain, "train")
    sequences = TrainingSequences([split], [domain.num_items], data.max_length - 1, every_step=False)
    lay_out = layout_named(settings.layout, data.max_length)
    batches = Batches(
        sequences,
        Mixture(sequences.domain_sizes, seed=recipe.run.seed),
        S3RecCollator(domain.num_items, sequences, config.hidden_share, lay_out),
        settings.batch_size,
        settings.gradient_accumulation,
        accelerator.process_index,
        accelerator.num_processes,
    )
    accelerator.print(
        f"{recipe.name} on {domain.name}: {len(sequences):,} prefixes, {domain.num_items:,} items, "
        f"{config.num_attributes:,} attributes"
    )
    if settings.compile:
        model.model.compile_blocks()
    constants = {} if attributes is None else {"item_attributes": torch.from_numpy(attributes)}
    progress = train(
        model, batches, settings, folder, accelerator, seed=recipe.run.seed, constants=constants, resume=args.resume
    )
    if accelerator.is_main_process:
        model.recommender().save_pretrained(folder.path)
        RetrProcessor(catalog, data.max_length).save_pretrained(folder.path)
        write_model_card(folder.path, recipe.as_dict(), [], target=domain.name, synthetic=is_synthetic(domain))
        folder.finish(sources=[], trained_on=[domain.name], finished=environment()["date"])
        print(f"{folder.path}: pre-trained, {progress.step} steps")
    accelerator.end_training()


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of a recipe:\n" + describe_schema(S3REC_SCHEMA).replace("%", "%%"),
    )
    parser.add_argument("recipe", help="a YAML file of recipes/s3rec/")
    parser.add_argument("overrides", nargs="*", help="section.key=value, in YAML; wins over the file")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_intermixed_args()
    if args.quiet:
        args.overrides.append("training.progress=false")
    transformers_logging.disable_progress_bar()
    return args


if __name__ == "__main__":
    run(main, RESUMES)
