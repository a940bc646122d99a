"""Amazon Reviews 2023: reviews and metadata as JSON lines or parquet, ratings-only csv with a header.

From https://amazon-reviews-2023.github.io (Hou et al., 2024; also the Hugging Face data set
McAuley-Lab/Amazon-Reviews-2023), files under https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/:
raw/review_categories/CATEGORY.jsonl.gz, raw/meta_categories/meta_CATEGORY.jsonl.gz, and
benchmark/0core/rating_only/CATEGORY.csv.gz. For research; cite the paper; the texts belong to Amazon and the
reviewers.

    CATEGORY.jsonl       {"user_id": ..., "parent_asin": ..., "rating": 5.0, "timestamp": 1588687728923, ...}
    CATEGORY.csv         user_id,parent_asin,rating,timestamp (a header)
    meta_CATEGORY.jsonl  {"parent_asin": ..., "title": ..., "categories": [...], "store": ..., ...}

The dirt, and what becomes of it:

- colours and sizes of one product have their own ``asin``; the metadata has one row a ``parent_asin``, which is the
  item;
- times are milliseconds; stored as seconds, so that events of one second keep file order;
- the same review twice (of the same parent, at the same time): kept; ``--duplicates identical`` drops them;
- ``store``, ``title`` and ``categories`` may be null or empty: left out of the text.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .item_text import text_as_unisrec
from .line_formats import EVENT, delimited, json_items, json_objects
from .raw import RawLog
from .spool import Spool
from .table_batches import batches

LISTS = ("categories", "description", "features")
_HEADER = b"user_id,parent_asin,rating,timestamp"
_THEIRS = {USER_ID: "user_id", ITEM_ID: "parent_asin", RATING: "rating", TIMESTAMP: "timestamp"}
_IN_SECONDS = pl.col(TIMESTAMP) // 1000


def read_amazon2023(
    inputs: Sequence[Path],
    spool: Spool,
    *,
    items: Path | None = None,
    text_fields: Sequence[str] = ("title", "categories", "store"),
) -> RawLog:
    """Reads one category, or several as one domain.

    Args:
        inputs: CATEGORY.jsonl[.gz], CATEGORY.csv[.gz] (ratings only) or parquet; several files are one log
        spool: where the compact copy goes.
        items: meta_CATEGORY.jsonl[.gz] or parquet; without it a domain of ids only
        text_fields: fields of the metadata that make the text, cleaned and joined as UniSRec does

    Raises:
        DataError: see ``Spool.lines``; a parquet file without these columns.
    """
    if all(path.suffix == ".parquet" for path in inputs):
        frames = [_scan(path, list(_THEIRS.values())) for path in inputs]
        events = pl.concat(
            frame.select(pl.col(theirs).cast(EVENT[ours]).alias(ours) for ours, theirs in _THEIRS.items())
            for frame in frames
        ).with_columns(_IN_SECONDS)
        events = _without_nulls(events, spool, ", ".join(path.name for path in inputs))
    else:
        events = spool.lines(
            "events", inputs, _parser, what="user_id,parent_asin,rating,timestamp or a review", per_file=True,
            first_line=_is_header, then=lambda frame: frame.with_columns(_IN_SECONDS),
        )  # fmt: skip
    texts = None
    if items and items.suffix == ".parquet":
        texts = _metadata(items, text_fields, spool)
    elif items:
        texts = spool.lines(
            "items", [items], json_items("parent_asin", text_fields, LISTS), what="a JSON object with a parent_asin",
            then=text_as_unisrec(text_fields, spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=texts,
        reader="amazon2023",
        inputs=[*inputs, *([items] if items else [])],
        options={"text_fields": list(text_fields) if items else []},
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
    )


def _metadata(path: Path, text_fields: Sequence[str], spool: Spool) -> pl.LazyFrame:
    wanted = ["parent_asin", *text_fields]
    there = _scan(path, wanted).collect_schema()
    texts, target = text_as_unisrec(text_fields, spool.dirt), spool.folder / "items.parquet"
    frames = (
        texts(
            batch.filter(pl.col("parent_asin").is_not_null()).with_columns(
                pl.col("parent_asin").cast(pl.String).alias(ITEM_ID)
            )
        )
        for batch in batches(path, {name: there[name] for name in wanted}, spool)
    )
    if not spool.write(target, frames):
        raise DataError(f"{path}: expected items, but no row has a parent_asin")
    return pl.scan_parquet(target)


def _parser(path: Path):
    if ".json" in path.name:
        return json_objects({ours: (theirs, EVENT[ours]) for ours, theirs in _THEIRS.items()}, list(EVENT))
    return delimited({ours: EVENT[ours] for ours in _THEIRS}, list(EVENT))


def _is_header(path: Path, line: bytes) -> bool:
    if ".json" not in path.name and line != _HEADER:
        raise DataError(f"{path}: expected the header {_HEADER.decode()}, got {line[:100]!r}; is this a ratings file?")
    return ".json" not in path.name


def _scan(path: Path, wanted: list[str]) -> pl.LazyFrame:
    try:
        there = pl.scan_parquet(path, hive_partitioning=False)
        names = there.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: expected parquet, but it cannot be read as that: {error}") from error
    if missing := [name for name in wanted if name not in names]:
        raise DataError(f"{path}: expected columns {', '.join(wanted)}; {', '.join(missing)} missing, it has {names}")
    return there


def _without_nulls(events: pl.LazyFrame, spool: Spool, of: str) -> pl.LazyFrame:
    full = pl.all_horizontal(pl.all().is_not_null())
    try:
        rows, kept = events.select(pl.len(), full.sum()).collect(engine="streaming").row(0)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{of}: expected reviews, but the columns do not hold them: {error}") from error
    if not kept:
        raise DataError(f"{of}: expected reviews, but no row has a user, an item, a rating and a time")
    if rows > kept and spool.dirt.strict:
        raise DataError(f"{of}: {rows - kept:,} rows lack a user, an item, a rating or a time; leave out --strict")
    spool.dirt.add("rows_without_user_item_rating_or_time", rows - kept)
    return events.filter(full)
