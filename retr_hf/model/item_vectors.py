"""Item vectors on disk: a safetensors file, written a block at a time and read as a memory map.

    padding     [1, E] float32 zeros
    embeddings  [I, E] float32, row i belonging to item index i + 1

The row of zeros lies right before the vectors, so the item table [I + 1, E] that models read is one stretch of the
file: it is mapped, not loaded, and processes of one machine share its pages. Readers that know ``embeddings`` alone
find it as ever.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

EMBEDDINGS, PADDING = "embeddings", "padding"
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 2**14, 2**24
_FLOAT = np.dtype("<f4")


def write_vectors(
    path: Path, num_items: int, dim: int, blocks: Iterable[tuple], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a file of vectors of which no more than a block is in memory; whole or not is the caller's matter.

    Args:
        blocks: (rows, vectors): which rows of ``embeddings``, a slice or int [n], and their vectors [n, dim]. Rows that
            no block names are zero.
        metadata: strings, kept in the header.
    """
    row = dim * _FLOAT.itemsize
    header = {
        **({"__metadata__": dict(metadata)} if metadata else {}),
        PADDING: {"dtype": "F32", "shape": [1, dim], "data_offsets": [0, row]},
        EMBEDDINGS: {"dtype": "F32", "shape": [num_items, dim], "data_offsets": [row, row * (num_items + 1)]},
    }
    text = json.dumps(header, ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # as the format wants it: numbers begin at a multiple of 8
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.flush()
        _reserve(file, row * (num_items + 1))
    table = np.memmap(path, _FLOAT, "r+", 8 + len(text), (num_items + 1, dim))
    for rows, vectors in blocks:
        table[1:][rows] = vectors


def _reserve(file: BinaryIO, size: int) -> None:
    """Appends zeros: a full disk is an error here, under a map it would be the end of the process."""
    if hasattr(os, "posix_fallocate"):  # without writing them
        os.posix_fallocate(file.fileno(), file.tell(), size)
        return
    for first in range(0, size, _BYTES_AT_ONCE):
        file.write(bytes(min(_BYTES_AT_ONCE, size - first)))


def in_blocks(vectors: np.ndarray) -> Iterable[tuple[slice, np.ndarray]]:
    """The rows of [I, ...], some at a time, for :func:`write_vectors`."""
    for first in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        yield rows, vectors[rows]


def map_table(path: Path) -> np.ndarray | None:
    """The item table [I + 1, E] float32 of a file, row 0 zeros, memory-mapped; None for a file without that row in
    place, which has to be read and copied (a file of ``embeddings`` alone).

    Writing to the array changes neither the file nor what others read. The file must be sound, which
    ``safetensors.safe_open`` checks.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    vectors, padding = header[EMBEDDINGS], header.get(PADDING)
    if padding is None or vectors["dtype"] != "F32" or padding["dtype"] != "F32":
        return None
    (num_items, dim), (begin, end) = vectors["shape"], padding["data_offsets"]
    if end != vectors["data_offsets"][0] or math.prod(padding["shape"]) != dim:
        return None
    # Copy on write: torch wants tensors that could be written to.
    return np.asarray(np.memmap(path, _FLOAT, "c", 8 + size + begin, (num_items + 1, dim)))
