"""Vectors of texts that were embedded before: next month's catalogue encodes its new texts alone."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from ..model.item_catalog import ItemCatalog
from ..model.item_vectors import in_blocks

MADE_BY = ("encoder", "revision", "prompt", "normalized", "dim")


class KnownTexts:
    """What folders with item vectors know of some texts; the first folder that has a text gives its vector.

    Args:
        folders: prepared domains or model folders.
        texts: [I] the texts that are asked for.
        metadata: how their vectors are made (``MADE_BY``).

    Attributes:
        known: bool [I], whether a folder has a text.

    Raises:
        DataError: a folder has no vectors, or some that were made in another way.
        ValueError: no catalogue in a folder, or a damaged one.
    """

    def __init__(self, folders: Sequence[str | Path], texts: Sequence[str], metadata: dict[str, str]):
        self.known = np.zeros(len(texts), dtype=bool)
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # their table, rows of it, rows of texts
        wanted = pa.array(texts, pa.large_string())
        for folder in folders:
            catalog = ItemCatalog.from_pretrained(folder)
            if catalog.embeddings is None:
                raise DataError(f"{folder}: has no item vectors to take; run scripts/embed.py on it, or leave it out")
            there = catalog.embeddings_metadata
            changes = [
                f"{key} {there.get(key)!r}, wanted {metadata[key]!r}"
                for key in MADE_BY
                if there.get(key) != metadata[key]
            ]
            if changes:
                raise DataError(f"{folder}: its item vectors were made in another way: {'; '.join(changes)}")
            places = pc.index_in(wanted, value_set=pa.array(catalog.texts, pa.large_string()))
            places = pc.fill_null(places, -1).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero((places >= 0) & ~self.known)
            self.known[rows] = True
            self._found.append((catalog.embeddings, places[rows], rows))

    @property
    def digest(self) -> str:
        """Which texts are known, as a hash."""
        return hashlib.sha256(np.packbits(self.known).tobytes()).hexdigest()

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows [n] of the texts, their vectors [n, E]), some at a time, as ``write_vectors`` takes them."""
        for vectors, places, rows in self._found:
            for some, where in in_blocks(places):
                yield rows[some], vectors[where]
