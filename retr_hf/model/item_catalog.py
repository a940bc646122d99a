"""ItemCatalog: raw item id <-> index <-> text <-> vector; the only maker of item indices.

A catalogue belongs to a domain, not to a checkpoint: a prepared domain and a model folder carry the same files
(``items.parquet``, ``catalog.json`` and, after the embed stage, ``item_embeddings.safetensors``).
Indices are 1-based; 0 is padding and "unknown item". Row ``i`` of ``items.parquet`` is index ``i + 1``.
"""

import hashlib
import json
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open

from .folders import require_items
from .item_vectors import EMBEDDINGS, in_blocks, map_table, write_vectors

ITEMS_FILE = "items.parquet"
CATALOG_FILE = "catalog.json"
EMBEDDINGS_FILE = "item_embeddings.safetensors"
AUGMENTED_EMBEDDINGS_FILE = "item_embeddings_word_drop.safetensors"
CATALOG_FORMAT = 1

_ITEM_ID, _TEXT = "item_id", "text"
_OF_ITS_ITEMS = ("catalog_hash", "texts_empty")  # metadata that changes with the items


class ItemCatalog:
    """The items of one domain. I = number of items without padding, E = width of the text vectors.

    Args:
        item_ids: [I] raw ids, unique.
        texts: [I] what an item encoder reads; "" where nothing is known.
        embeddings: [I, E] text vectors, kept as float32.
        embeddings_metadata: strings saying how the vectors were made: ``encoder``, ``revision``, ``prompt``,
            ``normalized``. ``dim`` and ``catalog_hash`` are added.
        augmented_embeddings: [I, E] vectors of the same texts with words dropped (UniSRec's second view).

    Attributes:
        folder: where it was opened, for errors to name; None of one made in memory.

    Raises:
        ValueError: no items, ids that are not strings or not unique, lengths that differ, vectors of another shape,
            not finite, or made for another catalogue.
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        texts: Sequence[str],
        embeddings: np.ndarray | None = None,
        embeddings_metadata: dict[str, str] | None = None,
        augmented_embeddings: np.ndarray | None = None,
    ):
        self._ids, self._texts = _strings(item_ids, "item_ids"), _strings(texts, "texts")
        if len(self._ids) == 0:
            raise ValueError("ItemCatalog: expected at least one item, got none")
        if len(self._ids) != len(self._texts):
            raise ValueError(
                f"ItemCatalog: expected one text an item, got {len(self._ids)} item_ids and {len(self._texts)} texts"
            )
        for column, name in ((self._ids, "item_ids"), (self._texts, "texts")):
            if column.null_count:
                raise ValueError(f'ItemCatalog: {column.null_count} of the {name} are None; use "" for a missing text')
        if pc.count_distinct(self._ids).as_py() != len(self._ids):
            counts = pc.value_counts(self._ids)
            doubled = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
            raise ValueError(
                f"ItemCatalog: item_ids must be unique, but {len(doubled)} occur more than once, "
                f"such as {doubled[:3].to_pylist()}; keep one row an item"
            )
        self.hash: str = _hash(self._ids, self._texts)
        self._index: dict[str, int] | None = None
        self._table: np.ndarray | None = None
        self._augmented: np.ndarray | None = None
        self.folder: Path | None = None
        self.embeddings_metadata: dict[str, str] = {}
        if embeddings is not None:
            self._table = _padded(embeddings, len(self), "embeddings")
            self.embeddings_metadata = self._checked_metadata(embeddings_metadata or {}, self._table.shape[1])
        if augmented_embeddings is not None:
            self._augmented = _padded(augmented_embeddings, len(self), "augmented_embeddings")
            if self._table is None or self._table.shape != self._augmented.shape:
                raise ValueError("ItemCatalog: augmented_embeddings need embeddings of the same shape beside them")

    def __len__(self) -> int:
        """Number of items I, without padding."""
        return len(self._ids)

    def __repr__(self) -> str:
        dim = "no embeddings" if self._table is None else f"embeddings of width {self._table.shape[1]}"
        return f"ItemCatalog({len(self)} items, {dim}, hash {self.hash[:8]})"

    @property
    def item_ids(self) -> list[str]:
        """[I] raw ids; ``item_ids[i]`` has index ``i + 1``."""
        return self._ids.to_pylist()

    @property
    def texts(self) -> list[str]:
        """[I] item texts."""
        return self._texts.to_pylist()

    @property
    def embeddings(self) -> np.ndarray | None:
        """[I, E] float32, or None before the embed stage."""
        return None if self._table is None else self._table[1:]

    @property
    def augmented_embeddings(self) -> np.ndarray | None:
        """[I, E] float32 vectors of the texts with words dropped, or None."""
        return None if self._augmented is None else self._augmented[1:]

    @property
    def text_encoder(self) -> str | None:
        """Encoder, revision, prompt and norm in one string, or None: vectors mix only where it is equal."""
        if self._table is None:
            return None
        metadata = self.embeddings_metadata
        revision, prompt = metadata.get("revision"), metadata.get("prompt")
        name = metadata.get("encoder") or "unknown"
        plain = metadata.get("normalized", "true").lower() == "true"
        return (
            name
            + (f"@{revision}" if revision else "")
            + (f" prompt={prompt!r}" if prompt else "")
            + ("" if plain else " not normalized")
        )

    def index_of(self, raw_ids: Sequence[str]) -> np.ndarray:
        """Indices of raw ids: [n] int64, 1-based, 0 for an unknown id (or None).

        Raises:
            ValueError: ids that are not strings.
        """
        raw_ids = _strings(raw_ids, "raw_ids")
        if len(raw_ids) < len(self) // 8:  # pyarrow hashes the whole catalogue anew at every call
            if self._index is None:
                self._index = {item: row for row, item in enumerate(self._ids.to_pylist(), 1)}
            return np.array([self._index.get(item, 0) for item in raw_ids.to_pylist()], dtype=np.int64)
        positions = pc.index_in(raw_ids, value_set=self._ids)
        return pc.fill_null(positions, -1).to_numpy(zero_copy_only=False).astype(np.int64) + 1

    def items_at(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """(raw id, title) of item indices, 1-based: the title is the text, or the id of an item without one."""
        rows = pa.array(np.asarray(indices, dtype=np.int64) - 1)
        pairs = zip(self._ids.take(rows).to_pylist(), self._texts.take(rows).to_pylist(), strict=True)
        return [(item, text if text.strip() else item) for item, text in pairs]

    def extended(self, items: Mapping[str, str], embeddings: np.ndarray | None = None) -> "ItemCatalog":
        """This catalogue with new items at its end: indices of the old ones stay, the hash changes.

        Args:
            items: raw id -> text.
            embeddings: [len(items), E] their vectors, by the same encoder (``text_encoders.encode_like``); needed
                where the catalogue has vectors. Those of word-dropped texts are left behind: they are for training.

        Raises:
            ValueError: what ``check_new`` refuses, vectors missing or of another shape.
        """
        self.check_new(items)
        if (embeddings is None) != (self._table is None):
            raise ValueError("extended: expected vectors of the new items exactly where the old ones have some")
        metadata = {key: value for key, value in self.embeddings_metadata.items() if key not in _OF_ITS_ITEMS}
        vectors = None if embeddings is None else np.concatenate([self.embeddings, embeddings])
        ids, texts = (
            pa.concat_arrays([old, _strings(list(new), name)])
            for old, new, name in ((self._ids, items, "item_ids"), (self._texts, items.values(), "texts"))
        )
        return ItemCatalog(ids, texts, vectors, metadata)

    def check_new(self, items: Mapping[str, str]) -> None:
        """Raises ValueError unless ``items`` are new ones: raw id -> text, at least one, none of them here already."""
        pairs = list(items.items()) if isinstance(items, Mapping) else []
        wrong = [
            f"{item!r}: {text!r}" for item, text in pairs if not isinstance(item, str) or not isinstance(text, str)
        ]
        if not pairs or wrong:
            came = wrong[0] if wrong else f"{type(items).__name__} {reprlib.repr(items)}"
            raise ValueError(
                f'new items: expected {{raw id: text}}, at least one, text "" if there is none; got {came}'
            )
        known = [item for item, row in zip(items, self.index_of(list(items)), strict=True) if row]
        if known:
            raise ValueError(
                f"new items: {len(known)} of {len(pairs)} are in the catalogue already, such as {known[:3]}"
            )

    def item_table(self, augmented: bool = False) -> np.ndarray:
        """[I + 1, E] float32: the vector of item index i in row i, zeros in row 0. Not a copy; of a catalogue that was
        opened, a memory map of its file.

        Args:
            augmented: the vectors of the word-dropped texts instead.

        Raises:
            ValueError: the catalogue has no such embeddings.
        """
        if augmented:
            if self._augmented is None:
                raise ValueError(
                    f"{self.folder or 'this catalogue'}: no vectors of word-dropped texts; run scripts/embed.py "
                    f"{self.folder or 'DIR'} --word-drop 0.15, which writes {AUGMENTED_EMBEDDINGS_FILE}"
                )
            return self._augmented
        if self._table is None:
            raise ValueError(
                f"{self.folder or 'this catalogue'}: no item embeddings; run scripts/embed.py "
                f"{self.folder or 'DIR'} on its prepared domain, which writes {EMBEDDINGS_FILE}"
            )
        return self._table

    @classmethod
    def from_pretrained(cls, folder: str | Path, embeddings: bool = True) -> "ItemCatalog":
        """Opens a prepared domain or a model folder.

        Args:
            folder: holds ``items.parquet``, ``catalog.json`` and perhaps the embeddings; of a repository on the Hub see
                ``hub.local_folder``, and ``RetrProcessor.from_pretrained``, which opens those too.
            embeddings: False leaves the vectors unread.

        Raises:
            ValueError: no catalogue there, items that do not fit ``catalog.json``, embeddings of another catalogue.
        """
        folder = Path(folder)
        require_items(folder, (ITEMS_FILE, CATALOG_FILE))
        stored = json.loads((folder / CATALOG_FILE).read_text(encoding="utf-8"))
        if stored.get("format") != CATALOG_FORMAT:
            raise ValueError(
                f"{folder / CATALOG_FILE}: expected format {CATALOG_FORMAT}, got {stored.get('format')!r}; "
                "prepare the domain again, or use the version of retr_hf that wrote it"
            )
        items = pq.read_table(folder / ITEMS_FILE)
        if not {_ITEM_ID, _TEXT} <= set(items.column_names):
            raise ValueError(f"{folder / ITEMS_FILE}: expected columns item_id, text; got {items.column_names}")
        catalog = cls(items[_ITEM_ID], items[_TEXT])
        catalog.folder = folder
        if catalog.hash != stored.get("hash"):
            raise ValueError(
                f"{folder / ITEMS_FILE}: ids, texts or their order changed since {CATALOG_FILE} was written "
                f"(hash {catalog.hash[:12]} instead of {str(stored.get('hash'))[:12]}), so item indices may point to "
                "other items; restore the file or prepare the domain again"
            )
        if not embeddings or not (folder / EMBEDDINGS_FILE).is_file():
            return catalog
        catalog._table, metadata = catalog._open_table(folder / EMBEDDINGS_FILE)
        catalog.embeddings_metadata = catalog._checked_metadata(metadata, catalog._table.shape[1])
        if (folder / AUGMENTED_EMBEDDINGS_FILE).is_file():
            catalog._augmented, _ = catalog._open_table(folder / AUGMENTED_EMBEDDINGS_FILE, catalog._table.shape[1])
        return catalog

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the catalogue into ``folder`` (made if absent), each file whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.table({_ITEM_ID: self._ids, _TEXT: self._texts})
        about = {"format": CATALOG_FORMAT, "num_items": len(self), "hash": self.hash}
        write_whole(folder / ITEMS_FILE, lambda path: pq.write_table(table, path))
        write_whole(folder / CATALOG_FILE, lambda path: path.write_text(json.dumps(about, indent=2) + "\n", "utf-8"))
        for name, vectors in (
            (EMBEDDINGS_FILE, self.embeddings),
            (AUGMENTED_EMBEDDINGS_FILE, self.augmented_embeddings),
        ):
            if vectors is not None:
                about = (*vectors.shape, in_blocks(vectors), self.embeddings_metadata)
                write_whole(folder / name, lambda path, about=about: write_vectors(path, *about))

    def _open_table(self, path: Path, dim: int | None = None) -> tuple[np.ndarray, dict[str, str]]:
        """The table [I + 1, E] of a file, mapped where the file allows it, and its metadata."""
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("catalog_hash") != self.hash:
                raise ValueError(
                    f"{path}: these embeddings were made for other items or texts (catalog_hash "
                    f"{metadata.get('catalog_hash', 'missing')[:12]}, expected {self.hash[:12]}); "
                    f"embed again: scripts/embed.py {path.parent}"
                )
            table = map_table(path)
            if table is None:
                table = _padded(file.get_tensor(EMBEDDINGS), len(self), path.name)
        if table.shape != (len(self) + 1, dim or table.shape[1]):
            raise ValueError(
                f"{path}: expected {len(self)} vectors" + (f" of width {dim}" if dim else "") + ", got "
                f"{len(table) - 1} of width {table.shape[1]}; embed again: scripts/embed.py {path.parent}"
            )
        return table, metadata

    def _checked_metadata(self, metadata: dict[str, str], dim: int) -> dict[str, str]:
        for key, expected in (("catalog_hash", self.hash), ("dim", str(dim))):
            if metadata.get(key, expected) != expected:
                raise ValueError(f"embeddings_metadata: expected {key} {expected}, got {metadata[key]}; embed again")
        return {**{key: str(value) for key, value in metadata.items()}, "catalog_hash": self.hash, "dim": str(dim)}


def _strings(values: Sequence[str], name: str) -> pa.Array:
    """A sequence, numpy or Arrow column of str as one large_string array; None stays null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    try:
        array = values if isinstance(values, pa.Array) else pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{name}: expected a sequence of strings; {error}") from error
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_null(array.type)):
        raise ValueError(f"{name}: expected strings, got {array.type}; item ids are strings always, use str(id)")
    return array.cast(pa.large_string())


def _hash(*columns: pa.LargeStringArray) -> str:
    """sha256 over columns without nulls; lengths go first, so moving a letter to the next entry changes the hash."""
    digest = hashlib.sha256()
    for column in columns:
        _, ends, letters = column.buffers()
        offsets = np.frombuffer(ends, np.int64)[column.offset : column.offset + len(column) + 1]
        digest.update(len(column).to_bytes(8, "little"))
        digest.update(np.diff(offsets).astype("<i8"))
        digest.update(memoryview(letters or b"")[offsets[0] : offsets[-1]])
    return digest.hexdigest()


def _padded(vectors: np.ndarray, num_items: int, name: str) -> np.ndarray:
    """[I, E] any float -> [I + 1, E] float32 with a zero row in front."""
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[0] != num_items:
        raise ValueError(f"{name}: expected shape [{num_items}, dim], one row an item, got {list(vectors.shape)}")
    table = np.zeros((num_items + 1, vectors.shape[1]), dtype=np.float32)
    table[1:] = vectors
    if not np.isfinite(table).all():
        rows = np.flatnonzero(~np.isfinite(table).all(axis=1)) - 1
        raise ValueError(f"{name}: {len(rows)} rows are not finite, the first is row {rows[0]}; embed again")
    return table


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` make a file under a temporary name and puts it in place: whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        write(partial)
        partial.chmod(mode)  # safetensors writes files that only their owner can read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
