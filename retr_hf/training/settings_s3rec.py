"""What a recipe of ``scripts/s3rec.py`` may set: the sections that differ from those of the other scripts."""

from dataclasses import dataclass
from typing import Literal

from .fields import setting
from .recipe import Recipe
from .settings import RunSettings, TrainingSettings


@dataclass(frozen=True, kw_only=True)
class S3RecRun(RunSettings):
    """The top level of a recipe."""

    task: Literal["s3rec"] = setting(help="which script the recipe is for")


@dataclass(frozen=True, kw_only=True)
class S3RecData:
    """The domain that is read, its attributes, and how much of each history."""

    domain: str = setting(help="folder of a prepared domain", exists=True, hint="scripts/prepare.py makes one")
    attributes: str | None = setting(
        None, help="parquet of item_id and attributes (lists of ids); null: without AAP and MAP", exists=True
    )
    max_length: int = setting(50, help="items of a history that the model reads", min=2)


S3REC_SETTINGS = {"": S3RecRun, "data": S3RecData, "training": TrainingSettings}


def starts_anew(recipe: Recipe) -> list[str]:
    """Nothing is given that the script would silently ignore."""
    problems = ["init: S3-Rec is pre-trained from scratch; take it out"] if recipe.run.init is not None else []
    if recipe["training"].freeze != "none":
        problems.append("training.freeze: nothing is trained before; take it out")
    for name in ("patience", "metric", "evaluate_every"):
        if getattr(recipe["training"], name) != getattr(TrainingSettings(), name):
            problems.append(f"training.{name}: nothing is evaluated before the last epoch; take it out")
    return problems + (["results: pre-training leaves no result row; take it out"] if recipe.run.results else [])


S3REC_VALIDATORS = [starts_anew]
