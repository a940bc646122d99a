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


def undo_chances(
    log_chances: torch.Tensor,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor,
    places: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What gives the items of a step's own history their weight back where candidates are divided by the chance to be
    in a batch (``losses.softmax_loss``): in the step's own batch they are for certain.

    Args:
        log_chances: [M] of the rows of the item table.
        input_ids, labels, position_ids, places: as for ``hide_own_items``.

    Returns:
        rows of the item table [T, 2 n], each once, 0 for none and for the target, and their log chances [T, 2 n].
    """
    longest = int(position_ids.max()) + 1
    own = items_around(input_ids, labels, position_ids, places, longest, longest)
    own = torch.where(own == labels.flatten()[places, None], 0, own).sort(dim=1).values
    again = own[:, 1:] == own[:, :-1]
    own = torch.cat([own[:, :1], own[:, 1:].masked_fill(again, 0)], dim=1)
    return own, log_chances[own]
