"""Amazon Reviews 2018: ratings-only csv, or the reviews as JSON lines, and `meta_*.json.gz`.

From https://nijianmo.github.io/amazon/ (Ni, Li, McAuley, EMNLP 2019), files under
https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/: categoryFilesSmall/CATEGORY.csv (ratings only),
categoryFiles/CATEGORY.json.gz (reviews), metaFiles2/meta_CATEGORY.json.gz. For research; the page states no licence
and asks to cite the paper; the texts belong to Amazon and the reviewers.

    CATEGORY.csv         item,user,rating,timestamp, without a header      0449819906,A3HHXRELK8BHQG,5.0,1354752000
    CATEGORY.json.gz     {"reviewerID": ..., "asin": ..., "overall": 5.0, "unixReviewTime": 1354752000, ...}
    meta_CATEGORY.json.gz {"asin": ..., "title": ..., "category": [...], "brand": ..., ...}

The dirt, and what becomes of it:

- times are days: several reviews a day by one user are usual, and keep file order. NOTE: UniSRec reads the log into a
  set, so that its order within a day is arbitrary, and one that differs between two runs;
- the same line twice (user, item, rating, time): kept; UniSRec's set drops them, and so does ``--duplicates
  identical``;
- reviews of items without metadata: kept, with an empty text; UniSRec drops them, and so does ``--with-metadata``;
- an item listed twice in the metadata: the first row holds, as in UniSRec, and the others are counted;
- titles that hold a page's HTML or script: UniSRec's cleaning leaves out fields of 2,000 characters and more; they
  are counted.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .item_text import text_as_unisrec
from .line_formats import EVENT, delimited, json_items, json_objects
from .raw import RawLog
from .spool import Spool

LISTS = ("category", "description", "feature", "also_buy", "also_view")
_CSV = delimited({name: EVENT[name] for name in (ITEM_ID, USER_ID, RATING, TIMESTAMP)}, list(EVENT))
_REVIEWS = json_objects(
    {
        USER_ID: ("reviewerID", pl.String),
        ITEM_ID: ("asin", pl.String),
        RATING: ("overall", pl.Float32),
        TIMESTAMP: ("unixReviewTime", pl.Int64),
    },
    list(EVENT),
)


def read_amazon2018(
    inputs: Sequence[Path],
    spool: Spool,
    *,
    items: Path | None = None,
    text_fields: Sequence[str] = ("title", "category", "brand"),
) -> RawLog:
    """Reads one category, or several as one domain.

    Args:
        inputs: CATEGORY.csv (ratings only) or CATEGORY.json[.gz] (reviews); several files are one log
        spool: where the compact copy goes.
        items: meta_CATEGORY.json.gz; without it a domain of ids only
        text_fields: fields of the metadata that make the text, cleaned and joined as UniSRec does

    Raises:
        DataError: see ``Spool.lines``.
    """
    events = spool.lines("events", inputs, _review_parser, what="item,user,rating,timestamp or a review", per_file=True)
    texts = None
    if items:
        texts = spool.lines(
            "items", [items], json_items("asin", text_fields, LISTS), what="a JSON object with an asin",
            then=text_as_unisrec(text_fields, spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=texts,
        reader="amazon2018",
        inputs=[*inputs, *([items] if items else [])],
        options={"text_fields": list(text_fields) if items else []},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
    )


def _review_parser(path: Path):
    return _REVIEWS if ".json" in path.name else _CSV
