"""Text similarity: the items whose text is most like that of the last item. Nothing is trained.

    s(u, i) = cos(x_last(u), x_i),   x_i the raw text vector of item i

The reference that a trained text model must beat, and what zero-shot is held against. As a product for
``evaluation.ranking``: q_u and e_i are the normalised vectors.

NOTE The last item is nearest to itself and heads every list under protocol ``full``; ``full-unseen`` takes it out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DataError


def text_similarity(item_table: np.ndarray | Tensor, last_items: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Cosine to the last item as queries and items.

    Args:
        item_table: float [M, D], the raw text vectors, row 0 padding. A row of zeros (no text) has cosine 0 to all.
        last_items: int [U], the last item of each user's history; 0 for an empty history (all scores tie).

    Returns:
        ``queries`` float32 [U, D] and ``items`` float32 [M, D], both of length 1 (or 0) a row.

    Raises:
        DataError: an index outside the table.
    """
    items = F.normalize(torch.as_tensor(item_table).float(), dim=-1)
    last = torch.as_tensor(last_items).long()
    if last.numel() and not 0 <= int(last.min()) <= int(last.max()) < len(items):
        raise DataError(f"last items must lie in 0 .. {len(items) - 1}, got {int(last.min())} .. {int(last.max())}")
    return items[last], items
