r"""Steam: `steam_reviews.json.gz` and `steam_games.json.gz`, a Python literal a line (whatever the name says).

From https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data (Kang and McAuley, ICDM 2018; Pathak et al., SIGIR
2017; Wan and McAuley, RecSys 2018). For research; the page states no licence and asks to cite the papers.

    {u'username': u'js41637', u'hours': 0.8, u'product_id': u'35140', u'date': u'2015-01-01', u'text': u'...', ...}
    {u'id': u'761140', u'title': u'...', u'genres': [u'Action', ...], u'tags': [...], u'developer': u'...', ...}

How the 7.8 million reviews are read without evaluating them: a flat literal is a regular language, so one anchored
expression (no backtracking: Rust's regex) decides whether the line is one, and others cut off what stands before the
value of a key. The words of a review cannot pass for a key, for they are inside of a string. Some 20 times as fast as
``ast.literal_eval`` on this file's lines, which reads only the few strings with escapes, and the nested lines of the
games.

The dirt, and what becomes of it: a user is a ``username`` (as in the papers; few lines have a ``user_id``), and two
people may share one: kept. Dates are days: a day's reviews keep file order. A game may be listed twice: the first row
holds. Games without ``id``: dropped and counted.
"""

import ast
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..schema import ITEM_ID, USER_ID
from .item_text import text_as_unisrec
from .line_formats import seconds
from .raw import RawLog
from .spool import Spool

_STRING = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PAIR = rf"{_STRING}: (?:{_STRING}|-?[0-9][0-9.eE+-]*|True|False|None)"
_LITERAL = rf"^\{{{_PAIR}(?:, {_PAIR})*\}}$"


def read_steam(
    inputs: Sequence[Path],
    spool: Spool,
    *,
    items: Path | None = None,
    text_fields: Sequence[str] = ("title", "genres", "tags", "developer"),
) -> RawLog:
    """Reads the reviews.

    Args:
        inputs: steam_reviews.json[.gz]
        spool: where the compact copy goes.
        items: steam_games.json[.gz]; without it a domain of ids only
        text_fields: fields of a game that make the text, cleaned and joined as UniSRec does

    Raises:
        DataError: see ``Spool.lines``.
    """
    events = spool.lines("events", inputs, _reviews, what="a review as a Python literal")
    texts = None
    if items:
        texts = spool.lines(
            "items", [items], lambda lines: _games(lines, text_fields), what="a game as a Python literal",
            then=text_as_unisrec(text_fields, spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=texts,
        reader="steam",
        inputs=[*inputs, *([items] if items else [])],
        options={"text_fields": list(text_fields) if items else []},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by day; reviews of one day in file order",
    )


def _reviews(lines: bytes) -> pl.DataFrame:
    text = pl.Series("line", lines.decode().split("\n")[:-1])
    if not text.str.contains(_LITERAL).all():
        raise ValueError("expected {u'key': value, ...} of strings and numbers")
    keys = {USER_ID: "username", ITEM_ID: "product_id", "date": "date"}
    frame = pl.DataFrame({ours: _string_of(text, theirs) for ours, theirs in keys.items()})
    return frame.select(USER_ID, ITEM_ID, seconds("date", "%Y-%m-%d"))


def _string_of(lines: pl.Series, key: str) -> pl.Series:
    """The string that is the value of ``key`` in every line, decoded."""
    literals = lines.str.replace(rf"^\{{(?:{_PAIR}, )*?u?['\"]{key}['\"]: ", "").str.extract(rf"^({_STRING})")
    plain = literals.str.strip_prefix("u").str.slice(1).str.head(-1)
    escaped = literals.filter(literals.str.contains("\\", literal=True)).unique()
    if escaped.len():
        decoded = [_literal(one) for one in escaped]
        plain = pl.select(pl.coalesce(literals.replace_strict(escaped, decoded, default=None), plain)).to_series()
    if plain.null_count() or (plain == "").any():
        raise ValueError(f"expected a string as {key}")
    return plain


def _games(lines: bytes, fields: Sequence[str]) -> pl.DataFrame:
    rows = [_literal(line) for line in lines.decode().split("\n")[:-1]]
    if not all(isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"] for row in rows):
        raise ValueError("expected {u'id': u'...', ...}")
    return pl.DataFrame(
        {ITEM_ID: [row["id"] for row in rows]} | {field: [_words(row.get(field)) for row in rows] for field in fields},
        schema={ITEM_ID: pl.String} | dict.fromkeys(fields, pl.String),
    )


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _literal(text: str) -> object:
    try:
        value = ast.literal_eval(text)
        repr(value).encode()  # lone surrogates are no text
        return value
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"expected a Python literal ({error})") from error
