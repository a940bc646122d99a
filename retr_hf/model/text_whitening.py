"""The text vectors of a catalogue as a model reads them: as they are, or whitened by the catalogue's own statistics."""

from dataclasses import dataclass

import numpy as np
import torch

from .configuration_retr import RetrConfig
from .item_catalog import ItemCatalog

_ROWS_AT_ONCE = 2**16


def text_table(config: RetrConfig, catalog: ItemCatalog, augmented: bool = False) -> torch.Tensor | None:
    """``text_embeddings`` of a model for a whole catalogue: [num_items + 1, T], row 0 padding; None without text.

    augmented: the vectors of the word-dropped texts, whitened by the statistics of the plain ones.

    Raises:
        ValueError: the catalogue has no such vectors.
    """
    return read_texts(catalog, config.text_whitening, augmented) if config.uses_text else None


def read_texts(catalog: ItemCatalog, text_whitening: float | None, augmented: bool = False) -> torch.Tensor:
    """``text_table`` of a model of texts, known by its ``text_whitening`` alone."""
    table = catalog.item_table(augmented)
    if text_whitening is not None:
        table = Whitening.of(catalog.item_table(), text_whitening)(table)
    return torch.from_numpy(table)


@dataclass(frozen=True)
class Whitening:
    """ZCA whitening with a ridge, by the statistics of one catalogue; rows come out with length 1.

        y = (x - μ) V (Λ + ρ λ̄)^(-1/2) V^T,    ŷ = y / |y|

    μ, V Λ V^T the mean and the covariance of the catalogue's rows, λ̄ the mean of Λ, ρ the ridge. Rows of zeros
    (padding, no text) are in no statistic and stay zero.

    Text encoders put all texts of a domain into a narrow cone, so their cosines say mostly what the domain is; whitened
    by its own catalogue, each domain is centred and as wide in every direction (WhitenRec: Zhang et al., *Are ID
    Embeddings Necessary?*, arXiv 2402.10602).

    NOTE: the ridge is ours: WhitenRec relaxes by groups of dimensions. Vectors come out with length 1.

    mean: float32 [T]. matrix: float32 [T, T].
    """

    mean: np.ndarray
    matrix: np.ndarray

    @classmethod
    def of(cls, table: np.ndarray, ridge: float) -> "Whitening":
        """By the statistics of float32 [M, T].

        Raises:
            ValueError: no row that is not zero.
        """
        real = np.concatenate([part.any(axis=1) for part in _parts(table)])
        count = int(real.sum())
        if not count:
            raise ValueError("text_whitening: none of the items has a text vector")
        chosen = [(part, keep) for part, keep in zip(_parts(table), _parts(real), strict=True)]
        mean = sum(part[keep].astype(np.float64).sum(axis=0) for part, keep in chosen) / count
        covariance = np.zeros((table.shape[1], table.shape[1]))
        for part, keep in chosen:
            rows = part[keep] - mean
            covariance += rows.T @ rows
        values, vectors = np.linalg.eigh(covariance / count)
        values = np.maximum(values, 0)
        scale = (values + max(ridge * values.mean(), 1e-12)) ** -0.5
        return cls(mean.astype(np.float32), ((vectors * scale) @ vectors.T).astype(np.float32))

    def __call__(self, table: np.ndarray) -> np.ndarray:
        """float32 [M, T] -> float32 [M, T]."""
        white = np.zeros(table.shape, dtype=np.float32)
        for part, into in zip(_parts(table), _parts(white), strict=True):
            real = part.any(axis=1)
            rows = (part[real] - self.mean) @ self.matrix
            into[real] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return white


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """Views of some rows at a time, so that what is computed of a large catalogue is never a second copy of it."""
    return [rows[first : first + _ROWS_AT_ONCE] for first in range(0, len(rows), _ROWS_AT_ONCE)]
