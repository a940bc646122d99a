"""What a recipe was given, layer on layer: what it extends, the recipe, systems over it, the command line on top.

Beside the values goes where each was given, for the messages: ``("training", "epochs") -> " (base.yaml line 12)"``.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from . import strict_yaml

Origin = dict[tuple[str, ...], str]
SYSTEM_KEYS = ("name", "description", "model", "training")  # what a system file may give


def read_layers(path: Path, sections: Collection[str]) -> tuple[dict[str, Any], Origin, list[str]]:
    """What a recipe gives over what the recipe it extends gives.

    Sections are merged key by key, anything else (a list, a note) is replaced whole.

    Returns:
        the values, where each was given, and one sentence for every file that cannot be read, key given twice,
        and recipe that extends itself.
    """
    problems: list[str] = []
    given, origin = _read(path, (), sections, problems)
    return given, origin, problems


def lay_system(given: dict, origin: Origin, path: Path, sections: Collection[str]) -> Iterator[str]:
    """Lays a system file over what the recipe gave, in place: which model is run, and nothing of what it is run on.

    So the same file goes over pre-training and fine-tuning recipes, and what two systems differ in stands on its lines.
    What the recipe says to expect is taken out: that was measured with another model.

    Yields:
        one sentence for every mistake of ``read_layers``, for every key that is not one of ``SYSTEM_KEYS``, and for a
        file that gives no model.
    """
    values, lines, problems = read_layers(path, sections)
    yield from (f"system {path.name}: {problem}" for problem in problems)
    if problems and not values:
        return
    for key in [key for key in values if key not in SYSTEM_KEYS]:
        place = lines.get((key,), "")
        yield f"system {path.name}: {key}{place}: a system file gives {', '.join(SYSTEM_KEYS)} and nothing else"
        del values[key]
    if not isinstance(values.get("model"), dict):
        yield f"system {path.name}: expected a model section, the lines that tell this system from others"
    given.pop("expected", None)
    _merge(given, values, sections)
    for key in (key for key in lines if key[0] in values):
        origin[key] = lines[key].replace(" (line ", f" ({path.name} line ")


def _read(
    path: Path, below: tuple[Path, ...], sections: Collection[str], problems: list[str]
) -> tuple[dict[str, Any], Origin]:
    """:func:`read_layers` for one file; ``below`` are the recipes that lead here by extending one another."""
    here = f"{path.name} " if below else ""  # the report opens with the recipe's own name
    try:
        value, lines, twice = strict_yaml.read(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f"{'extends: ' if below else ''}expected a recipe file, came {path}: {error.strerror}")
        return {}, {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problems.append(f"{here}not YAML: {' '.join(str(error).split())}")
        return {}, {}
    if not isinstance(value, dict):
        problems.append(f"{here}expected keys and values, came {strict_yaml.inline(value)}")
        return {}, {}
    problems += [here + sentence for sentence in twice]
    given = {str(key): inner for key, inner in value.items()}
    origin = {key: f" ({here}line {line})" for key, line in lines.items()}
    if "extends" not in given:
        return given, origin

    extends, chain = given.pop("extends"), (*below, path.resolve())
    if not isinstance(extends, str):
        where = origin["extends",]
        problems.append(f"extends{where}: expected the path of a recipe, came {strict_yaml.inline(extends)}")
        return given, origin
    base = path.parent / extends
    if base.resolve() in chain:
        circle = [*chain[chain.index(base.resolve()) :], base.resolve()]
        problems.append(f"extends: recipes that extend one another: {' -> '.join(one.name for one in circle)}")
        return given, origin
    merged, inherited = _read(base, chain, sections, problems)
    _merge(merged, given, sections)
    return merged, {**inherited, **origin}


def _merge(below: dict[str, Any], above: dict[str, Any], sections: Collection[str]) -> None:
    """Lays ``above`` over ``below``, in place; sections key by key."""
    for key, inner in above.items():
        both = key in sections and isinstance(inner, dict) and isinstance(below.get(key), dict)
        below[key] = {**below[key], **inner} if both else inner


def lay_overrides(given: dict, origin: Origin, overrides: Sequence[str], sections: Collection[str]) -> Iterator[str]:
    """Lays ``section.key=value`` and ``key=value`` over what the files gave, in place.

    Yields:
        one sentence for every override that is malformed.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or len(path) > 2 or not all(path):
            yield f"override {override!r}: expected section.key=value or key=value"
            continue
        if path == ("extends",):
            yield f"override {override!r}: extends is said in the file"
            continue
        if len(path) == 1 and path[0] in sections:
            yield f"override {override!r}: {path[0]} is a section; write {path[0]}.key=value"
            continue
        try:
            value = strict_yaml.read(text)[0]
        except yaml.YAMLError:
            yield f"override {override!r}: {text!r} is not a YAML value"
            continue
        if len(path) == 1:
            given[path[0]] = value
        elif given.get(path[0]) is None or isinstance(given[path[0]], dict):
            given[path[0]] = {**(given.get(path[0]) or {}), path[1]: value}
        else:
            yield f"override {override!r}: {path[0]} is a key and no section; write {path[0]}=value"
            continue
        origin[path] = " (command line)"
