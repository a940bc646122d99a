"""The nearest other item of an item by its text vector, exactly, in blocks that fit the memory.

    cos(i, j) = <x_i - m, x_j - m> / (|x_i - m| |x_j - m|),    m the mean vector

Without the mean the vectors of a language model all point the same way (Ethayarajh, EMNLP 2019), and any two texts look
alike: a threshold would mean another thing for every encoder.
"""

from dataclasses import dataclass

import numpy as np

NEAR = 0.95  # same product in another colour or size, on Amazon's items; different products of a kind are below
MOST_PRODUCTS = (
    3e11  # multiplications: about 20,000 items x 768 whole; of more, a sample is asked. Seconds, not minutes
)
_QUERIES, _ITEMS = 2**11, 2**14  # of a block: 128 MB of cosines


@dataclass(frozen=True)
class Nearest:
    """asked [Q], other [Q]: rows of the table; cosine float32 [Q] between them, -1 where there is no other."""

    asked: np.ndarray
    other: np.ndarray
    cosine: np.ndarray


def nearest(vectors: np.ndarray, rows: np.ndarray, most_products: float = MOST_PRODUCTS) -> Nearest:
    """Nearest other row of each row, or of as many random ones as ``most_products`` allows.

    Args:
        vectors: [I, E] float.
        rows: ascending, those that count; at least two.
        most_products: Q * len(rows) * E is not above.
    """
    size = min(len(rows), max(1, int(most_products / (len(rows) * vectors.shape[1]))))
    asked = rows if size == len(rows) else np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
    mean = _mean(vectors, rows)
    other, cosine = np.zeros(size, np.int64), np.full(size, -1, np.float32)
    for first in range(0, len(rows), _ITEMS):
        block = rows[first : first + _ITEMS]
        items = _directions(vectors[block] - mean)
        for begin in range(0, size, _QUERIES):
            part = slice(begin, begin + _QUERIES)
            cosines = _directions(vectors[asked[part]] - mean) @ items.T
            cosines[asked[part][:, None] == block] = -1  # itself
            best = cosines.argmax(1)
            value = cosines[np.arange(len(best)), best]
            better = value > cosine[part]
            other[part] = np.where(better, block[best], other[part])
            cosine[part] = np.where(better, value, cosine[part])
    return Nearest(asked, other, cosine)


def _mean(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    blocks = (vectors[rows[first : first + _ITEMS]] for first in range(0, len(rows), _ITEMS))
    return (sum(block.sum(0, dtype=np.float64) for block in blocks) / len(rows)).astype(np.float32)


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Of length 1; of a vector that is nothing but the mean, nothing."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norm, out=np.zeros_like(vectors), where=norm > 1e-6)
