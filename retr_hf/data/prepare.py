"""Raw domain -> prepared domain on disk: k-core, catalogue, leave-one-out, sampled negatives, statistics, card.

The folder appears whole or not at all: everything is written beside it and renamed at the end.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timezone
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
from .domain import DOMAIN_FORMAT
from .domain_folder import check_may_write, fingerprints, is_up_to_date, replacing
from .negatives import sample_negatives
from .readers.raw import KIND, SPLIT, RawDomain
from .schema import (
    DOMAIN_FILE,
    INTERACTIONS_DIR,
    ITEM_ID,
    ITEM_IDS,
    NEGATIVES,
    NEGATIVES_DIR,
    PIVOTAL,
    PIVOTAL_DIR,
    SPLITS,
    TEST,
    TEXT,
    TIMESTAMPS,
    USER_ID,
    VALIDATION,
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
    if not own_split and k_core > 0:
        sequences = _k_core_sequences(sequences, k_core, dropped)

    catalog = _catalog(raw, sequences, dropped)
    sequences = _with_indices(sequences, catalog)
    splits = (
        {split: sequences.filter(pl.col(SPLIT) == split).drop(SPLIT) for split in SPLITS}
        if own_split
        else split_sequences(sequences, split, fractions)
    )
    statistics = _statistics(splits, len(catalog))
    provenance |= {
        "dropped": {key: count for key, count in dropped.items() if count},
        "retr_hf_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    about = {"format": DOMAIN_FORMAT, "name": name, "statistics": statistics, "provenance": provenance}

    with replacing(output) as folder:
        for split, rows in splits.items():
            _write_split(folder, split, rows)
        for split, values in _negatives(splits, len(catalog), num_negatives, seed).items():
            _write_rows(folder / NEGATIVES_DIR / f"{split}.parquet", values)
        catalog.save_pretrained(folder)
        has = {column: column in sequences.columns for column in (PIVOTAL, TIMESTAMPS)}
        card = dataset_card(name, statistics, provenance, has[PIVOTAL], has[TIMESTAMPS])
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / DOMAIN_FILE).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return True


def k_core_filter(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """Keeps the rows whose user and whose item both have at least ``k`` rows left, to the fixed point.

    Args:
        interactions: one row an interaction, with ``user_id`` and ``item_id``; order is kept.
        k: smallest count that stays.
    """
    enough = (pl.len().over(USER_ID) >= k) & (pl.len().over(ITEM_ID) >= k)
    while True:
        kept = interactions.filter(enough)
        if kept.height == interactions.height:
            return kept
        interactions = kept


def _k_core_sequences(sequences: pl.DataFrame, k: int, dropped: dict[str, int]) -> pl.DataFrame:
    aligned = [column for column in (ITEM_IDS, TIMESTAMPS, PIVOTAL) if column in sequences.columns]
    whole = [column for column in sequences.columns if column not in aligned]
    before = sequences.explode(aligned).rename({ITEM_IDS: ITEM_ID})
    after = k_core_filter(before, k)
    if after.is_empty():
        raise DataError(
            f"no interaction survives the {k}-core: expected users and items with at least {k} interactions each, got "
            f"{before.height:,} interactions of {before[USER_ID].n_unique():,} users with "
            f"{before[ITEM_ID].n_unique():,} items; pass a smaller --k-core (0 keeps everything)"
        )
    dropped[f"interactions_outside_the_{k}_core"] = before.height - after.height
    dropped[f"users_outside_the_{k}_core"] = before[USER_ID].n_unique() - after[USER_ID].n_unique()
    dropped[f"items_outside_the_{k}_core"] = before[ITEM_ID].n_unique() - after[ITEM_ID].n_unique()
    return after.rename({ITEM_ID: ITEM_IDS}).group_by(whole, maintain_order=True).agg(aligned)


def _catalog(raw: RawDomain, sequences: pl.DataFrame, dropped: dict[str, int]) -> ItemCatalog:
    """The whole item table first where the reader says so; then the items that occur, in order of first appearance."""
    occurring = sequences.select(pl.col(ITEM_IDS).explode()).to_series().unique(maintain_order=True).alias(ITEM_ID)
    ids = pl.concat([raw.items[ITEM_ID], occurring]).unique(maintain_order=True) if raw.whole_catalogue else occurring
    items = ids.to_frame().join(raw.items, on=ITEM_ID, how="left", maintain_order="left")
    without_row = int(items[TEXT].is_null().sum())
    texts = items[TEXT].fill_null("")
    dropped["items_without_a_row_in_the_item_table"] = without_row
    dropped["rows_of_the_item_table_not_used"] = raw.items.height - (ids.len() - without_row)
    dropped["items_with_empty_text"] = int((texts == "").sum())
    return ItemCatalog(items[ITEM_ID].to_arrow(), texts.to_arrow())


def _with_indices(sequences: pl.DataFrame, catalog: ItemCatalog) -> pl.DataFrame:
    """Raw ids in ``item_ids`` -> catalogue indices, int32."""
    column = sequences[ITEM_IDS]
    indices = catalog.index_of(column.explode().to_arrow()).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(column.list.len().to_numpy())]).astype(np.int64)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(indices))
    return sequences.with_columns(pl.from_arrow(lists).alias(ITEM_IDS))


def _negatives(
    splits: dict[str, pl.DataFrame], num_items: int, count: int, seed: int
) -> dict[str, dict[str, list | pa.Array]]:
    """Candidates of validation and test, untouched by the user in *any* split."""
    touched = pl.concat([rows.select(USER_ID, ITEM_IDS) for rows in splits.values()]).explode(ITEM_IDS).unique()
    streams = np.random.default_rng(seed).spawn(2)
    result = {}
    for split, rng in zip((VALIDATION, TEST), streams, strict=True):
        users = splits[split].select(USER_ID).with_row_index("row")
        pairs = touched.join(users, on=USER_ID)
        values, offsets = sample_negatives(
            pairs["row"].to_numpy(), pairs[ITEM_IDS].to_numpy(), users.height, num_items, count, rng
        )
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, pa.int32()))
        result[split] = {USER_ID: users[USER_ID].to_list(), NEGATIVES: lists}
    return result


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
    users = rows[USER_ID].to_list()
    columns = {USER_ID: users, ITEM_IDS: rows[ITEM_IDS].to_arrow().cast(pa.list_(pa.int32()))}
    if TIMESTAMPS in rows.columns:
        columns[TIMESTAMPS] = rows[TIMESTAMPS].to_arrow().cast(pa.list_(pa.int64()))
    _write_rows(folder / INTERACTIONS_DIR / f"{split}.parquet", columns)
    if PIVOTAL in rows.columns:
        truth = {USER_ID: users, PIVOTAL: rows[PIVOTAL].to_arrow().cast(pa.list_(pa.bool_()))}
        if KIND in rows.columns:
            truth[KIND] = pa.array(rows[KIND].to_list(), pa.string())
        _write_rows(folder / PIVOTAL_DIR / f"{split}.parquet", truth)


def _write_rows(path: Path, columns: dict[str, list | pa.Array]) -> None:
    path.parent.mkdir(exist_ok=True)
    table = pa.table(columns | {USER_ID: pa.array(columns[USER_ID], pa.string())})
    with pq.ParquetWriter(path, table.schema) as file:
        if table.num_rows:  # `datasets` cannot read an empty row group, but a file without any
            file.write_table(table)


def _check_items(items: pl.DataFrame) -> None:
    doubled = items.filter(pl.col(ITEM_ID).is_duplicated())[ITEM_ID].unique(maintain_order=True)
    if doubled.len():
        raise DataError(
            f"item table: expected one row an item, but {doubled.len():,} ids have several, such as "
            f"{doubled.head(3).to_list()}; keep one row each"
        )
