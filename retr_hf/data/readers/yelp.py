"""Yelp Open Dataset: `yelp_academic_dataset_review.json` and `yelp_academic_dataset_business.json`, JSON lines.

From https://business.yelp.com/data/resources/open-dataset/ after accepting its terms: academic use, no
redistribution. The files change with every release; the papers' counts come from the one of 2020.

    review.json    {"user_id": ..., "business_id": ..., "stars": 4.0, "date": "2019-03-01 12:30:05", ...}
    business.json  {"business_id": ..., "name": ..., "categories": "Pubs, Bars", ...}

The published domain is the reviews of 2019 (S3-Rec: from 2019-01-01 00:00:00 to 2019-12-31 00:00:00), then a 5-core:
``--since 2019-01-01 --until 2019-12-31``. NOTE: ours leaves out the end of that interval, the one second of midnight.

The dirt, and what becomes of it: dates have no time zone (local time of the business): read as UTC. Releases before
2018 give days only: read as midnight. ``categories`` may be null: left out of the text.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .item_text import text_as_unisrec
from .line_formats import EVENT, json_items, json_objects
from .raw import RawLog
from .spool import Spool

_DATE = "date"
_REVIEW = json_objects(
    {
        USER_ID: ("user_id", pl.String),
        ITEM_ID: ("business_id", pl.String),
        RATING: ("stars", pl.Float32),
        _DATE: ("date", pl.String),
    },
    [USER_ID, ITEM_ID, RATING, _DATE],
)


def read_yelp(
    inputs: Sequence[Path],
    spool: Spool,
    *,
    items: Path | None = None,
    text_fields: Sequence[str] = ("name", "categories"),
) -> RawLog:
    """Reads the reviews.

    Args:
        inputs: yelp_academic_dataset_review.json[.gz]
        spool: where the compact copy goes.
        items: yelp_academic_dataset_business.json[.gz]; without it a domain of ids only
        text_fields: fields of a business that make the text, cleaned and joined as UniSRec does

    Raises:
        DataError: see ``Spool.lines``.
    """
    events = spool.lines("events", inputs, _reviews, what="a review as a JSON object")
    texts = None
    if items:
        texts = spool.lines(
            "items", [items], json_items("business_id", text_fields), what="a business as a JSON object",
            then=text_as_unisrec(text_fields, spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=texts,
        reader="yelp",
        inputs=[*inputs, *([items] if items else [])],
        options={"text_fields": list(text_fields) if items else []},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
    )


def _reviews(lines: bytes) -> pl.DataFrame:
    reviews = _REVIEW(lines)
    whole = pl.when(pl.col(_DATE).str.len_bytes() == 10).then(pl.col(_DATE) + " 00:00:00").otherwise(_DATE)
    return reviews.with_columns(whole.str.to_datetime("%Y-%m-%d %H:%M:%S").dt.epoch("s").alias(TIMESTAMP)).select(
        *EVENT
    )
