"""Trains RecGURU on source domains and a target, by its own three phases, and tests it on the target.

    python scripts/recguru.py recipes/recguru/scientific.yaml
    python scripts/recguru.py recipes/recguru/scientific.yaml seed=1 training.target_steps=600 --quiet

Opens prepared domains; leaves a model folder with the target's catalogue (``RecGuru.from_pretrained`` opens it) and
adds result rows. One process. An interrupted run goes on with --resume, from its last checkpoint, as if unbroken.
"""

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from retr_hf.baselines.recguru import MODEL_KEYS, RecGuru, RecGuruConfig
from retr_hf.baselines.recguru_training import Adversarial, Reconstruction, Target
from retr_hf.data.collators import NextItemCollator
from retr_hf.data.domain import PreparedDomain, load_domain
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import group_by_length
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.entry import keep_freed_memory, run
from retr_hf.errors import RecipeError, TrainingError
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.measuring import print_metrics, ranks_of_split, require_splits, result_rows
from retr_hf.report.results import append_rows, environment, require_room
from retr_hf.stage import RESUMES, recipe_as_run
from retr_hf.training.recipe import builds, describe_schema, load_recipe
from retr_hf.training.run_folder import RunFolder, newest, replace_folder
from retr_hf.training.settings_recguru import RECGURU_SETTINGS, RECGURU_VALIDATORS

SCHEMA = {**RECGURU_SETTINGS, "model": (RecGuruConfig, MODEL_KEYS)}


def main() -> None:
    args = command_line()
    recipe = load_recipe(
        args.recipe, args.overrides, SCHEMA, [*RECGURU_VALIDATORS, builds("model", RecGuruConfig), one_domain_each]
    )
    data, evaluation = recipe["data"], recipe["evaluation"]
    sources, target = [load_domain(path) for path in data.sources], load_domain(data.target)
    require_splits(target, "validation", *(["test"] if evaluation.test else []))
    keep_freed_memory()
    catalog, accelerator = target.catalog(embeddings=False), Accelerator()
    if accelerator.num_processes > 1:
        raise RecipeError(recipe.source, [f"RecGURU trains in one process, came {accelerator.num_processes}"])

    set_seed(recipe.run.seed)
    config = RecGuruConfig(
        **recipe["model"],
        max_position_embeddings=data.max_length,
        source_vocab_size=sum(domain.num_items for domain in sources) + 1,
        vocab_size=target.num_items + 1,
        catalog_hash=catalog.hash,
    )
    model = RecGuru(config).to(accelerator.device)
    streams = {side: Stream(domains, recipe, accelerator.device) for side, domains in (("a", sources), ("b", [target]))}
    folder = RunFolder(recipe.run.output_folder(target.name))
    if args.resume and folder.finished:
        folder.require_same(recipe)
        print(f"{folder.path}: this run is finished, nothing to do")
        return
    about = {
        "name": recipe.name,
        "recipe": recipe_as_run(recipe),
        "seed": recipe.run.seed,
        "command": shlex.join(sys.argv),
    }
    about |= {"started": environment()["date"], "finished": None, "device": str(accelerator.device), **environment()}
    folder.open(recipe, about, args.resume, args.overwrite)
    if recipe.run.results:
        require_room(recipe.run.results)
    for side, stream in streams.items():
        print(f"domain {side}: {stream.name}, {len(stream.batches.sequences):,} sequences, {stream.items:,} items")

    def ranks(split: str) -> dict[str, np.ndarray]:
        users = evaluation.validation_users if split == "validation" else None
        return ranks_of_split(model, target, split, None, evaluation, data.max_length, users)

    def validate() -> dict[str, float]:
        return metrics_from_ranks(ranks("validation")[evaluation.validation_protocol], evaluation.cutoffs)

    counts = torch.from_numpy(target.training_counts())
    progress = train(model, streams, counts, recipe["training"], folder, validate, args.resume)
    model.load_state_dict(RecGuru.from_pretrained(newest(folder.best)).state_dict())
    folder.publish(folder.best)
    catalog.save_pretrained(folder.path)
    names, rows = [domain.name for domain in sources], []
    if evaluation.test:
        told = {"steps": progress.done, "best_step": progress.best_step, "stopped_early": progress.stopped_early}
        told |= {f"validation {recipe['training'].metric}": progress.best, "fix_enc": recipe["training"].fix_enc}
        rows = result_rows(
            ranks("test"), target, evaluation.cutoffs, recipe=recipe_as_run(recipe), system=recipe.name, sources=names,
            seed=recipe.run.seed, model=str(folder.path), settings=told,
        )  # fmt: skip
        if recipe.run.results:
            append_rows(recipe.run.results, rows)
    folder.finish(sources=names, trained_on=[*names, target.name], finished=environment()["date"])
    print_metrics(f"{folder.path}: best at step {progress.best_step} of {progress.done}", rows)


def command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="keys of a recipe:\n" + describe_schema(SCHEMA).replace("%", "%%"),
    )
    parser.add_argument("recipe", help="a YAML file of recipes/recguru/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="section.key=value, in YAML; wins")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    args = parser.parse_intermixed_args()
    args.overrides += ["training.progress=false"] if args.quiet else []
    transformers_logging.disable_progress_bar()
    return args


def one_domain_each(recipe) -> list[str]:
    """No domain is read on both sides: its histories would be told to be different ones."""
    data = recipe["data"]
    same = [source for source in data.sources if load_domain(source).name == load_domain(data.target).name]
    return [f"data.sources: {path} is the target itself" for path in same]


class Stream:
    """Batches of one side without end, as tensors; ``read`` says how many were taken, and setting it goes there."""

    def __init__(self, domains: list[PreparedDomain], recipe, device: torch.device):
        # The encoder reads a whole slice, history and last target: one more than max_length of TrainingSequences.
        sequences = TrainingSequences(
            [replace(domain.split("train"), timestamps=None) for domain in domains],
            [domain.num_items for domain in domains],
            recipe["data"].max_length - 1,
        )
        self.name, self.items = "+".join(domain.name for domain in domains), int(sequences.id_offsets[-1])
        collate = NextItemCollator(self.items, lay_out=group_by_length)
        mixture = Mixture(sequences.domain_sizes, seed=recipe.run.seed)
        self.batches = Batches(sequences, mixture, collate, recipe["training"].batch_size)
        self.device, self.read, self._epoch = device, 0, iter(())

    def go_to(self, read: int) -> None:
        """The next batch is number ``read``, counted from 0 over all epochs."""
        self.read = read
        self._epoch = self.batches.epoch(*divmod(read, self.batches.steps_per_epoch))

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        micro = next(self._epoch, None)
        if micro is None:
            self.go_to(self.read)
            micro = next(self._epoch)
        self.read += 1
        arrays = micro[0].items()
        return {k: torch.from_numpy(v).to(self.device) if isinstance(v, np.ndarray) else v for k, v in arrays}


@dataclass
class Progress:
    """Where a run stands: phase 0, 1, 2, steps done in it and in all, and the best validation so far."""

    phase: int = 0
    step: int = 0
    done: int = 0
    best: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    stopped_early: bool = False
    sums: dict[str, float] = field(default_factory=dict)


def train(model, streams, counts, settings, folder: RunFolder, validate, resume: bool) -> Progress:
    """All phases; checkpoints in ``folder``, the best of the last phase as a model folder."""
    phases = [
        (lambda: Reconstruction(model, settings), settings.reconstruction_steps),
        (lambda: Adversarial(model, settings), settings.adversarial_steps),
        (lambda: Target(model, settings, counts), settings.target_steps),
    ]
    progress, saved, at_work = Progress(), newest(folder.last) if resume else None, None
    if saved is not None:
        state = torch.load(saved / "state.pt", map_location=model.device, weights_only=True)
        progress, at_work = Progress(**state["progress"]), state["at_work"]
        model.load_state_dict(state["model"])
        for side, stream in streams.items():
            stream.go_to(state["read"][side])
        set_random_state(state["random"])
    if resume:
        folder.rewind_log(progress.done)

    total = sum(steps for _, steps in phases)
    bar = tqdm(total=total, initial=progress.done, unit="step", dynamic_ncols=True, disable=not settings.progress)
    while progress.phase < len(phases):
        build, steps = phases[progress.phase]
        phase = build()
        if at_work is not None:
            phase.load(at_work)
            at_work = None
        while progress.step < steps and not progress.stopped_early:
            model.train()
            losses = phase.step(streams, progress.step / steps)
            if not all(map(math.isfinite, losses.values())):
                raise TrainingError(
                    f"losses of phase {progress.phase + 1}, step {progress.step + 1} are not finite: {losses}; the "
                    "last checkpoint is kept. Start anew (--overwrite) with a lower learning rate of this phase"
                )
            progress.step, progress.done = progress.step + 1, progress.done + 1
            progress.sums = {name: progress.sums.get(name, 0.0) + loss for name, loss in losses.items()}
            bar.update()
            bar.set_postfix(phase=progress.phase + 1, loss=f"{sum(losses.values()):.4f}", refresh=False)
            if progress.step % settings.evaluate_every == 0 or progress.step == steps:
                look(model, progress, settings, folder, validate if progress.phase == len(phases) - 1 else None)
                if progress.step < steps:
                    save(model, progress, streams, phase.state(), folder)
        if progress.phase < len(phases) - 1:
            progress.step = 0
        progress.phase += 1
        save(model, progress, streams, None, folder)
    bar.close()
    return progress


def look(model, progress: Progress, settings, folder: RunFolder, validate) -> None:
    """A line of the log; in the last phase a validation, which keeps the best model and may end the phase."""
    since = (progress.step - 1) % settings.evaluate_every + 1
    losses = {name: loss / since for name, loss in progress.sums.items()}
    progress.sums = {}
    metrics = validate() if validate else {}
    if metrics:
        value = metrics[settings.metric]
        progress.without_gain += 1
        if progress.best is None or value > progress.best:
            progress.best, progress.best_step, progress.without_gain = value, progress.done, 0
            temporary = folder.best.with_name("best.tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            model.save_pretrained(temporary)
            replace_folder(temporary, folder.best)
        progress.stopped_early = bool(settings.patience) and progress.without_gain >= settings.patience
    folder.log(step=progress.done, phase=progress.phase + 1, loss=sum(losses.values()), **losses, **metrics)


def save(model, progress: Progress, streams, at_work, folder: RunFolder) -> None:
    """Everything a resumed run needs; ``at_work`` is the state of the phase, None between phases."""
    temporary = folder.last.with_name("last.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    state = {"model": model.state_dict(), "progress": asdict(progress), "at_work": at_work, "random": random_state()}
    torch.save(state | {"read": {side: stream.read for side, stream in streams.items()}}, temporary / "state.pt")
    replace_folder(temporary, folder.last)


def random_state() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: list[torch.Tensor]) -> None:
    torch.set_rng_state(state[0].cpu())
    if state[1:]:
        torch.cuda.set_rng_state_all([each.cpu() for each in state[1:]])


if __name__ == "__main__":
    run(main, RESUMES)
