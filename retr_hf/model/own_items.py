"""A history's own items among the negatives that a batch shares, which they should not be.

Of the items of a step's own history every one is in the batch; of the thousands of others that are as near to it, a
few. As negatives they would teach the body one thing before all others: away from what the history looks like. Models
pre-trained so ranked below the untrained one, on their sources and on new catalogues alike (recipes/results/LOG.md).
"""

import torch

from .history_terms import items_around


def hide_own_items(
    added: tuple[torch.Tensor, torch.Tensor] | None,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor,
    places: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the items of each step's own history get beside their score: minus infinity, but for the target.

    Where the score has terms of its own for the history's items (``added``), which learn from them, those of the past
    stay candidates, and only those that are still to come are hidden.

    Args:
        added: rows of the item table [T, r], 0 for none, and what they are given [T, r]; or None.
        input_ids, labels, position_ids: [B, N], as the model read them; a label is the row of the next item.
        places: [T] flat places of the steps that have a target.

    Returns:
        rows [T, r + n] and what they are given [T, r + n].
    """
    longest = int(position_ids.max()) + 1
    own = items_around(input_ids, labels, position_ids, places, longest if added is None else 0, longest)
    own = torch.where(own == labels.flatten()[places, None], 0, own)
    rows, values = (own[:, :0], own[:, :0].float()) if added is None else added
    return torch.cat([rows, own], dim=1), torch.cat([values, values.new_full(own.shape, float("-inf"))], dim=1)
