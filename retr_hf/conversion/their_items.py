"""The items of a dataset in RecBole's and UniSRec's files, as an ItemCatalog.

    X.item2index    raw id TAB index, from 0; without it the tokens are the raw ids
    X.text          raw id TAB text, a header first; without it texts are ""
    X.feat1CLS      raw float32 [items, T], row = index: CLS vectors of bert-base-uncased, not normalised
    X.feat2CLS      the same of the texts with words dropped

The catalogue stands in the order of the index (index + 1 is ours), so that it is, hash for hash, the catalogue that
``scripts/prepare.py atomic`` makes of the same files.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ..data.readers.atomic import read_index, read_item_texts
from ..data.schema import ITEM_ID, TEXT
from ..errors import DataError
from ..model.item_catalog import ItemCatalog
from .item_rows import indices_of

KINDS = ("inter", "item2index", "text")


def find_dataset(path: str | Path) -> Path:
    """FOLDER/X of a folder that holds the files of one dataset X, or FOLDER/X itself.

    Raises:
        DataError: no dataset there, or several.
    """
    path = Path(path)
    if not path.is_dir():
        if not any(path.parent.glob(f"{path.name}.*")):
            raise DataError(f"{path}: no such folder, and no files {path.name}.* either; expected those of a dataset")
        return path
    found = sorted({file.name.split(".")[0] for kind in KINDS for file in path.glob(f"*.{kind}")})
    if len(found) != 1:
        came = f"several ({', '.join(found)}): name one, such as {path / found[0]}" if found else "none"
        raise DataError(f"{path}: expected the files of one dataset X (X.item2index, X.inter, ...); got {came}")
    return path / found[0]


def read_items(prefix: Path, tokens: Sequence[str] | None = None) -> tuple[list[str], list[str]]:
    """(raw ids, texts) of a dataset, in the order of ``X.item2index``, or of the tokens where these are given.

    tokens: item tokens of RecBole: indices where there is an ``X.item2index``, else raw ids.

    Raises:
        DataError: neither tokens nor an index; tokens that the index does not have; a malformed file.
    """
    index, text = (prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("item2index", "text"))
    if index.is_file():
        raw = read_index(index)["raw"].to_list()
        ids = raw if tokens is None else [raw[place] for place in indices_of(tokens, len(raw), str(index))]
    elif tokens is not None:
        ids = list(tokens)
    else:
        raise DataError(f"{index}: no such file; expected the raw id and the index of every item")
    items = pl.DataFrame({ITEM_ID: ids})
    if text.is_file():
        items = items.join(read_item_texts(text), on=ITEM_ID, how="left", maintain_order="left")
        return ids, items[TEXT].fill_null("").to_list()
    return ids, [""] * len(ids)


def read_features(path: Path, num_items: int, size: int) -> np.ndarray:
    """Raw float32 vectors [num_items, size] of a feature file.

    Raises:
        DataError: no such file, or one of other items or of another width.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected raw float32 vectors [{num_items}, {size}]")
    count, rest = divmod(path.stat().st_size, 4)
    if rest or count != num_items * size:
        width = f"vectors {count // num_items} wide" if not rest and count % num_items == 0 else "no whole vectors"
        others = f", or {count // size:,} items" if not rest and count % size == 0 else ""
        raise DataError(
            f"{path}: expected {num_items:,} items (item2index) x {size} float32 (the checkpoint's plm_size), "
            f"{num_items * size * 4:,} bytes; got {path.stat().st_size:,}, which is {width} for those items{others}; "
            "take features, item2index and checkpoint of one dataset and one encoder"
        )
    return np.fromfile(path, dtype="<f4").reshape(num_items, size)


def features_metadata(encoder: str) -> dict[str, str]:
    """How UniSRec's vectors were made, as ``ItemCatalog.embeddings_metadata``."""
    return {"encoder": encoder, "normalized": "false"}


def encoder_stamp(encoder: str, size: int) -> str:
    """``ItemCatalog.text_encoder`` of a catalogue with UniSRec's vectors, [items, size]."""
    return ItemCatalog(["any"], [""], np.zeros((1, size)), features_metadata(encoder)).text_encoder
