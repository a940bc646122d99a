"""A parquet file as a memory-mapped table: decoded once, into an Arrow file that lies hidden beside it.

Parquet is compressed, so reading it is loading it, in every process anew. The Arrow file is a cache: it may be deleted
at any time, is made again when the parquet file has changed, and is on no list of what a prepared domain holds.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_SOURCE = b"parquet"  # metadata of the schema: which state of the parquet file it was made from

logger = logging.getLogger(__name__)


def mapped_table(parquet: Path, columns: Sequence[str]) -> pa.Table:
    """Those of the columns that a parquet file has, zero-copy from the Arrow file beside it, made if need be.

    One record batch, so that the values of a list column are one flat array. In a folder that cannot be written to the
    table is in memory. Processes that make the file at the same time leave the same one.
    """
    arrow = parquet.with_name(f".{parquet.stem}.arrow")
    source = _state(parquet, columns)
    found = _open(arrow, source)
    if found is not None:
        return found
    having = pq.read_schema(parquet).names
    table = pq.read_table(parquet, columns=[name for name in columns if name in having], memory_map=True)
    table = table.combine_chunks().replace_schema_metadata({_SOURCE: source})
    try:
        _write(table, arrow)
    except OSError as error:
        logger.warning("%s: read into memory, for its Arrow file cannot be written (%s)", parquet, error)
        return table
    found = _open(arrow, source)
    return table if found is None else found  # None: the parquet file was replaced meanwhile


def _state(parquet: Path, columns: Sequence[str]) -> bytes:
    state = parquet.stat()
    return f"{state.st_size} {state.st_mtime_ns} {' '.join(columns)}".encode()


def _open(arrow: Path, source: bytes) -> pa.Table | None:
    """The table of an Arrow file that was made from ``source``; None for any other, or none."""
    try:
        with pa.memory_map(os.fspath(arrow)) as file:  # the map lives as long as the arrays that show it
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid):
        return None
    return table if (table.schema.metadata or {}).get(_SOURCE) == source else None


def _write(table: pa.Table, arrow: Path) -> None:
    """Whole or not at all, under a name of this process first: others may be writing the same file."""
    partial = arrow.with_name(f"{arrow.name}.partial-{os.getpid()}")
    try:
        with pa.OSFile(os.fspath(partial), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        os.replace(partial, arrow)
    finally:
        partial.unlink(missing_ok=True)
