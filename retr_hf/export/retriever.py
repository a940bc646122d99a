"""Serves an exported folder: raw item ids in, raw ids, titles and scores out. With ONNX it loads no torch.

DIR/
  user_tower.onnx, .pt2    histories -> queries (towers.py)
  item_tower.onnx, .pt2    items -> table rows and candidates, for new ones
  item_table.safetensors   "table" [M, W], row 0 padding: what the user tower looks items up in; with whitened texts
                           "whitening_mean" [T] and "whitening_matrix" [T, T]: the vector x of a new text goes into
                           the item tower as y / |y|, y = (x - mean) matrix
  items.faiss              the index, ids are catalogue indices
  items.parquet, catalog.json   the catalogue: index, raw id, title
  export.json              what all this is
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ..errors import DataError
from ..model.history_lists import require_list
from ..model.item_catalog import ItemCatalog
from .index import ItemIndex
from .runners import SUFFIXES, open_program

EXPORT_FORMAT = 1
EXPORT_FILE, INDEX_FILE, TABLE_FILE = "export.json", "items.faiss", "item_table.safetensors"
TABLE, USER_TOWER, ITEM_TOWER = "table", "user_tower", "item_tower"
WHITENING_MEAN, WHITENING_MATRIX = "whitening_mean", "whitening_matrix"


class Retriever:
    """The exported folder of ``scripts/export.py``, opened.

    Unknown item ids of a history are left out, as ``RetrProcessor`` does.

    Args:
        folder: see the top of the file.
        program: "onnx" or "torch"; None: ONNX if it is there.
        threads: of onnxruntime (None: its own choice).

    Attributes:
        about: what export.json says.
        catalog: the items.
        index: the ``ItemIndex``.

    Raises:
        DataError: no exported folder, one without that program, or a model that reads times, which histories of item
            ids do not tell: run its program and ``index`` yourself.
        RetrError: faiss or onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, program: str | None = None, threads: int | None = None):
        folder = Path(folder)
        self.about = read_about(folder)
        if self.about["reads"]:
            raise DataError(
                f"{folder}: its user tower reads {' and '.join(self.about['reads'])}, which a history of item ids does "
                "not tell: run it with runners.open_program, and search with ItemIndex.read"
            )
        there = [kind for kind, suffix in SUFFIXES.items() if (folder / (USER_TOWER + suffix)).is_file()]
        if (program or there[0]) not in there:
            raise DataError(f"{folder}: expected one of its programs, {', '.join(there)}, got {program!r}")
        self.catalog = ItemCatalog.from_pretrained(folder, embeddings=False)
        self.index = ItemIndex.read(folder / INDEX_FILE, self.about["index"]["kind"])
        self._table = load_file(folder / TABLE_FILE)[TABLE]
        self._program = open_program(folder / (USER_TOWER + SUFFIXES[program or there[0]]), threads)

    def recommend(
        self, histories: Sequence[Sequence[str]], k: int = 10, exclude_seen: bool = True
    ) -> list[list[tuple[str, str, float]]]:
        """The k best next items of each history, as (raw id, title, score), best first; an item without
        text has its id for a title.

        Args:
            histories: raw item ids, oldest first.
            k: how many items, at most those that remain.
            exclude_seen: leave the items of the whole history out.

        Raises:
            ValueError: k is no whole number of at least 1, what is no list in place of a history, one without any known
                item.
        """
        whole = [self._known(history) for history in histories]
        if not whole:
            return []
        read = batch([each[-self.about["max_length"] :] for each in whole])
        answer = self._program(**read, item_embeddings=self._table)
        rows, added = answer.get("rows"), answer.get("added")
        if exclude_seen:
            seen = batch(whole)["input_ids"]
            never = np.full(seen.shape, -np.inf, np.float32)
            rows, added = (seen, None) if rows is None else (np.hstack([seen, rows]), np.hstack([never, added]))
        found, scores = self.index.search(answer["queries"], k, rows, added)
        items = iter(self.catalog.items_at(found[found > 0]))
        return [
            [(*next(items), float(score)) for score in kept[row > 0]] for row, kept in zip(found, scores, strict=True)
        ]

    def _known(self, history: Sequence[str]) -> np.ndarray:
        require_list(history, "histories", "item ids each")
        history = list(history)
        rows = self.catalog.index_of(history)
        if not rows.any():
            raise DataError(f"history: expected at least one item of the catalogue, none of {history[:3]} is")
        return rows[rows > 0]


def batch(rows: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Catalogue indices of histories -> input_ids and attention_mask int64 [B, N], padded on the right."""
    lengths = np.array([len(each) for each in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    input_ids = np.zeros(real.shape, dtype=np.int64)
    input_ids[real] = np.concatenate(rows)
    return {"input_ids": input_ids, "attention_mask": real.astype(np.int64)}


def read_about(folder: Path) -> dict:
    """export.json of a folder. Raises DataError where there is none of this format."""
    path = Path(folder) / EXPORT_FILE
    about = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if about.get("format") != EXPORT_FORMAT:
        raise DataError(
            f"{folder}: expected an exported folder, format {EXPORT_FORMAT}, got "
            f"{'format ' + repr(about.get('format')) if about else 'one without ' + EXPORT_FILE}; "
            "scripts/export.py RUN_FOLDER --output DIR makes one"
        )
    return about
