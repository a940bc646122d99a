"""RecGURU's losses: a batch read by the encoder, its negatives, and one function an equation.

    L_rec = -log( exp(s⁺) / (exp(s⁺) + Σ_{k=1..30} exp(s_k⁻)) )     L_BPR = -log σ(s⁺ - mean of 5 s⁻)
    critic:  mean D(g_b) - mean D(g_a) + 0.1 E(‖∇D(g̃)‖ - 1)²        encoder:  mean D(g_a) - mean D(g_b)

s = h_t · e_i at every step t of a history, the target of step t being x_(t+1); g̃ lies between a g of a and one of b
(Gulrajani et al., NeurIPS 2017). Legend: B users, T steps with a target, d width; sides a (source) and b (target).

Their name -> ours: ``loss_ae`` -> ``reconstruction_loss``; ``loss_bpr_func`` -> ``recommendation_loss``;
``calc_gradient_penalty`` -> ``gradient_penalty``.

NOTE As with the authors, g is read from the whole training history, the targets of the decoder among it: reconstruction
means that, and L_BPR has it too. In ranking the target is never in the history.
NOTE Negatives are not in the history that is read. The authors also leave out the validation and the test item, which
tells the model about them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recguru import RecGuru, rectangles


class Reading:
    """A batch of one domain, read by the encoder.

    Args:
        batch: input_ids x_1 .. x_(n-1) and labels x_2 .. x_n, [B, N] or, with ``length_groups``, groups in one row;
            outside the sequences labels are negative.

    Attributes:
        users: user vectors g [B, d].
        targets: items to be predicted [T], of all sequences end to end; ``owner`` [T] whose they are.
    """

    def __init__(self, model: RecGuru, side: str, batch: dict[str, Any]):
        self.model, self.side = model, side
        groups = batch.get("length_groups")
        self.inputs = list(rectangles(batch["input_ids"], groups))
        labels = [part.clamp(min=0) for part in rectangles(batch["labels"], groups)]
        self.real = [part > 0 for part in labels]
        self.histories = [torch.cat([x[:, :1], y], 1) for x, y in zip(self.inputs, labels, strict=True)]
        self.users = torch.cat([model.encode(side, part) for part in self.histories])
        self.targets = torch.cat([part[real] for part, real in zip(labels, self.real, strict=True)])
        self.owner = _owners(self.real)

    def states(self, decoder: nn.ModuleList, users: Tensor) -> Tensor:
        """h of every step that has a target, [T, d]."""
        users = users.split([len(part) for part in self.inputs])
        return torch.cat(
            [
                self.model.decode(decoder, self.side, inputs, g)[real]
                for inputs, real, g in zip(self.inputs, self.real, users, strict=True)
            ]
        )

    def scores(self, states: Tensor, count: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """s⁺ [T] and, of ``count`` negatives a step, s⁻ [T, count]; ``weights`` [items + 1]: None draws uniformly."""
        table = self.model.items[self.side]
        if weights is None:
            weights = torch.ones(table.num_embeddings, device=states.device)
        items = torch.cat([part[part > 0] for part in self.histories])
        read = _owners([part > 0 for part in self.histories]), items
        negatives = draw_negatives(read, self.owner, weights, count)
        return (states * table(self.targets)).sum(-1), torch.einsum("td,tkd->tk", states, table(negatives))


def _owners(real: list[Tensor]) -> Tensor:
    """The row, counted over all rectangles, of every real place in them, end to end."""
    lengths = torch.cat([part.sum(1) for part in real])
    return torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)


def draw_negatives(read: tuple[Tensor, Tensor], owner: Tensor, weights: Tensor, count: int) -> Tensor:
    """Items [T, count] that are not in the history of the step they are for; drawn, and drawn again where they were.

    Args:
        read: users [K] and the items [K] of their histories, in any order, with repeats.
        owner: the user of each step, [T].
        weights: how likely an item is drawn, [items + 1]; padding never is.

    Raises:
        ValueError: a history holds every item that can be drawn.
    """
    width, weights = len(weights), weights.clone()
    weights[0] = 0
    taken = torch.unique(read[0] * width + read[1])
    possible = (weights > 0).sum() - torch.bincount(taken // width, weights=(weights > 0)[taken % width].double())
    if (possible < 1).any():
        raise ValueError(f"a history holds all of the {int((weights > 0).sum())} items that can be its negatives")
    keys, drawn = (owner * width).repeat_interleave(count), torch.zeros(len(owner) * count, dtype=torch.long)
    drawn, again = drawn.to(keys.device), torch.arange(len(keys), device=keys.device)
    while len(again):
        drawn[again] = torch.multinomial(weights, len(again), replacement=True)
        pairs = keys[again] + drawn[again]
        place = torch.searchsorted(taken, pairs).clamp(max=len(taken) - 1)
        again = again[taken[place] == pairs]
    return drawn.view(-1, count)


def reconstruction_loss(reading: Reading, num_negatives: int) -> Tensor:
    """L_rec: sampled softmax over the next item and its own negatives, the mean over steps."""
    states = reading.states(reading.model.decoders[reading.side], reading.users)
    positive, negative = reading.scores(states, num_negatives)
    logits = torch.cat([positive[:, None], negative], 1)
    return (logits.logsumexp(1) - positive).mean()


def recommendation_loss(reading: Reading, num_negatives: int, weights: Tensor | None, fix_enc: bool) -> Tensor:
    """L_BPR of the recommending decoder, the mean over steps. It is ``bpr_loss`` against the mean of the negatives."""
    users = reading.users.detach() if fix_enc else reading.users
    positive, negative = reading.scores(reading.states(reading.model.recommender, users), num_negatives, weights)
    return -F.logsigmoid(positive - negative.mean(1)).mean()


def critic_gap(critic: nn.Module, users_a: Tensor, users_b: Tensor) -> Tensor:
    """mean D(g_a) - mean D(g_b): how well the critic tells the domains apart; it is 0 where they are the same."""
    return critic(users_a).mean() - critic(users_b).mean()


def gradient_penalty(critic: nn.Module, users_a: Tensor, users_b: Tensor) -> Tensor:
    """E(‖∇D(g̃)‖ - 1)², g̃ = α g_a + (1 - α) g_b, α uniform in [0, 1], one a pair; pairs are drawn at random."""
    count = min(len(users_a), len(users_b))
    a, b = (users[torch.randperm(len(users), device=users.device)[:count]] for users in (users_a, users_b))
    between = torch.lerp(b, a, torch.rand(count, 1, device=a.device)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.norm(dim=1) - 1).square().mean()
