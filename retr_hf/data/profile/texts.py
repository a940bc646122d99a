"""Texts: how long they are, which are missing, and which items a text model cannot tell apart."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ...model.text_encoders import HashingEncoder
from .events import Events
from .near_texts import NEAR, nearest
from .part import Part

PLACEHOLDERS = ("", "nan", "none", "null", "n a")  # what other programs write for a text that is not there
LONG = 256  # words: all-MiniLM-L6-v2 reads 256 word pieces, no fewer than words, and leaves the rest


@dataclass(frozen=True)
class TextProfile:
    """Of the items of the catalogue; a text is compared without case, punctuation and double blanks.

    Attributes:
        words, items: distinct numbers of words, ascending, and how many items have each; items without text left out.
        missing: items with no text, or a placeholder ("nan", "None", "null", "N/A").
        missing_events: interactions with those.
        long: items of more than 256 words, of those with a text.
        same: items whose text another item has too, of those with a text.
        groups: texts that several items share.
        largest: how many items share the most frequent of them.
        cosines: [asked] of each item asked, to the nearest other one (None where fewer than two have a text).
        near: items of those asked with a nearest one of at least 0.95 whose text is not the very same as another's.
        vectors: what the cosines are of.
        examples: "missing", "same", "near" -> items.
    """

    words: np.ndarray
    items: np.ndarray
    missing: Part
    missing_events: Part
    long: Part
    same: Part
    groups: int
    largest: int
    cosines: np.ndarray | None
    near: Part
    vectors: str
    examples: dict[str, list[str]]


def profile_texts(events: Events) -> TextProfile:
    """The numbers of the texts of a domain; reads its text vectors where there are some."""
    texts = pl.Series("text", events.texts, dtype=pl.String)
    plain = texts.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    missing = plain.is_in(PLACEHOLDERS).to_numpy()
    count = np.bincount(events.whole.item_ids, minlength=len(texts) + 1)[1:]
    there = np.flatnonzero(~missing)
    words, items = np.unique(texts.str.count_matches(r"\S+").to_numpy()[there], return_counts=True)

    frame = pl.DataFrame({"row": there, "plain": plain.gather(there)})
    groups = frame.group_by("plain", maintain_order=True).agg("row").filter(pl.col("row").list.len() > 1)
    groups = groups.sort(pl.col("row").list.len(), descending=True, maintain_order=True)
    shared = groups["row"].explode().to_numpy() if groups.height else np.zeros(0, np.int64)
    cosines, near, near_examples, vectors = _near(events, there, shared)

    return TextProfile(
        words=words,
        items=items,
        missing=Part(int(missing.sum()), len(texts)),
        missing_events=Part(int(count[missing].sum()), int(count.sum())),
        long=Part(int(items[words > LONG].sum()), len(there)),
        same=Part(len(shared), len(there)),
        groups=groups.height,
        largest=int(groups["row"].list.len().max() or 0),
        cosines=cosines,
        near=near,
        vectors=vectors,
        examples={
            "missing": [events.item(row + 1) for row in _most_popular(np.flatnonzero(missing), count)],
            "same": [events.item(row + 1) for row in shared[:2]],
            "near": [events.item(row + 1) for row in near_examples],
        },
    )


def _near(events: Events, there: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray | None, Part, list[int], str]:
    """Cosines to the nearest, how many are near without being the same, a pair of those, and the vectors' name."""
    if len(there) < 2:
        return None, Part(0, len(there)), [], ""
    catalog = events.domain.catalog()
    if catalog.embeddings is None:
        encoder = HashingEncoder()
        vectors, name = encoder.encode([events.texts[row] for row in there], prompt="", normalize=True), encoder.name
        found = nearest(vectors, np.arange(len(there)))
        asked, other = there[found.asked], there[found.other]
    else:
        found, name = nearest(catalog.embeddings, there), catalog.text_encoder
        asked, other = found.asked, found.other
    near = (found.cosine >= NEAR) & ~np.isin(asked, shared)
    example = np.flatnonzero(near)[:1]
    return found.cosine, Part(int(near.sum()), len(asked)), [*asked[example], *other[example]], name


def _most_popular(rows: np.ndarray, count: np.ndarray) -> np.ndarray:
    return rows[np.argsort(-count[rows], kind="stable")][:2]
