"""The training loop: one function, for both stages, on Accelerate.

It knows no recipe of a stage, no data format and no metric: batches, evaluation and settings are given to it. A batch
is a pure function of seed, epoch and step, so a resumed run needs the weights, the optimiser and the random state
alone, and equals the unbroken run, inside an epoch too.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn.utils import get_total_norm
from tqdm.auto import tqdm
from transformers import get_scheduler

from ..errors import TrainingError
from .prefetch import prefetch
from .run_folder import RunFolder, newest, replace_folder


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint.

    epoch, step_in_epoch, step: epochs done, optimiser steps done in this epoch, and in all.
    best, best_step: best validation metric so far and the step it was reached at.
    without_gain: evaluations since then.
    """

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    stopped_early: bool = False
    losses: list[float] = field(default_factory=list)


def train(
    model: torch.nn.Module,
    batches: Any,
    settings: Any,
    run: RunFolder,
    accelerator: Accelerator,
    *,
    seed: int = 0,
    evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    constants: dict[str, torch.Tensor] | None = None,
    rate_of: Callable[[str], float] = lambda name: 1.0,
    resume: bool = False,
) -> Progress:
    """Trains ``model`` in place and leaves checkpoints in ``run``; the best one ends up in the model and the folder.

    The loss of a batch is its sum over targets divided by the number of targets of the global batch, over micro-batches
    and processes, so neither changes the gradient. (Micro-batches do in contrastive losses: each has its own
    negatives.)

    Args:
        model: returns an output with ``loss``, given a batch.
        batches: ``data.mixture.Batches``: ``steps_per_epoch`` and ``epoch(number, start)`` -> lists of micro-batches.
        settings: ``TrainingSettings``.
        evaluate: model -> metrics, run every ``settings.evaluate_every`` epochs on all processes; None keeps the last
            weights as the best.
        constants: tensors given to the model with every batch (the text table of a catalogue).
        rate_of: name of a parameter -> its share of ``settings.learning_rate``.
        resume: go on from ``run.last`` where it exists.

    Raises:
        TrainingError: a loss that is not finite; the last good checkpoint stays.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(settings.learning_rate * rate_of(name), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": group, "lr": rate} for rate, group in groups.items()],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    total = settings.epochs * batches.steps_per_epoch
    if settings.max_steps is not None:
        total = min(total, settings.max_steps)
    scheduler_name = "constant_with_warmup" if settings.scheduler == "constant" else settings.scheduler
    scheduler = get_scheduler(scheduler_name, optimizer, settings.warmup_steps, total)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)
    constants = {name: tensor.to(accelerator.device) for name, tensor in (constants or {}).items()}

    def send(micro_batches: list[dict]) -> list[dict]:
        return [
            {name: _to_device(value, accelerator.device) for name, value in micro.items()} for micro in micro_batches
        ]

    progress = Progress()
    set_seed(seed, device_specific=True)
    saved = newest(run.last) if resume else None
    if saved is not None:
        progress = Progress(**json.loads((saved / "progress.json").read_text(encoding="utf-8")))
        accelerator.load_state(str(saved))
    if resume and accelerator.is_main_process:
        run.rewind_log(progress.step)

    bar = tqdm(
        total=total,
        initial=progress.step,
        unit="step",
        dynamic_ncols=True,
        disable=not (settings.progress and accelerator.is_main_process),
    )
    started, first_step, targets_seen = time.perf_counter(), progress.step, 0
    while progress.step < total and not progress.stopped_early:
        model.train()
        for micro_batches in prefetch(batches.epoch(progress.epoch, progress.step_in_epoch), send):
            loss = _step(model, optimizer, micro_batches, constants, settings, accelerator, progress)
            scheduler.step()
            targets_seen += micro_batches[0]["num_items_in_batch"]
            progress.step += 1
            progress.step_in_epoch += 1
            progress.losses.append(loss)
            bar.update()
            bar.set_postfix(epoch=progress.epoch + 1, loss=f"{loss:.4f}", refresh=False)
            if progress.step == total:
                break
            ended = progress.step_in_epoch == batches.steps_per_epoch  # which is saved below, with its line of the log
            if settings.save_every and progress.step % settings.save_every == 0 and not ended:
                _save(run, accelerator, progress)
        if progress.step_in_epoch == batches.steps_per_epoch:
            progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
        last = progress.step == total
        seconds = time.perf_counter() - started
        entry = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": float(np.mean(progress.losses)) if progress.losses else None,
            "learning_rate": max(scheduler.get_last_lr()),
        }
        progress.losses = []
        if evaluate is not None and (last or progress.epoch % settings.evaluate_every == 0):
            metrics = evaluate(accelerator.unwrap_model(model))
            entry |= metrics
            value = metrics[settings.metric]
            improved = progress.best is None or value > progress.best
            if improved:
                progress.best, progress.best_step, progress.without_gain = value, progress.step, 0
                _save_best(run, accelerator, model)
            else:
                progress.without_gain += 1
                progress.stopped_early = bool(settings.patience) and progress.without_gain >= settings.patience
            bar.set_postfix({settings.metric: f"{value:.4f}", "best": f"{progress.best:.4f}"}, refresh=False)
        if accelerator.is_main_process:
            run.log(**entry, targets_per_second=round(targets_seen / seconds, 1), seconds=round(seconds, 1))
        accelerator.log({name: value for name, value in entry.items() if value is not None}, step=progress.step)
        _save(run, accelerator, progress)
    bar.close()

    if evaluate is None:
        progress.best_step = progress.step
        _save_best(run, accelerator, model)
    accelerator.wait_for_everyone()
    best = newest(run.best)
    trained = accelerator.unwrap_model(model)
    trained.load_state_dict(type(trained).from_pretrained(best).state_dict())
    if accelerator.is_main_process and progress.step > first_step:
        rate, processes = targets_seen / (time.perf_counter() - started), accelerator.num_processes
        each = f", {rate / processes:,.0f} a process" if processes > 1 else ""
        accelerator.print(f"{progress.step} steps, {rate:,.0f} targets/s{each}")
    return progress


def _to_device(value: Any, device: torch.device) -> Any:
    """An array as a tensor on its way to the device; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    tensor = torch.from_numpy(value)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _step(model, optimizer, micro_batches, constants, settings, accelerator, progress) -> float:
    """One optimiser step on one global batch; the loss of all its targets."""
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=accelerator.device)
    for number, micro in enumerate(micro_batches):
        last = number == len(micro_batches) - 1
        with torch.enable_grad(), _synchronised(accelerator, model, last), accelerator.autocast():
            loss = model(**micro, **constants).loss
            total += loss.detach()
            # DDP averages gradients over processes; the loss is already divided by the global number of targets.
            accelerator.backward(loss * accelerator.num_processes)
    value = float(accelerator.reduce(total, reduction="sum"))
    if settings.max_grad_norm is not None:
        norm = float(accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm))
    else:
        norm = float(get_total_norm([weight.grad for weight in model.parameters() if weight.grad is not None]))
    # fp16 scales its loss and skips a step whose gradient overflows: there an infinite norm is no mistake.
    what = "loss" if not math.isfinite(value) else "gradient"
    if not math.isfinite(value) or (accelerator.scaler is None and not math.isfinite(norm)):
        raise TrainingError(
            f"the {what} is {norm if what == 'gradient' else value} at epoch {progress.epoch + 1}, batch "
            f"{progress.step_in_epoch + 1} (step {progress.step + 1}): weights were not updated, the last checkpoint "
            "is kept. The same seed meets the same batch again, so start anew (--overwrite) with a lower "
            "training.learning_rate, training.max_grad_norm=1.0 or training.mixed_precision=no"
        )
    optimizer.step()
    return value


def _synchronised(accelerator, model, last: bool):
    """Gradients cross processes with the last micro-batch alone."""
    return nullcontext() if last else accelerator.no_sync(model)


def _save(run: RunFolder, accelerator: Accelerator, progress: Progress) -> None:
    """Everything a resumed run needs, under a temporary name first."""
    temporary = run.last.with_name("last.tmp")
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        replace_folder(temporary, run.last)
    accelerator.wait_for_everyone()


def _save_best(run: RunFolder, accelerator: Accelerator, model) -> None:
    if accelerator.is_main_process:
        temporary: Path = run.best.with_name("best.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        accelerator.unwrap_model(model).save_pretrained(temporary)
        replace_folder(temporary, run.best)
    accelerator.wait_for_everyone()
