"""The errors of the toolkit: one small tree, so that a caller can catch as much or as little as wanted.

Files under ``retr_hf/model`` travel to the Hub without the package and therefore raise plain ``ValueError``;
every class here that concerns wrong input is a ``ValueError`` too, so ``except ValueError`` catches both.
"""


class RetrError(Exception):
    """Base class of all errors raised by retr_hf outside ``retr_hf.model``."""


class DataError(RetrError, ValueError):
    """Input data that cannot be used as it is: says the file, what was expected, what came and what to do."""


class RecipeError(RetrError, ValueError):
    """A recipe with mistakes: all of them at once, one line each.

    Args:
        source: the recipe file (or "command line") the problems were found in.
        problems: one sentence a mistake, each with the key it concerns.
    """

    def __init__(self, source: str, problems: list[str]):
        self.source, self.problems = source, list(problems)
        count = f"{len(problems)} mistake{'s' if len(problems) != 1 else ''}"
        super().__init__("\n".join([f"{source}: {count}", *(f"  - {problem}" for problem in problems)]))


class TrainingError(RetrError, RuntimeError):
    """A run that cannot go on (for example a loss that is not finite); the last good checkpoint is kept."""
