"""Tmall, the log of the IJCAI-15 contest on repeat buyers: `user_log_format1.csv`, 55 million rows of half a year.

From https://tianchi.aliyun.com/dataset/42 after signing in and accepting its terms (research; no redistribution).

    user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type    328862,323294,833,2882,2661,829,0

time_stamp is month and day without a year (829 is 29 August; the contest is on 11 November 2014); action_type is 0 a
click, 1 into the cart, 2 a purchase, 3 a favourite.

The dirt, and what becomes of it: times are days, so that all of a user's day is equal: it keeps file order. brand_id
is missing now and then: it is not read. Rows repeat (a user clicks again): kept; see ``--duplicates``. The year is
taken to be 2014. There are no item texts. NOTE: the papers do not say which actions their Tmall counts; purchases is
our guess, from their mean length of six.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, TIMESTAMP, USER_ID
from .line_formats import delimited
from .raw import RawLog
from .spool import Spool

ACTIONS = {"click": 0, "cart": 1, "purchase": 2, "favourite": 3}
_HEADER = b"user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type"
_COLUMNS = {
    USER_ID: pl.String, ITEM_ID: pl.String, "cat_id": pl.String, "seller_id": pl.String, "brand_id": pl.String,
    "time_stamp": pl.Int64, "action_type": pl.Int64,
}  # fmt: skip
_LINE = delimited(_COLUMNS, [USER_ID, ITEM_ID, "time_stamp", "action_type"], quoted=False)
Action = Literal["click", "cart", "purchase", "favourite"]


def read_tmall(inputs: Sequence[Path], spool: Spool, *, action: Sequence[Action] = ("purchase",)) -> RawLog:
    """Reads the log.

    Args:
        inputs: user_log_format1.csv
        spool: where the compact copy goes.
        action: which rows are interactions

    Raises:
        DataError: another header; see ``Spool.lines``.
    """
    codes = [ACTIONS[name] for name in action]

    def wanted(frame: pl.DataFrame) -> pl.DataFrame:
        kept = frame.filter(pl.col("action_type").is_in(codes))
        spool.dirt.add("interactions_of_other_actions", frame.height - kept.height)
        return kept.select(USER_ID, ITEM_ID, TIMESTAMP)

    return RawLog(
        events=spool.lines("events", inputs, _line, what=_HEADER.decode(), first_line=_is_header, then=wanted),
        items=None,
        reader="tmall",
        inputs=inputs,
        options={"action": list(action)},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by day; interactions of one day in file order",
    )


def _is_header(path: Path, line: bytes) -> bool:
    if line != _HEADER:
        raise DataError(
            f"{path}: expected the header {_HEADER.decode()}, got {line[:100]!r}; pass user_log_format1.csv"
        )
    return True


def _line(lines: bytes) -> pl.DataFrame:
    frame = _LINE(lines)
    if not frame["action_type"].is_between(0, 3).all():
        raise ValueError("expected an action_type from 0 to 3")
    if not frame["time_stamp"].is_between(101, 1231).all():
        raise ValueError("expected a time_stamp of month and day, such as 1111")
    day = pl.date(2014, pl.col("time_stamp") // 100, pl.col("time_stamp") % 100)
    return frame.with_columns(day.cast(pl.Datetime("ms")).dt.epoch("s").alias(TIMESTAMP))
