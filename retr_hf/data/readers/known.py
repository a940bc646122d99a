"""The readers of logs by name, and their command lines: what a reader takes is said once, in its signature.

A reader is a function of the input files and a spool; every other argument is an option of its subcommand, with the
help that stands in its docstring under ``Args:``. The module's docstring (files, terms, dirt) is the rest of the help.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .amazon2018 import read_amazon2018
from .amazon2023 import read_amazon2023
from .million_songs import read_million_songs
from .movielens import read_movielens
from .netflix import read_netflix
from .online_retail import read_online_retail
from .raw import RawLog
from .recbole import read_recbole
from .sequence_text import read_sequence_text
from .spool import Spool
from .steam import read_steam
from .taobao import read_taobao
from .tmall import read_tmall
from .yelp import read_yelp

READERS: dict[str, Callable[..., RawLog]] = {
    "amazon2018": read_amazon2018,
    "amazon2023": read_amazon2023,
    "movielens": read_movielens,
    "steam": read_steam,
    "yelp": read_yelp,
    "tmall": read_tmall,
    "taobao": read_taobao,
    "netflix": read_netflix,
    "million-songs": read_million_songs,
    "online-retail": read_online_retail,
    "sequence-text": read_sequence_text,
    "recbole": read_recbole,
}
_NOT_OPTIONS = ("inputs", "spool", "return")


def title(name: str) -> str:
    """The first line of the reader's module."""
    return _module(name).partition("\n")[0]


def about(name: str) -> str:
    """The docstring of the reader's module: the files, where they come from, under which terms, their dirt."""
    return _module(name)


def inputs_help(name: str) -> str:
    """What the reader takes as ``--input``."""
    return _helps(READERS[name])["inputs"]


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds the reader's own options (all but the inputs)."""
    function = READERS[name]
    helps, parameters = _helps(function), inspect.signature(function).parameters
    for option, hint in get_type_hints(function).items():
        if option in _NOT_OPTIONS:
            continue
        flag, default, told = "--" + option.replace("_", "-"), parameters[option].default, helps[option]
        if hint is bool:
            parser.add_argument(flag, action="store_true", help=told)
            continue
        many = get_origin(hint) is not None and get_origin(hint) is Sequence
        kind = get_args(hint)[0] if many else next(one for one in (get_args(hint) or (hint,)) if one is not NoneType)
        choices = get_args(kind) if get_origin(kind) is Literal else None
        shown = " ".join(default) if many else default
        parser.add_argument(
            flag,
            **({"nargs": "+"} if many else {}),
            **({"choices": choices} if choices else {"metavar": "FILE" if kind is Path else "NAME", "type": kind}),
            default=default,
            help=told if default is None else f"{told} (default: {shown})",
        )


def read_log(name: str, inputs: Sequence[Path], spool: Spool, arguments: argparse.Namespace) -> RawLog:
    """Runs the reader with the options that ``add_options`` put into ``arguments``."""
    options = [option for option in get_type_hints(READERS[name]) if option not in _NOT_OPTIONS]
    return READERS[name](inputs, spool, **{option: _value(arguments, option) for option in options})


def _value(arguments: argparse.Namespace, option: str) -> Any:
    value = getattr(arguments, option)
    return tuple(value) if isinstance(value, list) else value


def _module(name: str) -> str:
    return sys.modules[READERS[name].__module__].__doc__.strip()


def _helps(function: Callable) -> dict[str, str]:
    """argument -> its words under ``Args:``."""
    block = re.search(r"Args:\n(.*?)(?:\n\s*\n|$)", inspect.getdoc(function), re.DOTALL).group(1)
    entries = re.split(r"\n?^    (\w+): ", block, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}
