"""Strict recipes: a flat YAML file and command-line overrides become settings, or every mistake is told at once.

name: pantry                     # top-level keys: the dataclass under "" in the schema
extends: ../base.yaml            # optional: built on another recipe; what is given here wins
training:                        # a section: one dataclass
  learning_rate: 1e-3

recipe = load_recipe("recipes/pantry.yaml", ["training.epochs=3", "seed=1"], SETTINGS)
recipe.run.seed, recipe["training"].epochs
"""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from . import strict_yaml
from .fields import Mismatch, annotation_of, describe, fit, limits, nearest
from .layers import lay_overrides, lay_system, read_layers

TOP = ""  # the section of the top-level keys


@dataclass(frozen=True)
class OneOf:
    """A section whose dataclass the recipe chooses, by the value of one of its keys.

    key: that key. default: its value where it is not given. entries: value -> (dataclass, names), as in a schema.
    """

    key: str
    default: str
    entries: Mapping[str, tuple[type, Collection[str]]]


Schema = Mapping[str, type | tuple[type, Collection[str]] | OneOf]


@dataclass(frozen=True)
class Recipe:
    """A recipe with every value resolved.

    Attributes:
        source: the file it was read from, and after " + " the systems laid over it. Recipes with the same values are
            equal, whatever their files.
        sections: section name -> settings object, "" for the top-level settings. A section that the schema gives as a
            pair (dataclass, names) is a plain dict of the keys that were given.
        overrides: key -> value of the command line, both as they were written there.
    """

    source: str = dataclasses.field(compare=False)
    sections: Mapping[str, Any]
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def __getitem__(self, section: str) -> Any:
        return self.sections[section]

    @property
    def run(self) -> Any:
        """The top-level settings."""
        return self.sections[TOP]

    @property
    def name(self) -> str:
        """The recipe's ``name``; the name of its file where the settings have none."""
        return getattr(self.run, "name", Path(self.source).stem)

    def as_dict(self) -> dict[str, Any]:
        """Every value, defaults included, laid out as in a file: plain dicts, lists and scalars."""
        plain = {name: _plain(section) for name, section in self.sections.items()}
        return {**plain.pop(TOP, {}), **plain}

    def to_yaml(self) -> str:
        """The resolved recipe as YAML; :func:`load_recipe` makes an equal recipe of it."""
        return strict_yaml.write(self.as_dict())

    def save(self, path: str | os.PathLike) -> None:
        """Writes :meth:`to_yaml` to a file, whole or not at all."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.to_yaml(), encoding="utf-8")
        os.replace(temporary, path)


Validator = Callable[[Recipe], list[str]]


def load_recipe(
    path: str | os.PathLike,
    overrides: Sequence[str],
    schema: Schema,
    validators: Sequence[Validator] = (),
    check_paths: bool = True,
    systems: Sequence[str | os.PathLike] = (),
) -> Recipe:
    """Reads a recipe, the recipes it extends, systems and overrides, and checks all of it before anything runs.

    Args:
        path: a YAML file. Paths inside it start at the current folder; only ``extends`` starts at the folder of the
            recipe that says it.
        overrides: ``section.key=value`` or ``key=value``, the value in YAML (``1e-3``, ``null``, ``[a, b]``). They win
            over the file, a later one over an earlier one.
        schema: section name -> dataclass, the top-level keys' dataclass under "". A pair (dataclass, names) allows
            those keys only and gives the section back as a dict of what was given: for a model configuration, whose
            remaining fields are no business of a recipe. ``OneOf`` chooses among such pairs; the dict then holds the
            choosing key too, where it was given.
        validators: rules across fields: the recipe -> one sentence for each problem. A rule that reads a section
            with a wrong value in it is left out, for what it would say is a guess.
        check_paths: False reads a recipe where its data is absent.
        systems: YAML files laid over the recipe, below the overrides; see ``layers.lay_system``.

    Raises:
        RecipeError: one line for every mistake: unknown and duplicate keys, wrong types, values out of range, missing
            required keys, missing files, malformed overrides, and whatever the validators say.
    """
    names = [name for name in schema if name != TOP]
    given, origin, problems = read_layers(Path(path), names)
    if problems and not given:  # a file that cannot be read is one mistake, not that and every required key
        raise RecipeError(str(path), problems)
    for system in systems:
        problems += lay_system(given, origin, Path(system), names)
    problems += lay_overrides(given, origin, overrides, names)
    sections: dict[str, Any] = {}
    schema, chosen = _choose(schema, given, origin, problems)
    for name in schema:
        problems += _check(name, given, origin, schema, sections, check_paths)
    for name, choice in chosen.items():
        if name in sections:
            sections[name] = choice | sections[name]
    problems += _unknown_top(given, origin, schema)
    said = {key.strip(): value.strip() for key, _, value in (override.partition("=") for override in overrides)}
    recipe = Recipe(" + ".join(map(str, [path, *systems])), sections, said)
    for validate in validators:
        problems += _validate(validate, recipe, schema)
    if problems:
        raise RecipeError(recipe.source, problems)
    return recipe


def builds(section: str, build: Callable[..., Any]) -> Validator:
    """A validator that tries ``build(**recipe[section])``: for a configuration class with rules of its own."""

    def validate(recipe: Recipe) -> list[str]:
        values = recipe[section]
        try:
            build(**values)
        except Exception as error:  # noqa: BLE001  transformers' strict configurations raise no ValueError
            return [f"{section}: {' '.join(str(error.__cause__ or error).split())}"]
        return []

    return validate


def describe_schema(schema: Schema) -> str:
    """Every key a recipe may hold, one a line, with its meaning, type and default: for a script's ``--help``."""
    lines, entries = [], []
    for name, entry in schema.items():
        choices = entry.entries.items() if isinstance(entry, OneOf) else [(None, entry)]
        told: set[str] = set()  # what the first choice may give is not said again of the others
        for value, pair in choices:
            entries.append((name, f"{name} ({entry.key}: {value})" if value else name, pair, frozenset(told)))
            told |= set(_fields(pair)[1]) if value else set()
    for name, title, pair, told in entries:
        cls, fields = _fields(pair)
        fields = {key: field for key, field in fields.items() if key not in told}
        lines += [f"{title}:"] if name else []
        for key, field in fields.items():
            default = "required" if _required(field) else f"default {strict_yaml.inline(_plain(_default(field)))}"
            words = [field.metadata.get("help"), describe(annotation_of(cls, key)), default]
            lines.append(f"{'  ' if name else ''}{key}: {'; '.join(word for word in words if word)}")
    return "\n".join(lines)


def _choose(schema: Schema, given: dict, origin: dict, problems: list[str]) -> tuple[Schema, dict[str, dict]]:
    """The schema with every ``OneOf`` decided, and the choosing keys that were given, taken out of their sections."""
    decided, chosen = dict(schema), {}
    for name, entry in schema.items():
        if not isinstance(entry, OneOf):
            continue
        section, value = given.get(name), entry.default
        if isinstance(section, dict) and entry.key in section:
            given[name] = {key: inner for key, inner in section.items() if key != entry.key}
            value = section[entry.key]
            if isinstance(value, str) and value in entry.entries:
                chosen[name] = {entry.key: value}
            else:
                near = nearest(str(value), entry.entries)
                problems.append(
                    f"{name}.{entry.key}{origin.get((name, entry.key), '')}: expected one of "
                    f"{', '.join(entry.entries)}, came {strict_yaml.inline(value)}"
                    + (f"; did you mean {near}?" if near else "")
                )
                value = entry.default
        decided[name] = entry.entries[value]
    return decided, chosen


def _check(name: str, given: dict, origin: dict, schema: Schema, sections: dict, check_paths: bool) -> Iterator[str]:
    """The mistakes of one section; puts the section into ``sections`` if none of its values is wrong or missing."""
    cls, fields = _fields(schema[name])
    values = given if name == TOP else given.get(name)
    values = {} if values is None else values
    if not isinstance(values, dict):
        yield f"{name}{origin.get((name,), '')}: expected a section of keys, came {strict_yaml.inline(values)}"
        return
    good, wrong = {}, False
    for key, value in values.items():
        path = (key,) if name == TOP else (name, str(key))
        label = ".".join(path) + origin.get(path, "")
        if key not in fields:
            if name != TOP:  # at the top an unknown key may be a section: _unknown_top
                yield f"{label}: unknown key; {_suggest(name, str(key), schema)}"
            continue
        try:
            good[key] = fit(value, annotation_of(cls, key))
            problems = limits(good[key], fields[key].metadata, check_paths)
        except Mismatch as error:
            problems = [str(error)]
        wrong = wrong or bool(problems)
        yield from (f"{label}: {problem}" for problem in problems)
    if isinstance(schema[name], tuple):
        if not wrong:
            sections[name] = good
        return
    for key, field in fields.items():
        if _required(field) and key not in values:
            wrong = True
            about = field.metadata.get("help")
            yield f"{_dotted(name, key)}: required and not given" + (f"; it is {about}" if about else "")
    if not wrong:
        try:
            sections[name] = cls(**good)
        except ValueError as error:  # a rule of the dataclass's own, in __post_init__
            yield f"{name}: {error}" if name else str(error)


def _unknown_top(given: dict, origin: dict, schema: Schema) -> Iterator[str]:
    """The top-level keys that are neither a section nor a top-level setting."""
    known = [*(_fields(schema[TOP])[1] if TOP in schema else []), *(name for name in schema if name)]
    for key, value in given.items():
        if key not in known:
            kind = "section" if isinstance(value, dict) else "key"
            yield f"{key}{origin.get((key,), '')}: unknown {kind}; {_suggest(TOP, key, schema)}"


def _validate(validate: Validator, recipe: Recipe, schema: Schema) -> list[str]:
    """What a validator says; nothing where it reads a section that holds a mistake already told."""
    try:
        return list(validate(recipe))
    except KeyError as error:
        if error.args[0] in schema and error.args[0] not in recipe.sections:
            return []
        raise


def _suggest(name: str, key: str, schema: Schema) -> str:
    """What an unknown key may have meant: the same key elsewhere, one like it here, one like it elsewhere."""
    here = list(_fields(schema[name])[1]) if name in schema else []
    here += [other for other in schema if other] if name == TOP else []
    elsewhere = {known: other for other in schema if other != name for known in _fields(schema[other])[1]}
    if key in elsewhere:
        return f"did you mean {_dotted(elsewhere[key], key)}?"
    if near := nearest(key, here):
        return f"did you mean {_dotted(name, near)}?"
    if near := nearest(key, elsewhere):
        return f"did you mean {_dotted(elsewhere[near], near)}?"
    return f"known here: {', '.join(here)}"


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _fields(entry: type | tuple[type, Collection[str]]) -> tuple[type, dict[str, dataclasses.Field]]:
    """The dataclass of a schema entry and its fields that a recipe may give."""
    cls, names = entry if isinstance(entry, tuple) else (entry, None)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if names is None:
        return cls, fields
    if unknown := sorted(set(names) - set(fields)):
        raise TypeError(f"{cls.__name__} has no field {', '.join(unknown)}")
    return cls, {name: fields[name] for name in fields if name in names}


def _required(field: dataclasses.Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default is not MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    """A settings object as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
