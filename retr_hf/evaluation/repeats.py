"""What a model gives the items of a history beside the product, and who stands before the target because of it.

Legend: U users, B users of a chunk, K seen items in one flat list, P pairs of a user and a seen item, each once.
"""

import numpy as np
import torch
from torch import Tensor

from .comparison import not_below, pair_scores


class Given:
    """Scores s(u, i) = fl32(q_u · e_i) + g(u, i) of the items of a user's history, g the sum over its occurrences.

    Args:
        seen: histories without the target, values int64 [K] and offsets int64 [U + 1].
        targets: int64 [U].
        scores: float32 [K], what each value is given.

    Attributes:
        of_targets: float32 [U], what each target is given: 0 where it is new.
    """

    def __init__(self, seen: tuple[np.ndarray, np.ndarray], targets: np.ndarray, scores: Tensor):
        values, offsets, targets = (torch.as_tensor(each) for each in (*seen, targets))
        owner = torch.repeat_interleave(torch.arange(len(targets)), offsets.diff())
        pairs, place = torch.unique(torch.stack([owner, values]), dim=1, return_inverse=True)  # [2, P], by owner
        given = torch.zeros(pairs.shape[1]).index_add_(0, place, scores)
        repeated = pairs[1] == targets[pairs[0]]
        self.of_targets = torch.zeros(len(targets))
        self.of_targets[pairs[0, repeated]] = given[repeated]
        (self.owner, self.item), self.given = pairs[:, ~repeated].unbind(), given[~repeated]

    def before(self, users: slice, query: Tensor, items: Tensor, target_score: Tensor) -> Tensor:
        """How many seen items stand before each target of a chunk: int64 [B].

        query [B, D], items [M, D], target_score float32 [B], with what the targets are given in it.
        """
        chunk = slice(*torch.searchsorted(self.owner, torch.tensor([users.start, users.stop])).tolist())
        row = (self.owner[chunk] - users.start).to(query.device)
        vectors = items[self.item[chunk].to(items.device)].to(query.device)
        scores = pair_scores(query[row], vectors) + self.given[chunk].to(query.device)
        return torch.bincount(row[not_below(scores, target_score[row])], minlength=len(query)).cpu()
