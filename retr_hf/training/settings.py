"""What a recipe may set, apart from the model: one dataclass a section, every field with its meaning and unit.

:data:`SETTINGS` is the schema of these sections for :func:`retr_hf.training.recipe.load_recipe`; a script adds the
model section. :data:`VALIDATORS` are the rules between them.
"""

import re
import string
from dataclasses import dataclass, fields
from typing import Any, Literal

from .fields import setting
from .recipe import Recipe

METRIC_NAME = re.compile(r"(HR|NDCG)@([1-9][0-9]*)|MRR")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The top level of a recipe: what is run, from what, and where the result goes."""

    name: str = setting(help="the run's name, in folders and result rows")
    task: Literal["pretrain", "finetune"] = setting(help="which script the recipe is for")
    description: str = setting("", help="what the recipe is, in a sentence or two")
    expected: Any = setting(None, help="the result to expect, with date and commit; for people, not read by the code")
    output: str = setting(help="the folder of the finished run; may hold {name}, {domain} and {seed}")
    seed: int = setting(0, help="seed of weights, order and sampling", min=0)
    init: str | None = setting(
        None, help="a pre-trained model: a folder, or a repository of the Hub; null trains from scratch"
    )
    results: str | None = setting(None, help="JSON lines file that a result row is added to; null writes none")

    def __post_init__(self):
        self.output_folder("")

    def output_folder(self, domain: str) -> str:
        """The output folder with its placeholders filled in.

        Args:
            domain: name of the domain that is trained on (several, in pre-training, joined by the caller).

        Raises:
            ValueError: the template holds anything but {name}, {domain} and {seed}.
        """
        known = {"name": self.name, "domain": domain, "seed": self.seed}
        try:
            wrong = {name for _, name, _, _ in string.Formatter().parse(self.output) if name is not None} - set(known)
        except ValueError as error:
            raise ValueError(f"output: {self.output!r} is no template: {error}") from None
        if wrong:
            raise ValueError(f"output: expected {{name}}, {{domain}} or {{seed}}, came {{{sorted(wrong)[0]}}}")
        return self.output.format(**known)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which prepared domains are read, and how much of each history."""

    domains: list[str] = setting(
        help="folders of prepared domains", exists=True, hint="scripts/prepare.py makes a prepared domain"
    )
    max_length: int = setting(50, help="items of a history that the model reads", min=1)
    window: Literal["last", "random"] = setting("last", help="which part of a longer history an epoch reads")
    temperature: float = setting(1.0, help="mixture: a domain's share is proportional to n^(1/temperature)", above=0)
    views: Literal["items", "items+words"] = setting(
        "items", help="pre-training: a view of a history drops items, or sometimes words (needs embed --word-drop)"
    )
    cap: int | None = setting(None, help="sequences of a domain that count in an epoch, at most; null = all", min=1)
    candidates: Literal["batch", "domain"] = setting(
        "batch", help="pre-training: a target is ranked among all items of its batch, or those of its domain among them"
    )
    extra_candidates: int = setting(
        0,
        help="pre-training: items of all domains drawn into each batch as candidates, which are then weighted by their "
        "chance of being there",
        min=0,
    )
    train_users: int | None = setting(
        None, help="fine-tuning: users that training knows, at most, drawn by the seed; null = all", min=1
    )

    train_on: Literal["train", "all"] = setting(
        "train",
        help="fine-tuning: the train split; or all, what is held out for validation and test too, for training.epochs "
        "epochs: the model to serve, which nothing is left to measure",
    )

    def __post_init__(self):
        if not self.domains:
            raise ValueError("domains: expected at least one prepared domain, came an empty list")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The training loop."""

    epochs: int = setting(10, help="passes over the training sequences, at most", min=1)
    max_steps: int | None = setting(None, help="optimiser steps, at most; null = as many as the epochs have", min=1)
    batch_size: int = setting(512, help="sequences an optimiser step reads, over all processes", min=1)
    learning_rate: float = setting(1e-3, help="peak learning rate", above=0)
    weight_decay: float = setting(0.0, help="decoupled weight decay (AdamW)", min=0)
    warmup_steps: int = setting(0, help="optimiser steps over which the learning rate rises from 0", min=0)
    scheduler: Literal["constant", "linear", "cosine"] = setting("constant", help="learning rate after the warm-up")
    max_grad_norm: float | None = setting(None, help="gradients are clipped to this norm; null = not clipped", above=0)
    gradient_accumulation: int = setting(1, help="micro-batches that the batch of a step is cut into", min=1)
    freeze: Literal["none", "backbone"] = setting("none", help="what keeps its pre-trained weights")
    pretrained_rate: float = setting(
        1.0,
        help="fine-tuning: learning rate of pre-trained weights as a share of learning_rate; others learn at it whole",
        above=0,
    )
    patience: int = setting(10, help="evaluations without gain before stopping; 0 = never stop early", min=0)
    metric: str = setting("NDCG@10", help="validation metric that picks the checkpoint: HR@k, NDCG@k or MRR")
    evaluate_every: int = setting(1, help="epochs from one evaluation to the next", min=1)
    save_every: int | None = setting(None, help="steps between checkpoints, besides one at every evaluation", min=1)
    mixed_precision: Literal["no", "bf16", "fp16"] | None = setting(
        None, help="precision of the forward pass; null = what accelerate launch says"
    )
    trackers: list[str] = setting([], help="trackers by their names in accelerate, e.g. [tensorboard]")
    progress: bool = setting(True, help="show a progress bar")
    compile: bool = setting(False, help="torch.compile the blocks; on a CPU it needs a C++ compiler")
    layout: Literal["grouped", "packed", "padded"] = setting(
        "grouped",
        help="how histories lie in a batch: in groups of like length, several packed into rows of max_length, or one "
        "a row, padded to the longest",
    )

    def __post_init__(self):
        if not METRIC_NAME.fullmatch(self.metric):
            raise ValueError(f"metric: expected HR@k, NDCG@k or MRR, came {self.metric}")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How validation and test are ranked."""

    cutoffs: list[int] = setting([10, 50], help="k of HR@k and NDCG@k", min=1)
    batch_size: int = setting(512, help="sequences ranked at a time", min=1)
    validation_protocol: Literal["full", "full-unseen"] = setting(
        "full", help="candidates in validation: all items, or all that the history does not hold"
    )
    validation_users: int | None = setting(
        None, help="users of a domain that validation ranks, a fixed sample; null = all", min=1
    )
    test: bool = setting(True, help="evaluate the best checkpoint on the test split at the end")


SETTINGS = {"": RunSettings, "data": DataSettings, "training": TrainingSettings, "evaluation": EvaluationSettings}


def metric_is_computed(recipe: Recipe) -> list[str]:
    """The metric that picks the checkpoint is among those the evaluation computes."""
    metric, cutoffs = recipe["training"].metric, recipe["evaluation"].cutoffs
    if "@" not in metric or int(metric.partition("@")[2]) in cutoffs:
        return []
    return [f"training.metric: {metric} is not computed with evaluation.cutoffs {cutoffs}; add its k there"]


def pretrained_has_weights(recipe: Recipe) -> list[str]:
    """Only weights that were trained before can be kept, or learn slower."""
    if recipe.run.init is not None:
        return []
    kept, slower = recipe["training"].freeze != "none", recipe["training"].pretrained_rate != 1
    return ["training.freeze: a frozen backbone needs pre-trained weights; give init, or freeze: none"] * kept + [
        "training.pretrained_rate: is of pre-trained weights, and none are loaded; give init, or take it out"
    ] * slower


UNREAD = {  # what a task does not read, and would otherwise stand in its recipe without effect
    "pretrain": (
        *(("", "init"), ("", "results"), ("data", "train_users"), ("data", "train_on"), ("evaluation", "test")),
        *(("training", "freeze"), ("training", "pretrained_rate")),
    ),
    "finetune": (
        *(("data", "cap"), ("data", "temperature"), ("data", "views")),
        *(("data", "candidates"), ("data", "extra_candidates")),
    ),
}


def every_setting_is_read(recipe: Recipe) -> list[str]:
    """No setting is given that the task would silently ignore."""
    task, problems = recipe.run.task, []
    for section, key in UNREAD[task]:
        settings = recipe[section]
        default = next(field.default for field in fields(settings) if field.name == key)
        if getattr(settings, key) != default:
            problems.append(f"{section}.{key}".lstrip(".") + f": {task} does not read it; take it out")
    return problems


def outputs_differ(recipe: Recipe) -> list[str]:
    """Several fine-tuning runs do not write into one folder."""
    several = recipe.run.task == "finetune" and len(recipe["data"].domains) > 1
    if not several or "{domain}" in recipe.run.output:
        return []
    return ["output: several domains are fine-tuned one by one, so the folder must hold {domain}"]


def epochs_are_chosen(recipe: Recipe) -> list[str]:
    """Nothing stops a training on all there is but its epochs: who asks for it says how many."""
    asked = recipe["data"].train_on == "all" and "data.train_on" in recipe.overrides
    if not asked or {"training.epochs", "training.max_steps"} & set(recipe.overrides):
        return []
    return [
        "data.train_on: all has no validation that stops it: add training.epochs=N, as many as were best in the run "
        "that was measured (its last lines tell)"
    ]


VALIDATORS = [metric_is_computed, pretrained_has_weights, every_setting_is_read, outputs_differ, epochs_are_chosen]
