"""What a model gives some items beside the product, and who stands before the target because of it.

Legend: U users, B users of a chunk, E entries as they come, P pairs of a user and an item, each once and in order.
"""

import numpy as np
import torch
from torch import Tensor

from .comparison import not_below, pair_scores


class Given:
    """Scores s(u, i) = fl32(q_u · e_i) + g(u, i), g the sum over the entries of user u and item i.

    Args:
        users, items: int64 [E], users from 0 to U - 1.
        scores: float32 [E].
        targets: int64 [U].
        seen: histories without the target, values int64 [K] and offsets int64 [U + 1].

    Attributes:
        of_targets: float32 [U], what each target is given.
    """

    def __init__(
        self, users: Tensor, items: Tensor, scores: Tensor, targets: np.ndarray, seen: tuple[np.ndarray, np.ndarray]
    ):
        values, offsets, targets = (torch.as_tensor(each) for each in (*seen, targets))
        self.size = 1 + max(int(part.max()) if len(part) else 0 for part in (items, values, targets))
        keys, place = torch.unique(users * self.size + items, return_inverse=True)
        given = torch.zeros(len(keys)).index_add_(0, place, scores)
        own = torch.arange(len(targets)) * self.size + targets
        self.of_targets = _look_up(keys, given, own)
        others = ~torch.isin(keys, own)
        self.keys, self.given = keys[others], given[others]
        self.user, self.item = self.keys // self.size, self.keys % self.size
        history = torch.arange(len(targets)).repeat_interleave(offsets.diff()) * self.size + values
        self.seen = torch.isin(self.keys, history)

    def of_chunk(self, users: slice, device) -> tuple[Tensor, Tensor]:
        """Rows of a chunk of users, and the items that they give something: int64, both."""
        chunk = self._chunk(users)
        return (self.user[chunk] - users.start).to(device), self.item[chunk].to(device)

    def of_pairs(self, users: Tensor, items: Tensor) -> Tensor:
        """float32 [K], 0 where a pair is given nothing; targets are none of these."""
        return _look_up(self.keys, self.given, torch.where(items < self.size, users * self.size + items, -1))

    def before(self, users: slice, query: Tensor, items: Tensor, target_score: Tensor) -> tuple[Tensor, Tensor]:
        """How many of these items stand before each target of a chunk, and how many that the user has not seen: [B].

        query [B, D], items [M, D], target_score float32 [B], with what the targets are given in it.
        """
        chunk, (row, item) = self._chunk(users), self.of_chunk(users, query.device)
        vectors = items[item.to(items.device)].to(query.device)
        scores = pair_scores(query[row], vectors) + self.given[chunk].to(query.device)
        row, new = row[stands := not_below(scores, target_score[row])].cpu(), ~self.seen[chunk][stands.cpu()]
        return torch.bincount(row, minlength=len(query)), torch.bincount(row[new], minlength=len(query))

    def _chunk(self, users: slice) -> slice:
        return slice(*torch.searchsorted(self.user, torch.tensor([users.start, users.stop])).tolist())


def _look_up(keys: Tensor, values: Tensor, wanted: Tensor) -> Tensor:
    """Values by key, 0 where there is none; keys in order."""
    place = torch.searchsorted(keys, wanted).clamp(max=max(0, len(keys) - 1))
    return torch.where(keys[place] == wanted, values[place], 0.0) if len(keys) else torch.zeros(len(wanted))
