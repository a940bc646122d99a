"""Raw domain -> prepared domain on disk: k-core, catalogue, leave-one-out, sampled negatives, statistics, card.

The folder appears whole or not at all: everything is written beside it and renamed at the end.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..model.item_catalog import ItemCatalog
from ..version import __version__
from .card import dataset_card
from .core import coded, codes_of, counted_k_core
from .domain import DOMAIN_FORMAT
from .domain_folder import check_may_write, fingerprints, is_up_to_date, replacing
from .negatives_of_splits import negatives_of_splits
from .readers.raw import KIND, SEEN, SPLIT, RawDomain
from .schema import (
    DOMAIN_FILE,
    INTERACTIONS_DIR,
    ITEM_ID,
    ITEM_IDS,
    NEGATIVES_DIR,
    PIVOTAL,
    PIVOTAL_DIR,
    SPLITS,
    TEXT,
    TIMESTAMPS,
    USER_ID,
)
from .splits import FRACTIONS, LEAVE_ONE_OUT, leaking_train_events, split_sequences


def write_domain(
    raw: RawDomain,
    output: str | Path,
    *,
    name: str | None = None,
    k_core: int = 5,
    seed: int = 0,
    num_negatives: int = 100,
    split: str = LEAVE_ONE_OUT,
    fractions: Sequence[float] = FRACTIONS,
    overwrite: bool = False,
    recipe: str | None = None,
) -> bool:
    """Prepares ``raw`` and writes the folder ``output``.

    Args:
        raw: what a reader made.
        output: the folder to make; its parents are made too.
        name: name of the domain; the name of the folder if None.
        k_core: users and items with fewer interactions are dropped, again and again until nothing changes (repeated
            interactions count). 0 = off. Not applied to a source that brings its own split (``raw`` column ``split``).
        seed: of the sampled negatives.
        num_negatives: sampled candidates a user; fewer only where the catalogue has no more.
        split, fractions: see ``split_sequences``. Not used for a source that brings its own split.
        overwrite: replace a prepared domain that is already there, with everything in its folder.
        recipe: see ``domain_folder.recipe_of``; kept in the provenance, for the next run.

    Returns:
        True if it was written, False if an identical domain (same inputs, same options) was there already.

    Raises:
        DataError: nothing survives the k-core, items are listed twice, or ``output`` holds something else.
    """
    output = Path(output)
    name = name or output.resolve().name
    own_split = SPLIT in raw.sequences.columns
    provenance = {
        "reader": raw.reader,
        "inputs": fingerprints(raw),
        "options": {
            **raw.options,
            "k_core": 0 if own_split else k_core,
            "seed": seed,
            "num_negatives": num_negatives,
        },
    }
    if split != LEAVE_ONE_OUT and not own_split:
        provenance["options"] |= {"split": split, "fractions": list(fractions)}
    if not overwrite and is_up_to_date(output, name, provenance):
        return False
    check_may_write(output, overwrite)
    _check_items(raw.items)

    dropped = dict(raw.dropped)
    sequences = raw.sequences.filter(pl.col(ITEM_IDS).list.len() > 0)
    if sequences.is_empty():
        raise DataError(f"{name}: expected interactions, but the source has none; check the input files")
    if not own_split and k_core > 0 and raw.k_core != k_core:
        sequences = _k_core_sequences(sequences, k_core, dropped)

    sequences, catalog, examples = _with_catalog(raw, sequences, dropped)
    splits = (
        {split: sequences.filter(pl.col(SPLIT) == split).drop(SPLIT) for split in SPLITS}
        if own_split
        else split_sequences(sequences, split, fractions)
    )
    touched = splits | ({SEEN: sequences.filter(pl.col(SPLIT) == SEEN)} if own_split else {})
    statistics = _statistics(splits, len(catalog))
    provenance |= {
        **({"recipe": recipe} if recipe else {}),
        "dropped": {key: count for key, count in dropped.items() if count},
        **({"examples": examples} if examples else {}),
        "retr_hf_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    about = {"format": DOMAIN_FORMAT, "name": name, "statistics": statistics, "provenance": provenance}

    with replacing(output) as folder:
        for split, rows in splits.items():
            _write_split(folder, split, rows)
        for split, tables in negatives_of_splits(touched, len(catalog), num_negatives, seed):
            _write_rows(folder / NEGATIVES_DIR / f"{split}.parquet", tables)
        catalog.save_pretrained(folder)
        has = {column: column in sequences.columns for column in (PIVOTAL, TIMESTAMPS)}
        card = dataset_card(name, statistics, provenance, has[PIVOTAL], has[TIMESTAMPS])
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / DOMAIN_FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return True


def _k_core_sequences(sequences: pl.DataFrame, k: int, dropped: dict[str, int]) -> pl.DataFrame:
    aligned = [column for column in (ITEM_IDS, TIMESTAMPS, PIVOTAL) if column in sequences.columns]
    whole = [column for column in sequences.columns if column not in aligned]
    after = counted_k_core(sequences.explode(aligned).rename({ITEM_IDS: ITEM_ID}), k, dropped)
    return after.rename({ITEM_ID: ITEM_IDS}).group_by(whole, maintain_order=True).agg(aligned)


def _with_catalog(
    raw: RawDomain, sequences: pl.DataFrame, dropped: dict[str, int]
) -> tuple[pl.DataFrame, ItemCatalog, dict[str, list[str]]]:
    """Ids in ``item_ids`` -> indices, int32, and their catalogue: the whole item table first where the reader says so;
    then the items that occur, in order of first appearance. And ids of log and item table without a partner."""
    lists = sequences[ITEM_IDS]
    flat = coded(lists.explode())
    occurring = flat.unique(maintain_order=True)
    names = occurring.cast(pl.String).alias(ITEM_ID)
    ids = pl.concat([raw.items[ITEM_ID], names]).unique(maintain_order=True) if raw.whole_catalogue else names
    items = ids.to_frame().join(raw.items, on=ITEM_ID, how="left", maintain_order="left")
    without_row = int(items[TEXT].is_null().sum())
    texts = items[TEXT].fill_null("")
    examples = {}
    if raw.items.height:  # without an item table a domain is of ids alone, and nothing is amiss
        dropped["items_without_a_row_in_the_item_table"] = without_row
        unused = raw.items.height - (ids.len() - without_row)
        if without_row:
            alone = items.filter(pl.col(TEXT).is_null())[ITEM_ID].head(3).to_list()
            examples["items_without_a_row_in_the_item_table"] = alone
            if raw.strangers:
                examples["rows_of_the_item_table_not_used"] = list(raw.strangers)
        dropped["rows_of_the_item_table_not_used"] = dropped.pop("rows_of_the_item_table_not_used", 0) + unused
        dropped["items_with_empty_text"] = int((texts == "").sum())
    catalog = ItemCatalog(items[ITEM_ID].to_arrow(), texts.to_arrow())

    codes = codes_of(occurring)
    index_of_code = np.zeros(int(codes.max()) + 1, np.int32)
    index_of_code[codes] = catalog.index_of(names.to_arrow())
    offsets = np.concatenate([[0], np.cumsum(lists.list.len().to_numpy(), dtype=np.int64)])
    indices = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(index_of_code[codes_of(flat)]))
    return sequences.with_columns(pl.from_arrow(indices).alias(ITEM_IDS)), catalog, examples


def _statistics(splits: dict[str, pl.DataFrame], num_items: int) -> dict[str, Any]:
    rows = pl.concat([rows.select(USER_ID, pl.col(ITEM_IDS).list.len().alias("n")) for rows in splits.values()])
    lengths = rows.group_by(USER_ID).agg(pl.col("n").max())["n"]  # a user's longest row is the whole sequence
    users, interactions = lengths.len(), int(lengths.sum())
    leaking = leaking_train_events(splits)
    return {
        "users": users,
        "items": num_items,
        "interactions": interactions,
        "mean_length": round(interactions / users, 2),
        "median_length": float(lengths.median()),
        "density": float(f"{interactions / (users * num_items):.3g}"),
        **{f"{split}_rows": frame.height for split, frame in splits.items()},
        **({} if leaking is None else {"leaking_train_events": leaking}),
    }


def _write_split(folder: Path, split: str, rows: pl.DataFrame) -> None:
    users = {USER_ID: rows[USER_ID].to_arrow().cast(pa.string())}
    columns = users | {ITEM_IDS: rows[ITEM_IDS].to_arrow().cast(pa.list_(pa.int32()))}
    if TIMESTAMPS in rows.columns:
        columns[TIMESTAMPS] = rows[TIMESTAMPS].to_arrow().cast(pa.list_(pa.int64()))
    _write_rows(folder / INTERACTIONS_DIR / f"{split}.parquet", [pa.table(columns)])
    if PIVOTAL in rows.columns:
        truth = users | {PIVOTAL: rows[PIVOTAL].to_arrow().cast(pa.list_(pa.bool_()))}
        if KIND in rows.columns:
            truth[KIND] = rows[KIND].to_arrow().cast(pa.string())
        _write_rows(folder / PIVOTAL_DIR / f"{split}.parquet", [pa.table(truth)])


def _write_rows(path: Path, tables: Iterable[pa.Table]) -> None:
    path.parent.mkdir(exist_ok=True)
    tables = iter(tables)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as file:
        for table in chain([first], tables):
            if table.num_rows:  # `datasets` cannot read an empty row group, but a file without any
                file.write_table(table)


def _check_items(items: pl.DataFrame) -> None:
    doubled = items.filter(pl.col(ITEM_ID).is_duplicated())[ITEM_ID].unique(maintain_order=True)
    if doubled.len():
        raise DataError(
            f"item table: expected one row an item, but {doubled.len():,} ids have several, such as "
            f"{doubled.head(3).to_list()}; keep one row each"
        )
