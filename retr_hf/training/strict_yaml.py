"""YAML read strictly: the plain scalars of YAML 1.2, every duplicate key told, the line of every key kept.

YAML 1.1, which PyYAML reads by default, takes ``no`` for False, ``1e-3`` for text, ``010`` for eight and ``1:30`` for
ninety. A recipe says ``mixed_precision: no`` and ``learning_rate: 1e-3`` and means what it says, so the plain scalars
here are null, true/false, decimal integers and floats (with or without a point); everything else is text.
"""

import re
from typing import Any

import yaml

_DIGITS = "0123456789"
_PLAIN_SCALARS = [  # (tag, pattern, first characters), in the order they are tried
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+" + _DIGITS)),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", list("-+." + _DIGITS)),
    ("float", r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+", list("-+" + _DIGITS)),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
]
_DEEPEST = 8  # nothing in a recipe lies this deep; bounds the walk where a document contains itself


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader (it builds dicts, lists and scalars only) with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict = {}


class StrictDumper(yaml.SafeDumper):
    """The counterpart of :class:`StrictLoader`: quotes the text that the loader would take for something else."""

    yaml_implicit_resolvers: dict = {}

    def ignore_aliases(self, data: Any) -> bool:
        """A list used twice is written twice, not as ``&id001`` and ``*id001``."""
        return True


for _name, _pattern, _first in _PLAIN_SCALARS:
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)


def read(text: str) -> tuple[Any, dict[tuple[str, ...], int], list[str]]:
    """Reads one YAML document.

    Args:
        text: the document.

    Returns:
        the value; the line (1-based) of every key by its path, for example ``("training", "epochs") -> 12``; and one
        sentence for every key given twice (of the two, the later counts).

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[tuple[str, ...], int] = {}
        twice: list[str] = []
        _walk(node, (), lines, twice)
        return (None if node is None else loader.construct_document(node)), lines, twice
    finally:
        loader.dispose()


def _walk(node: yaml.Node | None, path: tuple[str, ...], lines: dict, twice: list[str]) -> None:
    """Notes the line of every key below ``node``, and the keys that one mapping gives twice."""
    if not isinstance(node, yaml.MappingNode) or len(path) > _DEEPEST:
        return
    for key, value in node.value:
        inner, line = (*path, str(key.value)), key.start_mark.line + 1
        if inner in lines:
            twice.append(f"{'.'.join(inner)}: given twice, in lines {lines[inner]} and {line}; keep one")
        lines[inner] = line
        _walk(value, inner, lines, twice)


def write(value: Any) -> str:
    """The YAML of a value, its keys in their order; :func:`read` gives the same value back."""
    return yaml.dump(value, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)


def inline(value: Any) -> str:
    """The YAML of a value on one line, as a message or a command line writes it: ``null``, ``[10, 50]``, ``'512'``."""
    style = {"default_flow_style": True, "sort_keys": False, "allow_unicode": True, "width": 9**9}
    return yaml.dump([value], Dumper=StrictDumper, **style).strip()[1:-1]
