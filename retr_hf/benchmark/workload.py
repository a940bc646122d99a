"""What a benchmark reads: histories of a synthetic shape, which anyone can make, or those of a prepared domain."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.domain import Sequences, load_domain
from ..errors import DataError


@dataclass(frozen=True)
class Shape:
    """Whole histories of a catalogue by their lengths: L = clip(round(median · exp(σ z)), shortest, longest), z normal.

    num_items: items I, of popularity 1 / rank^exponent, drawn one by one.
    max_length, batch_size: what a model reads of a history, and of histories at once.
    """

    num_items: int
    median: float
    sigma: float
    shortest: int
    longest: int
    exponent: float
    max_length: int
    batch_size: int


# Fitted to what they are called after, so that a batch has the same tokens and different items. Scientific: mean length
# 7.0, 4.0 inputs a training history, 1,640 items in 512 of them. MovieLens-1M: 72 of 100 inputs, 47 % at the cap, 2,200
# items in 128 of them.
SHAPES = {
    "scientific-like": Shape(4385, 6, 0.45, 5, 80, 0.6, 50, 512),
    "movielens-like": Shape(3416, 96, 1.0, 18, 2300, 0.9, 100, 128),
}


@dataclass(frozen=True)
class Source:
    """Where a workload comes from; a child process makes the same one of it.

    name: one of ``SHAPES``, or the folder of a prepared domain.
    users: histories that are drawn, at most (a sample of a domain's).
    max_length, batch_size: None takes the shape's (a domain's: 50 items, 512 histories).
    """

    name: str
    users: int = 2048
    max_length: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Workload:
    """Histories and what is read of them.

    test: whole histories, their last items the targets of ranking.
    train: the same without their last two items; every item after the first is a target.
    text: [I + 1, T] text vectors, row 0 padding, of a domain that has them.
    """

    name: str
    test: Sequences
    num_items: int
    max_length: int
    batch_size: int
    synthetic: bool
    text: np.ndarray | None = None

    @property
    def train(self) -> Sequences:
        lengths = self.test.lengths - 2
        kept = np.ones(len(self.test.item_ids), dtype=bool)
        kept[self.test.offsets[1:] - 1] = kept[self.test.offsets[1:] - 2] = False
        return Sequences(self.test.item_ids[kept], np.concatenate([[0], np.cumsum(lengths)]))

    def text_vectors(self, size: int | None) -> np.ndarray:
        """[I + 1, size] text vectors: a domain's own, or random ones of length 1 for a shape.

        Raises:
            DataError: a domain without text vectors, or with vectors of another width.
        """
        if self.synthetic:
            vectors = np.random.default_rng(1).standard_normal((self.num_items + 1, size or 384), dtype=np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors[0] = 0
            return vectors
        if self.text is None:
            raise DataError(f"{self.name} has no text vectors, which this case reads: run scripts/embed.py on it first")
        if size is not None and self.text.shape[1] != size:
            raise DataError(f"{self.name} has text vectors of width {self.text.shape[1]}, this case reads {size}")
        return self.text


def open_workload(source: Source) -> Workload:
    """The workload of a source, the same one each time.

    Raises:
        DataError: no such shape and no prepared domain; a domain without histories of four items.
    """
    if source.name in SHAPES:
        shape = SHAPES[source.name]
        rng = np.random.default_rng(0)
        drawn = np.rint(shape.median * np.exp(shape.sigma * rng.standard_normal(source.users)))
        lengths = np.clip(drawn, shape.shortest, shape.longest).astype(np.int64)
        popularity = 1 / np.arange(1, shape.num_items + 1) ** shape.exponent
        items = 1 + rng.choice(shape.num_items, lengths.sum(), p=popularity / popularity.sum())
        test = Sequences(items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
        num_items, name, text = shape.num_items, source.name, None
        length, size = shape.max_length, shape.batch_size
    else:
        domain = load_domain(source.name)
        test, num_items, name = domain.split("test"), domain.num_items, Path(source.name).resolve().name
        long_enough = np.flatnonzero(test.lengths >= 4)  # two items to train on, one to validate, one to test
        if not len(long_enough):
            raise DataError(f"{source.name}: expected histories of at least four items in the test split, it has none")
        if len(long_enough) > source.users:
            drawn = np.random.default_rng(0).choice(long_enough, source.users, replace=False)
            long_enough = np.sort(drawn)
        test, catalog = test.select(long_enough), domain.catalog()
        text = None if catalog.text_encoder is None else catalog.item_table()
        length, size = 50, 512
    return Workload(
        name,
        test,
        num_items,
        source.max_length or length,
        min(source.batch_size or size, len(test)),
        source.name in SHAPES,
        text,
    )
