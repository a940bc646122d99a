"""RawLog and RawDomain: what readers hand on, whatever the format they read; RawDomain is what `prepare` writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

SPLIT = "split"  # string: train, validation or test; only where the source brings its own split
SEEN = "seen"  # a fourth value of it: no split, what else a user touched and no negative may be
KIND = "kind"  # string: how a synthetic user behaves; synthetic worlds only
UNTIMED = "by place in the file; no times"  # ``RawLog.ordered`` of a log of interactions without times


@dataclass(frozen=True)
class RawDomain:
    """Sequences and items as a source has them: raw ids, before k-core, indices and split.

    Attributes:
        sequences: one row a user, oldest interaction first. Columns ``user_id``: String, ``item_ids``: List(String)
            and, where the source has them, ``timestamps``: List(Int64), ``pivotal``: List(Boolean) (both aligned with
            ``item_ids``), ``kind``: String. With a column ``split``: String, a row is a user in that split
            (validation and test rows end with their target), the split is kept and no k-core is applied. Rows of
            split "seen" are written nowhere: what they name is never drawn as a negative of their user.
            Item ids may be categoricals too.
        items: ``item_id``: String (unique), ``text``: String, in the order of the source. Items of the sequences
            without a row here get the text "" and are counted.
        reader: name of the reader ("tables", "atomic", "synthetic"), for the provenance.
        inputs: the files that were read; their sha256 goes into the provenance. Empty: the frames are hashed instead.
        options: the reader's options that change the result, JSON-able; for the provenance and "up to date".
        dropped: dirt that was cleaned or found, name -> count.
        whole_catalogue: True keeps every row of ``items``, in its order, as the catalogue. False: only items that
            occur in the kept sequences, in order of first appearance.
        k_core: the k-core that ``sequences`` are already (``dropped`` tells what went); None: none.
        strangers: some ids of the item table that the log does not name, where the log has items without a row.
    """

    sequences: pl.DataFrame
    items: pl.DataFrame
    reader: str
    inputs: Sequence[Path] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    whole_catalogue: bool = False
    k_core: int | None = None
    strangers: Sequence[str] = ()


@dataclass(frozen=True)
class RawLog:
    """Interactions as a source has them, not loaded: frames that polars scans, in bounded memory.

    Attributes:
        events: one row an interaction, in file order (files in the order of ``inputs``). ``user_id``: String,
            ``item_id``: String and, where the source has them, ``timestamp``: Int64 (seconds since 1970) and
            ``rating``: Float32 (stars, or a count; -inf: none). Nothing is null. Of a log that an engine scans
            (`stored`): a LazyFrame of narwhals, with ``row``: Int64, the place of the interaction.
        items: ``item_id``: String, ``text``: String, in file order, or None. An id may come twice: its first row holds.
        reader: name of the reader, for the provenance.
        inputs: the files that were read.
        options: the reader's options that change the result, JSON-able.
        dropped: dirt that was cleaned or found while reading, name -> count.
        samples: one example of each kind of dirt, name -> "file:line: 'text' (why)".
        ordered: how a user's interactions are ordered, and what decides between equal (or absent) times.
        whole_catalogue: as in ``RawDomain``.
    """

    events: pl.LazyFrame
    items: pl.LazyFrame | None
    reader: str
    inputs: Sequence[Path] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    ordered: str = "by time; equal times keep file order"
    whole_catalogue: bool = False
