"""The settings of a RecBole checkpoint: what its shapes show, what its config says, what the command line adds.

No default is ever filled in: a value that nobody tells is asked for. All mistakes are told at once.
"""

import argparse
import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DataError
from .safe_checkpoint import Checkpoint, Foreign


class TheirSettings:
    """Reads settings by RecBole's names and collects what is wrong with them.

    Args:
        checkpoint: the file; its ``config`` may be missing.
        given: ``name=value`` pairs of the command line, which fill what the config does not say.

    Attributes:
        stored: the config of the file as a plain dict, {} where it has none.
        problems: one sentence a mistake so far.
    """

    def __init__(self, checkpoint: Checkpoint, given: Mapping[str, str] | None = None):
        self.path = checkpoint.path
        self.stored = _config_of(checkpoint)
        self.given = dict(given or {})
        self.problems: list[str] = []
        self._known: set[str] = set()

    @property
    def dataset(self) -> str:
        """Name of the dataset the checkpoint was trained on, fit to be printed; "unknown" where it does not say."""
        return re.sub(r"[^\w .-]", "?", str(self.stored.get("dataset") or "unknown"))

    def get(self, name: str) -> Any:
        """A setting as it was stored or else given, None where nobody tells."""
        self._known.add(name)
        stored, given = self.stored.get(name), self.given.get(name)
        if stored is None or isinstance(stored, Foreign):
            return given
        if given is not None and str(stored) != given and not _same_number(stored, given):
            self.problems.append(f"{name}: the checkpoint says {stored!r}, --set says {given}; leave --set {name} out")
        return stored

    def accept(self, name: str) -> None:
        """Lets the command line say ``name``, whatever the config says."""
        self._known.add(name)

    def told(self, name: str, kind: Callable[[Any], Any], where: str = "") -> Any:
        """A setting that no shape shows, as ``kind`` (int, float or str); None, and a problem, where it is missing."""
        value = self.get(name)
        if value is None:
            self.problems.append(f"{name}: not in the checkpoint{where}; add --set {name}=VALUE")
            return None
        try:
            converted = kind(value)
            if isinstance(value, bool) or (kind is int and float(value) != converted):
                raise ValueError
        except (TypeError, ValueError):
            self.problems.append(f"{name}: expected a {kind.__name__}, got {value!r}")
            return None
        return converted

    def shown(self, name: str, value: Any) -> Any:
        """A setting that shapes show; a problem where config or command line say otherwise."""
        said = self.get(name)
        if said is not None and said != value and not _same_number(said, value):
            self.problems.append(f"{name}: the weights show {value}, but {said!r} is said; which file is it?")
        return value

    def require(self, fits: bool, problem: str) -> None:
        """Notes a problem where something does not fit."""
        if not fits:
            self.problems.append(problem)

    def finish(self) -> None:
        """Raises DataError with all problems, names given that no setting has among them."""
        for name in self.given.keys() - self._known:
            near = difflib.get_close_matches(name, self._known, 1)
            self.problems.append(f"--set {name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
        if self.problems:
            count = f"{len(self.problems)} mistake{'s' if len(self.problems) != 1 else ''}"
            raise DataError("\n".join([f"{self.path}: {count}", *(f"  - {problem}" for problem in self.problems)]))

    def used(self) -> dict[str, Any]:
        """The settings that were read, stored or given, by their name."""
        values = {name: self.given.get(name, self.stored.get(name)) for name in self._known}
        return {name: value for name, value in values.items() if value is not None}


def name_and_value(text: str) -> tuple[str, str]:
    """A setting of the command line, ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as n_heads=2, got {text!r}")
    return name, value


def _config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """``final_config_dict`` of RecBole's Config, which is an object with a dict of attributes, or a dict itself."""
    config = checkpoint.entries.get("config")
    if isinstance(config, Foreign):
        config = config.state
    if isinstance(config, dict):
        config = config.get("final_config_dict", config)
    return {str(name): value for name, value in config.items()} if isinstance(config, dict) else {}


def _same_number(one: Any, other: Any) -> bool:
    try:
        return float(one) == float(other)
    except (TypeError, ValueError):
        return False
