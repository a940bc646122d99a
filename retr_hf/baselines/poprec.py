"""PopRec: everybody is recommended the most popular items. The "most popular" row of Kang & McAuley, ICDM 2018.

    s(u, i) = number of interactions with i in the train split

As a product for ``evaluation.ranking``: q_u = (1), e_i = (count of i).

NOTE Counts come from the train split alone. The history of a test user holds the validation item; counting that too
would leak. Items never seen in training score 0 and tie; ``evaluation.ranking`` ranks ties last, so that an unseen
target is at the very end and never first.
"""

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError


def poprec(train_items: np.ndarray, num_items: int, num_users: int) -> tuple[Tensor, Tensor]:
    """Popularity as queries and items.

    Args:
        train_items: int [K], the item indices of all train sequences in one flat array; zeros (padding) are ignored.
        num_items: catalogue size without padding.
        num_users: how many users are to be ranked.

    Returns:
        ``queries`` [num_users, 1] of ones and ``items`` float32 [num_items + 1, 1] of counts, row 0 zero.

    Raises:
        DataError: an index outside 0 .. num_items.
    """
    train_items = np.asarray(train_items, np.int64)
    if train_items.size and not 0 <= train_items.min() <= train_items.max() <= num_items:
        raise DataError(
            f"train items must lie in 1 .. {num_items}, got {train_items.min()} .. {train_items.max()}: "
            "is it the train split of another catalogue?"
        )
    counts = np.bincount(train_items, minlength=num_items + 1)
    counts[0] = 0
    return torch.ones(num_users, 1), torch.from_numpy(counts.astype(np.float32))[:, None]
