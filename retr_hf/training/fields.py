"""One value against one dataclass field: its annotation (which type) and its metadata (which values).

Metadata a field may carry, all optional:
    help: str              what the field is, with its unit
    choices: list          the values allowed (``typing.Literal`` in the annotation says the same)
    min, max, above        inclusive bounds, exclusive lower bound
    exists: bool           a path that must exist; a relative path starts at the current folder
    distinct: bool         of a list: no element twice
    hint: str              what to do about a value that is refused
In a list, choices, bounds and existence are asked of every element.
"""

import dataclasses
import difflib
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from .strict_yaml import inline

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
_UNIONS = (Union, types.UnionType)


class Mismatch(ValueError):
    """A value of the wrong type: the message says what was expected, what came, and the likely slip."""


def setting(default: Any = dataclasses.MISSING, help: str = "", **metadata: Any) -> Any:
    """A dataclass field with its documentation and its limits beside it; every object gets its own copy of a list."""
    metadata["help"] = help
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def annotation_of(cls: type, name: str) -> Any:
    """The evaluated annotation of one dataclass field.

    Only this one is evaluated: transformers' configurations annotate other fields with names that exist for type
    checkers alone, on which ``typing.get_type_hints`` fails.
    """
    owner = next(owner for owner in cls.__mro__ if name in owner.__dict__.get("__annotations__", {}))
    annotation = owner.__dict__["__annotations__"][name]
    if isinstance(annotation, str):
        return eval(annotation, vars(sys.modules[owner.__module__]), dict(vars(owner)))
    return annotation


def describe(annotation: Any) -> str:
    """An annotation in words: ``int | None`` is "a whole number or null"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(inline(one) for one in inner)
    if origin in _UNIONS:
        return " or ".join(describe(one) for one in inner if not (one is int and float in inner))
    if origin in (list, tuple):
        return f"a list, each element {describe(inner[0])}"
    if annotation in (list, tuple):
        return "a list"
    return _WORDS.get(annotation) or getattr(annotation, "__name__", str(annotation))


def fit(value: Any, annotation: Any) -> Any:
    """The value as the annotation wants it.

    A whole number becomes a float where a float is wanted, a list a tuple where a tuple is; nothing else is converted:
    the text "1" is no number and true is not 1.

    Raises:
        Mismatch: the value is of another type.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in (Any, object):
        return value
    if origin is Literal and any(value == one and type(value) is type(one) for one in inner):
        return value
    if origin in _UNIONS:
        if type(value) in inner:  # an exact fit first: 1 stays 1 in `float | int`
            return value
        for one in inner:
            try:
                return fit(value, one)
            except Mismatch:
                continue
    container = origin or annotation
    if container in (list, tuple) and isinstance(value, list):
        return container(fit(one, inner[0]) if inner else one for one in value)
    if annotation is float and type(value) is int:
        return float(value)
    if isinstance(annotation, type) and origin is None and isinstance(value, annotation):
        if type(value) is not bool or annotation is bool:
            return value
    raise Mismatch(f"expected {describe(annotation)}, came {inline(value)}{_slip(value, annotation)}")


def _slip(value: Any, annotation: Any) -> str:
    """The likely slip behind a value of the wrong type."""
    members = get_args(annotation) if get_origin(annotation) in _UNIONS else [annotation]
    for one in members:
        if get_origin(one) is Literal:
            near = nearest(str(value), map(str, get_args(one)))
            return f"; did you mean {near}?" if near else ""
        if list in (one, get_origin(one)) and not isinstance(value, (list, dict, type(None))):
            return f"; write [{inline(value)}]"
        if one is str and isinstance(value, (bool, int, float)):
            return f'; put it in quotes: "{inline(value)}"'
        if one in (int, float, bool) and isinstance(value, str):
            return " (text)"
    return ""


def limits(value: Any, metadata: Mapping[str, Any], check_paths: bool = True) -> list[str]:
    """What a field's metadata holds against a value of the right type: one sentence each, none if all is well."""
    problems = []
    for one in value if isinstance(value, (list, tuple)) else [value] if value is not None else []:
        came = inline(one)
        if "choices" in metadata and one not in metadata["choices"]:
            near = nearest(str(one), map(str, metadata["choices"]))
            allowed = ", ".join(inline(choice) for choice in metadata["choices"])
            problems.append(f"expected one of {allowed}, came {came}" + (f"; did you mean {near}?" if near else ""))
        if one in (float("inf"), float("-inf")):
            problems.append(f"expected a finite number, came {came}")
        # each bound is written so that NaN, which compares false with everything, is refused
        if "min" in metadata and not one >= metadata["min"]:
            problems.append(f"expected at least {metadata['min']}, came {came}")
        if "above" in metadata and not one > metadata["above"]:
            problems.append(f"expected more than {metadata['above']}, came {came}")
        if "max" in metadata and not one <= metadata["max"]:
            problems.append(f"expected at most {metadata['max']}, came {came}")
        if metadata.get("exists") and check_paths and not Path(one).exists():
            problems.append(f"no such file or folder: {one}")
    if metadata.get("distinct") and (twice := [one for place, one in enumerate(value) if one in value[:place]]):
        problems.append(f"expected every one once, came {inline(twice[0])} twice")
    hint = f"; {metadata['hint']}" if metadata.get("hint") else ""
    return [problem + hint for problem in problems]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like a misspelt one, or None where nothing is like it."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)
