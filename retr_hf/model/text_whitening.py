"""The text vectors of a catalogue as a model reads them: as they are, or whitened by the catalogue's own statistics."""

import numpy as np
import torch

from .configuration_retr import RetrConfig
from .item_catalog import ItemCatalog


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
        table = whiten(table, text_whitening, catalog.item_table())
    return torch.from_numpy(table)


def whiten(table: np.ndarray, ridge: float, statistics_of: np.ndarray | None = None) -> np.ndarray:
    """ZCA whitening with a ridge, rows of length 1: float32 [M, T] -> float32 [M, T].

        y = (x - μ) V (Λ + ρ λ̄)^(-1/2) V^T,    ŷ = y / |y|

    μ, V Λ V^T the mean and the covariance of the rows of ``statistics_of`` (None: of ``table``), λ̄ the mean of Λ, ρ
    ``ridge``. Rows of zeros (padding, no text) are in no statistic and stay zero.

    Text encoders put all texts of a domain into a narrow cone, so their cosines say mostly what the domain is; whitened
    by its own catalogue, each domain is centred and as wide in every direction (WhitenRec: Zhang et al., *Are ID
    Embeddings Necessary?*, arXiv 2402.10602).

    NOTE: the ridge is ours: WhitenRec relaxes by groups of dimensions. Vectors come out with length 1.

    Raises:
        ValueError: no row that is not zero.
    """
    source = table if statistics_of is None else statistics_of
    rows = source[source.any(axis=1)].astype(np.float64)
    if not len(rows):
        raise ValueError("text_whitening: none of the items has a text vector")
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    values = np.maximum(values, 0)
    scale = (values + max(ridge * values.mean(), 1e-12)) ** -0.5
    matrix = (vectors * scale) @ vectors.T
    real = table.any(axis=1)
    white = np.zeros(table.shape, dtype=np.float32)
    white[real] = (table[real] - mean.astype(np.float32)) @ matrix.astype(np.float32)
    white[real] /= np.maximum(np.linalg.norm(white[real], axis=1, keepdims=True), 1e-12)
    return white
