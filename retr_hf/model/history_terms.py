"""What the score may read straight from the history, past the body: raw texts, and which items were there already.

    s(u, i) = [ g cos(z_u, e_i)  +  Σ_a w_a x̂_{u,a} · x̂_i  +  Σ_a b_a 1[i_{u,a} = i] ] / τ

Letters: K queries, n ages, M rows of the item table, T text width; i_{u,a} the item of age a in the history (a = 0 the
last one), x̂ the normalised text vector of an item, e its encoded vector, z the body's state, τ the temperature.

NOTE: both sums are ours, no paper's. The cosine of raw texts ranks well before anything is trained, and what goes
through adaptor, layer norms and dropout loses it; and a model of cosines puts the history itself on top, for its output
resembles its input, unless something can learn how often items come again in this shop.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_retr import RetrConfig


def recent_rows(
    input_ids: torch.Tensor, position_ids: torch.Tensor, places: torch.Tensor, longest: int | None = None
) -> torch.Tensor:
    """The histories as read at some places, newest item first: int64 [K, n], 0 where a history has no more.

    input_ids, position_ids: [B, N] rows of the item table and their places in their own history, from 0.
    places: [K] flat places (row * N + column).
    longest: n; None means the longest history among them, which an exported graph cannot ask for.
    """
    positions = position_ids.flatten()[places]
    if longest is None:
        longest = int(positions.max()) + 1 if len(places) else 0
    ages = torch.arange(longest, device=places.device)
    rows = input_ids.flatten()[(places[:, None] - ages).clamp(min=0)]
    return torch.where(ages <= positions[:, None], rows, 0)


def items_around(
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    position_ids: torch.Tensor,
    places: torch.Tensor,
    before: int,
    after: int,
) -> torch.Tensor:
    """The items before (the place's own the last) and after some places of training histories: int64 [K, before +
    after], oldest first, 0 where there is none.

    input_ids, labels, position_ids: [B, N]; a label is the next item. places: [K] flat places (row * N + column).
    """
    ids, labels, positions = (each.flatten() for each in (input_ids, labels, position_ids))
    ages = torch.arange(before - 1, -1, -1, device=places.device)
    past = torch.where(ages <= positions[places, None], ids[(places[:, None] - ages).clamp(min=0)], 0)
    steps = torch.arange(after, device=places.device)
    later = (places[:, None] + steps).clamp(max=len(ids) - 1)
    same = (positions[later] == positions[places, None] + steps) & (labels[later] > 0)
    return torch.cat([past, torch.where(same, labels[later], 0)], dim=1)


class TextPath(nn.Module):
    """The residual text path: Σ_a w_a x̂_{u,a}, whose product with x̂_i is added to the score; and the gain g.

    With ``score_gain`` 0 the model *is* a text-similarity recommender before training, to a decaying mean of the
    history (``text_path_decay`` 0: to its last item): w_a starts as ``text_path_weight`` · ``text_path_decay``^a.
    """

    def __init__(self, config: RetrConfig):
        super().__init__()
        self.start = config.text_path_weight, config.text_path_decay, config.score_gain
        self.weights = nn.Parameter(torch.empty(config.max_position_embeddings))  # w
        self.gain = nn.Parameter(torch.empty(()))  # g
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Sets w and g to their start."""
        weight, decay, gain = self.start
        ages = torch.arange(len(self.weights), dtype=torch.float32, device=self.weights.device)
        init.copy_(self.weights, weight * decay**ages)
        init.constant_(self.gain, gain)

    def cut_positions(self, length: int) -> None:
        """Keeps the weights of the first ``length`` ages."""
        self.weights = nn.Parameter(self.weights.detach()[:length].clone())

    def forward(self, recent: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """recent [K, n] (``recent_rows``), text [M, T] normalised, row 0 zero -> [K, T]."""
        weights = self.weights[: recent.shape[1]].to(text.dtype).expand(recent.shape).contiguous()
        if not recent.numel():
            return text.new_zeros(len(recent), text.shape[1])
        if torch.compiler.is_compiling() and not torch.is_grad_enabled():
            # torch.export would fix M, the rows an embedding_bag reads from; at the cost of a tensor [K, n, T].
            return (weights.unsqueeze(1) @ nn.functional.embedding(recent, text)).squeeze(1)
        return nn.functional.embedding_bag(recent, text, per_sample_weights=weights, mode="sum", padding_idx=0)


class RepeatTerm(nn.Module):
    """The repeat term: b_a is added to the score of the item of age a; of one bought twice, both.

    b below 0 says that what was just bought is not bought again; in a domain of habits it grows above.
    """

    def __init__(self, config: RetrConfig):
        super().__init__()
        self.start = config.repeat_term_start
        self.weights = nn.Parameter(torch.empty(config.max_position_embeddings))  # b
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Sets b to its start."""
        init.constant_(self.weights, self.start)

    def cut_positions(self, length: int) -> None:
        """Keeps the weights of the first ``length`` ages."""
        self.weights = nn.Parameter(self.weights.detach()[:length].clone())

    def forward(self, recent: torch.Tensor) -> torch.Tensor:
        """recent [K, n] (``recent_rows``) -> what each of these items is given [K, n], 0 where there is none."""
        return self.weights[: recent.shape[1]] * (recent > 0)
