"""Taobao UserBehavior.csv: 100 million clicks, carts, favourites and purchases of nine days.

From https://tianchi.aliyun.com/dataset/649 after signing in and accepting its terms (research; no redistribution).

    UserBehavior.csv   user,item,category,behaviour,time without a header; behaviour: pv, buy, cart or fav

The dirt, and what becomes of it: some times are far outside of the nine days that the publisher names (2017-11-25 to
2017-12-03 in Beijing), even negative: dropped and counted, unless ``--any-time``. Rows that repeat another are
kept; ``--duplicates identical`` drops them. There are no item texts: the category is a number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from ..schema import ITEM_ID, TIMESTAMP, USER_ID
from .line_formats import delimited
from .raw import RawLog
from .spool import Spool

FIRST, END = 1511539200, 1512316800  # 2017-11-25 and 2017-12-04, both 00:00 in Beijing (UTC+8)
_COLUMNS = {
    USER_ID: pl.String, ITEM_ID: pl.String, "category": pl.String, "behaviour": pl.String, TIMESTAMP: pl.Int64,
}  # fmt: skip
_LINE = delimited(_COLUMNS, [USER_ID, ITEM_ID, "behaviour", TIMESTAMP], quoted=False)
Behaviour = Literal["pv", "buy", "cart", "fav"]


def read_taobao(
    inputs: Sequence[Path], spool: Spool, *, behaviour: Sequence[Behaviour] = ("pv",), any_time: bool = False
) -> RawLog:
    """Reads the log.

    Args:
        inputs: UserBehavior.csv
        spool: where the compact copy goes.
        behaviour: which rows are interactions
        any_time: keep times outside of the nine days

    Raises:
        DataError: see ``Spool.lines``.
    """

    def wanted(frame: pl.DataFrame) -> pl.DataFrame:
        kept = frame.filter(pl.col("behaviour").is_in(list(behaviour)))
        spool.dirt.add("interactions_of_other_behaviours", frame.height - kept.height)
        in_time = kept if any_time else kept.filter(pl.col(TIMESTAMP).is_between(FIRST, END, closed="left"))
        spool.dirt.add("interactions_outside_of_the_nine_days", kept.height - in_time.height)
        return in_time.select(USER_ID, ITEM_ID, TIMESTAMP)

    return RawLog(
        events=spool.lines("events", inputs, _line, what="user,item,category,behaviour,time", then=wanted),
        items=None,
        reader="taobao",
        inputs=inputs,
        options={"behaviour": list(behaviour), "any_time": any_time},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
    )


def _line(lines: bytes) -> pl.DataFrame:
    frame = _LINE(lines)
    if not frame["behaviour"].is_in(["pv", "buy", "cart", "fav"]).all():
        raise ValueError("expected a behaviour pv, buy, cart or fav")
    return frame
