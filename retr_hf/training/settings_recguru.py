"""What a recipe of ``scripts/recguru.py`` may set: the sections that differ from those of the other scripts.

Sources of the defaults: [A] the authors' code, where it runs their private data; there T = 3,000 steps, phase 2 takes
0.6 T and phase 3 as many. On public data they count 400 epochs for T.
"""

from dataclasses import dataclass
from typing import Literal

from .fields import setting
from .recipe import Recipe
from .settings import METRIC_NAME, EvaluationSettings, RunSettings, metric_is_computed


@dataclass(frozen=True, kw_only=True)
class RecGuruRun(RunSettings):
    """The top level of a recipe."""

    task: Literal["recguru"] = setting(help="which script the recipe is for")


@dataclass(frozen=True, kw_only=True)
class RecGuruData:
    """Which prepared domains are read, and how much of each history."""

    sources: list[str] = setting(
        help="folders of prepared domains, domain a: several are read as one", exists=True,
        hint="scripts/prepare.py makes a prepared domain",
    )  # fmt: skip
    target: str = setting(
        help="folder of a prepared domain, domain b", exists=True, hint="scripts/prepare.py makes a prepared domain"
    )
    max_length: int = setting(100, help="items of a history that the model reads [A]", min=2)

    def __post_init__(self):
        if not self.sources:
            raise ValueError("sources: expected at least one prepared domain, came an empty list")


@dataclass(frozen=True, kw_only=True)
class RecGuruTraining:
    """The three phases."""

    batch_size: int = setting(1024, help="sequences of each domain that a step reads [A]", min=1)
    reconstruction_steps: int = setting(2000, help="steps of phase 1 [A]", min=0)
    warmup_steps: int = setting(1000, help="phase 1: steps over which the learning rate rises (Noam) [A]", min=1)
    num_negatives: int = setting(30, help="negatives a step of the reconstruction [A]", min=1)
    adversarial_steps: int = setting(1800, help="steps of phase 2 [A]", min=0)
    adversarial_learning_rate: float = setting(1e-4, help="phase 2: of Adam, critic and all else [A]", above=0)
    critic_steps: int = setting(5, help="phase 2: steps of the critic, one of all else [A]", min=1)
    gradient_penalty: float = setting(0.1, help="phase 2: weight of the critic's gradient penalty [A]", min=0)
    target_steps: int = setting(1800, help="steps of phase 3, at most [A]", min=1)
    target_learning_rate: float = setting(1e-3, help="phase 3: of Adam [A]", above=0)
    num_bpr_negatives: int = setting(5, help="phase 3: negatives a step of the recommendation loss [A]", min=1)
    popular_after: float = setting(
        1 / 3, help="phase 3: share of it after which those are drawn by counts^(3/4) [A]; 1 = never", min=0, max=1
    )
    fix_enc: bool = setting(True, help="phase 3: the recommendation loss does not train the encoder [A]")
    evaluate_every: int = setting(100, help="steps between checkpoints, lines of the log, evaluations (phase 3)", min=1)
    patience: int = setting(5, help="evaluations without gain before stopping (the authors do not); 0 = never", min=0)
    metric: str = setting("NDCG@10", help="validation metric that picks the checkpoint: HR@k, NDCG@k or MRR")
    progress: bool = setting(True, help="show a progress bar")

    def __post_init__(self):
        if not METRIC_NAME.fullmatch(self.metric):
            raise ValueError(f"metric: expected HR@k, NDCG@k or MRR, came {self.metric}")


RECGURU_SETTINGS = {
    "": RecGuruRun,
    "data": RecGuruData,
    "training": RecGuruTraining,
    "evaluation": EvaluationSettings,
}


def starts_anew(recipe: Recipe) -> list[str]:
    """Nothing is given that the script would silently ignore."""
    return ["init: RecGURU trains all its phases anew; take it out"] if recipe.run.init is not None else []


RECGURU_VALIDATORS = [metric_is_computed, starts_anew]
