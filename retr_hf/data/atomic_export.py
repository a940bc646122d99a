"""A prepared domain -> the atomic files of UniSRec (`X.train.inter`, ...) or of RecBole (`X.inter`, `X.item`).

So that their code runs on exactly our domain. The folder appears whole or not at all. Both name items and users by our
raw ids (UniSRec's .inter files by index, with `X.item2index` and `X.user2index`): these may hold no tab or line end.
"""

from pathlib import Path

import numpy as np
import polars as pl

from ..errors import DataError
from .domain import PreparedDomain
from .domain_folder import replacing
from .schema import ITEM_ID, ITEM_IDS, SPLITS, TEST, TEXT, TIMESTAMPS, TRAIN, USER_ID, VALIDATION

UNISREC, RECBOLE = "unisrec", "recbole"
STYLES = {UNISREC: "our split, all prefixes in train", RECBOLE: "one log, which RecBole splits itself"}
_SUFFIX = {TRAIN: "train.inter", VALIDATION: "valid.inter", TEST: "test.inter"}
_HISTORY = "item_id_list"
_USERS = 20_000  # whose prefixes are in memory at once


def write_atomic(
    domain: PreparedDomain, folder: str | Path, dataset: str, style: str = UNISREC, longest_history: int = 50
) -> None:
    """Writes the files of ``dataset`` X.

    ``unisrec``: the split as it is; training rows are all prefixes of a user's sequence, longest first, as UniSRec's
    own script writes them. ``read_atomic`` gives back the same sequences, but for training rows of one item (they have
    no target, and so no row). ``recbole``: every user's longest sequence as a log; where the domain has no times, the
    place in the sequence stands for it (NOTE: not a time; good for RecBole's ``order: TO`` only).

    Args:
        domain: what to write.
        folder: made; must be new or empty.
        dataset: X, the name that the files begin with.
        style: a key of STYLES.
        longest_history: UniSRec cuts histories at their last 50; RecBole's log is whole.

    Raises:
        DataError: another style, a folder that is not empty, ids with tabs or line ends, users with several test rows.
    """
    folder = Path(folder)
    if style not in STYLES:
        raise DataError(f"style: expected one of {', '.join(STYLES)}; got {style!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected a new or empty folder; choose another")
    catalog = domain.catalog(embeddings=False)
    items = pl.DataFrame({ITEM_ID: list(catalog.item_ids), TEXT: list(catalog.texts)})
    rows = {split: _rows(domain, split) for split in SPLITS}
    for what, ids in (("item", items[ITEM_ID]), *(("user", frame[USER_ID]) for frame in rows.values())):
        _check(domain.name, what, ids)
    text = pl.col(TEXT).str.replace_all(r"[\t\r\n]+", " ")
    with replacing(folder) as partial:
        write = _write_unisrec if style == UNISREC else _write_recbole
        write(partial / dataset, rows, items.with_columns(text), longest_history)


def _rows(domain: PreparedDomain, split: str) -> pl.DataFrame:
    """user_id, item_ids: List(Int64), from 0[, timestamps]."""
    sequences = domain.split(split)
    flat = {ITEM_IDS: sequences.item_ids.astype("int64") - 1}
    if sequences.timestamps is not None:
        flat[TIMESTAMPS] = sequences.timestamps
    users = pl.Series(USER_ID, domain.user_ids(split), pl.String)
    row = np.repeat(np.arange(len(users)), sequences.lengths)
    lists = pl.DataFrame(flat | {"row": row}).group_by("row", maintain_order=True).agg(pl.exclude("row"))
    return pl.DataFrame({USER_ID: users}).with_columns(lists.drop("row"))


def _check(name: str, what: str, ids: pl.Series) -> None:
    if what == "user" and ids.is_duplicated().any():
        raise DataError(f"{name}: expected one row a user in each split, got several; a ratio split cannot be written")
    bad = ids.filter(ids.str.contains(r"[\t\r\n]") | (ids == ""))
    if bad.len():
        raise DataError(f"{name}: expected {what} ids without tabs and line ends, got {bad.head(3).to_list()}")


def _write_unisrec(path: Path, rows: dict[str, pl.DataFrame], items: pl.DataFrame, longest: int) -> None:
    users = pl.concat(frame[USER_ID] for frame in rows.values()).unique(maintain_order=True)
    index = pl.DataFrame({USER_ID: users, "index": pl.int_range(users.len(), eager=True)})
    for split, frame in rows.items():
        frame = frame.join(index, on=USER_ID, how="left", maintain_order="left")
        with path.with_name(f"{path.name}.{_SUFFIX[split]}").open("wb") as file:
            file.write(f"user_id:token\t{_HISTORY}:token_seq\titem_id:token\n".encode())
            for part in frame.iter_slices(_USERS):
                last = pl.col(ITEM_IDS).list.len().cast(pl.Int64) - 1
                target = pl.int_ranges(last, 0, -1) if split == TRAIN else pl.concat_list(last)
                part = part.with_columns(target.alias("target")).explode("target")
                part = part.filter(pl.col("target") > 0)
                history = pl.col(ITEM_IDS).list.head("target").list.tail(longest)
                part.select(
                    pl.col("index"),
                    history.cast(pl.List(pl.String)).list.join(" "),
                    pl.col(ITEM_IDS).list.get("target").alias(ITEM_ID),
                ).write_csv(file, separator="\t", include_header=False, quote_style="never")
    _write(path, "item2index", items.select(ITEM_ID).with_row_index("index").select(ITEM_ID, "index"), header=None)
    _write(path, "user2index", index, header=None)
    _write(path, "text", items, header="item_id:token\ttext:token_seq")


def _write_recbole(path: Path, rows: dict[str, pl.DataFrame], items: pl.DataFrame, longest: int) -> None:
    whole = pl.concat([rows[TEST], rows[VALIDATION], rows[TRAIN]]).unique(USER_ID, keep="first", maintain_order=True)
    if TIMESTAMPS not in whole.columns:
        whole = whole.with_columns(pl.int_ranges(0, pl.col(ITEM_IDS).list.len()).alias(TIMESTAMPS))
    log = whole.explode(ITEM_IDS, TIMESTAMPS)
    log = log.with_columns(items[ITEM_ID].gather(log[ITEM_IDS]).alias(ITEM_IDS))
    _write(path, "inter", log.select(USER_ID, ITEM_IDS, TIMESTAMPS), "user_id:token\titem_id:token\ttimestamp:float")
    _write(path, "item", items, "item_id:token\ttext:token_seq")


def _write(path: Path, suffix: str, table: pl.DataFrame, header: str | None) -> None:
    with path.with_name(f"{path.name}.{suffix}").open("wb") as file:
        if header:
            file.write(f"{header}\n".encode())
        table.write_csv(file, separator="\t", include_header=False, quote_style="never")
