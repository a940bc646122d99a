"""The transition memory: what stood near an item in other people's histories, counted, and how much that says, learned.

    s(u, i) += Σ_a c_a M[i_{u,a}, i] / τ,        M[i, j] = C[i, j] / sqrt((1 + Σ_j C[i, j]) (1 + Σ_i C[i, j]))
    C[i, j] = Σ 1/δ where j stands δ steps after i or before it, δ = 1 .. 3

Letters: K queries, n ages, A the ages that are read (a = 0 the last item), k neighbours an item, R the reach 3, M rows
of the id table; c the learned weights, τ the temperature.

NOTE: ours, no paper's. On a few thousand users counting item pairs beats what a body learns of them, and a body trained
beside the counts learns what they do not know. Of each row of M the k largest entries are kept. Counting what stood
before an item less than what came after it was no better on Scientific and Arts.

NOTE: in training a history must not find its own transitions in the counts, or the memory would be an answer sheet:
what the history itself has put into C around the items that are read is taken out again, step by step. A pair that
comes twice in one history, far apart, is taken out once.
"""

import numpy as np
import torch
from torch import nn
from transformers import initialization as init

from .configuration_retr import RetrConfig

AGES, REACH, DECAY = 10, 3, 0.8


class TransitionMemory(nn.Module):
    """See the file.

    Attributes:
        weights: c [A], from ``transition_memory_weight`` · 0.8^a on.
        neighbours, strengths: [M, k] items that M[i, ·] is largest for, and M of them; 0 where there are fewer.
        scale: [M] (1 + Σ_j C[i, j])^-1/2, a factor of the denominator of either item.
    """

    def __init__(self, config: RetrConfig):
        super().__init__()
        self.start, shape = config.transition_memory_weight, (config.vocab_size, config.transition_memory)
        self.weights = nn.Parameter(torch.empty(AGES))
        self.register_buffer("neighbours", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("strengths", torch.zeros(shape))
        self.register_buffer("scale", torch.zeros(shape[0]))
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Sets c to its start and forgets every transition."""
        init.copy_(self.weights, self.start * DECAY ** torch.arange(AGES, device=self.weights.device))
        for buffer in (self.neighbours, self.strengths, self.scale):
            init.zeros_(buffer)

    @torch.no_grad()
    def count(self, item_ids: np.ndarray, offsets: np.ndarray) -> None:
        """Reads the transitions of training histories, ``item_ids`` [total] and ``offsets`` [U + 1], oldest first."""
        items, offsets = (torch.from_numpy(np.array(each, dtype=np.int64)) for each in (item_ids, offsets))
        end, size = offsets[1:].repeat_interleave(offsets.diff()), len(self.neighbours)
        codes, counts = [], []
        for steps in range(1, REACH + 1):
            place = torch.arange(max(0, len(items) - steps))
            place = place[place + steps < end[: len(place)]]
            before, after = items[place], items[place + steps]
            before, after = before[before != after], after[before != after]
            codes += [before * size + after, after * size + before]
            counts += [torch.full((2 * len(before),), 1 / steps)]
        codes, place = torch.cat(codes).unique(return_inverse=True)
        counts = torch.zeros(len(codes), dtype=torch.float64).index_add_(0, place, torch.cat(counts).double())
        row, column = codes // size, codes % size
        scale = torch.ones(size, dtype=torch.float64).index_add_(0, row, counts).rsqrt()
        strengths = counts * scale[row] * scale[column]

        order = torch.argsort(strengths, descending=True, stable=True)  # of equal ones the lower index first
        order = order[torch.argsort(row[order], stable=True)]
        row, column, strengths = row[order], column[order], strengths[order]
        nth = torch.arange(len(row)) - torch.searchsorted(row, row)
        kept = nth < self.neighbours.shape[1]
        place = row[kept].to(self.neighbours.device), nth[kept].to(self.neighbours.device)
        self.neighbours.zero_()[place] = column[kept].to(self.neighbours)
        self.strengths.zero_()[place] = strengths[kept].to(self.strengths)
        self.scale.copy_(scale)

    @torch.no_grad()
    def place_items(self, rows: torch.Tensor) -> None:
        """Lays the counts out anew: ``rows`` [M'] the present row of each new one, 0 for padding and for an item that
        nothing was seen of. Neighbours that are not among them are forgotten."""
        rows = rows.to(self.scale.device)
        place = self.neighbours.new_zeros(len(self.neighbours))  # the new row of each present one
        place[rows] = torch.arange(len(rows), dtype=place.dtype, device=place.device)
        place[0] = 0
        self.neighbours = place[self.neighbours[rows].long()]
        self.strengths = self.strengths[rows] * (self.neighbours > 0)
        self.scale = self.scale[rows]

    def forward(self, recent: torch.Tensor, around: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """recent [K, n] (``recent_rows``) -> rows of the table [K, A · k], 0 for none, and what each is given.

        around: ``items_around`` of the same histories, AGES + REACH before and REACH after, in training: their own
            transitions do not count.
        """
        recent = nn.functional.pad(recent, (0, AGES))[:, :AGES]  # as many for every length: an exported graph wants it
        recent = torch.where(recent < len(self.neighbours), recent, 0)  # an item that came later has no neighbours
        rows, strengths = self.neighbours[recent].long(), self.strengths[recent]
        if around is not None:
            strengths = strengths - self._own(recent, rows, around)
        return rows.flatten(1), (strengths * self.weights[:, None]).flatten(1)

    def _own(self, recent: torch.Tensor, rows: torch.Tensor, around: torch.Tensor) -> torch.Tensor:
        """What a history itself has put into the strengths: [K, A, k]."""
        counts = torch.zeros_like(rows, dtype=self.strengths.dtype)
        places = torch.arange(AGES - 1, -1, -1, device=rows.device) + REACH  # of the items that are read
        for steps in range(1, REACH + 1):
            for beside in (around[:, places + steps], around[:, places - steps]):
                counts += (rows == beside[..., None]) / steps
        return counts * self.scale[recent][..., None] * self.scale[rows] * (rows > 0)
