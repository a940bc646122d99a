"""Sequences as text, one user a line: `user item item item ...`, as S3-Rec, CL4SRec and SASRec publish them.

From https://github.com/RUCAIBox/CIKM2020-S3Rec (data/Beauty.txt, ...; Zhou et al., CIKM 2020) and the repositories that
took its format over; SASRec's `user item`, one interaction a line (https://github.com/kang205/SASRec, data/ml-1m.txt),
reads the same way, for a user's lines follow each other in time. These repositories state no data licence; the data are
Amazon's, Yelp's and others', under the terms of those.

    Beauty.txt                   1 2 3 4 5                a user, then items from oldest to latest, separated by blanks
    Beauty_item2attributes.json  {"1": [12, 45], ...}     one object, attribute ids an item

The ids are the authors' own, so nothing joins them with texts: the text of an item is "" or, with attribute names
(``--attribute-names``, {"12": "Makeup"} or {"Makeup": 12}), the names. There are no times, only the order.

The dirt, and what becomes of it: lines with a user and no item are dropped and counted; repeated items are kept.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, USER_ID
from .item_text import text_as_unisrec
from .raw import RawLog
from .spool import Spool


def read_sequence_text(
    inputs: Sequence[Path], spool: Spool, *, attributes: Path | None = None, attribute_names: Path | None = None
) -> RawLog:
    """Reads one user a line, or one interaction a line.

    Args:
        inputs: NAME.txt
        spool: where the compact copy goes.
        attributes: NAME_item2attributes.json, item -> attribute ids; the items then have texts if the names are given
        attribute_names: JSON object, attribute id -> name or name -> attribute id

    Raises:
        DataError: see ``Spool.lines``; attribute files that are not these objects, or names without attributes.
    """
    if attribute_names and not attributes:
        raise DataError("attribute_names: expected the attributes of the items too; pass --attributes FILE")
    events = spool.lines("events", inputs, _user_lines, what="user item item ...", then=_one_row_an_item)
    return RawLog(
        events=events,
        items=_items(attributes, attribute_names, spool) if attributes else None,
        reader="sequence-text",
        inputs=[*inputs, *filter(None, [attributes, attribute_names])],
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by place in the line, lines of one user by place in the file; there are no times",
    )


def _user_lines(lines: bytes) -> pl.DataFrame:
    words = pl.Series(lines.decode().split("\n")[:-1]).str.extract_all(r"\S+")
    if (words.list.len() < 2).any():
        raise ValueError("expected a user and at least one item, separated by blanks")
    return pl.DataFrame({USER_ID: words.list.first(), ITEM_ID: words.list.slice(1)})


def _one_row_an_item(users: pl.DataFrame) -> pl.DataFrame:
    return users.explode(ITEM_ID)


def _items(attributes: Path, names: Path | None, spool: Spool) -> pl.LazyFrame:
    of_items = _object(attributes)
    known = {str(key): value for key, value in _object(names).items()} if names else {}
    if all(isinstance(value, int) for value in known.values()):  # name -> id
        known = {str(value): key for key, value in known.items()}
    try:
        words = [[str(known[str(one)]) for one in ids if str(one) in known] for ids in of_items.values()]
    except TypeError as error:
        raise DataError(f"{attributes}: expected a list of attribute ids for every item; {error}") from error
    frame = pl.DataFrame({ITEM_ID: list(of_items), "names": words}, schema_overrides={"names": pl.List(pl.String)})
    return text_as_unisrec(["names"], spool.dirt)(frame).lazy()


def _object(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        json.dumps(found, ensure_ascii=False).encode()  # lone surrogates are no text
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected a JSON object, but it cannot be read as one: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found
