"""The pathway router: decides, token by token, which past behaviours may ask. Torch only; with
sequence_layout.py it can be carried away.

Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024, equations (2) to (6). Letters: B batch, N
length, d width. A router reads the tokens Z of a block and the route R so far and returns, per token, the hard route,
the probability α of being kept and the weight ω of the adaptive relaxation.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from transformers import initialization as init

from .sequence_layout import SequenceLayout

OMEGA_ACTIVATIONS = {"softplus": nn.functional.softplus, "relu": nn.functional.relu}


class Routing(NamedTuple):
    """What a router decides, each [B, N]: hard route in {0, 1} (with the relaxation's gradient), α and ω."""

    route: torch.Tensor
    keep_probability: torch.Tensor
    omega: torch.Tensor


def pathway_mean(
    hidden_states: torch.Tensor,
    route: torch.Tensor,
    layout: SequenceLayout,
    context: str,
    ends: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean of the tokens still on the pathway, the inner term of equation (2).

        p = Σ_i R_i Z_i / Σ_i R_i        over i ≤ t (causal) or all i of the sequence (global)

    hidden_states [B, N, d], route [B, N] -> [B, N, d]; with ``ends`` [S] (``SequenceLayout``) only after those tokens,
    [1, S, d]. Padding is in no mean. The sums are one product with a matrix of zeros and ones, [N, N] a sequence.

    NOTE: where no visible token is on the pathway the paper's quotient is 0/0; we fall back to the plain mean of the
    visible tokens.
    """
    means = []
    routes = layout.rectangles(route * layout.valid)
    for z, kept, visible in zip(layout.rectangles(hidden_states), routes, layout.visible(context, ends), strict=True):
        visible = visible.to(z.dtype)  # [S or 1, M, N]
        weights = kept.to(z.dtype).unsqueeze(1) * visible  # [S, M, N]
        weights = torch.where(weights.detach().amax(-1, keepdim=True) > 0.5, weights, visible)
        means.append((weights / weights.sum(-1, keepdim=True).clamp(min=1.0)) @ z)
    return layout.join(means, hidden_states.shape if ends is None else (1, -1, hidden_states.shape[-1]))


class PathwaySums(NamedTuple):
    """The causal mean as running sums over the tokens of U users so far: one more token costs O(d).

    kept, kept_states: Σ R_i [U] and Σ R_i Z_i [U, d];  count, states: the same with R = 1.
    """

    kept: torch.Tensor
    kept_states: torch.Tensor
    count: torch.Tensor
    states: torch.Tensor

    @classmethod
    def over(cls, hidden_states: torch.Tensor, route: torch.Tensor, valid: torch.Tensor) -> "PathwaySums":
        """Sums over rows: hidden_states [U, N, d], route and valid [U, N]."""
        real = valid.to(hidden_states.dtype).unsqueeze(1)  # [U, 1, N]
        kept = real * route.to(hidden_states.dtype).unsqueeze(1)
        return cls(
            kept.sum((1, 2)), (kept @ hidden_states).squeeze(1), real.sum((1, 2)), (real @ hidden_states).squeeze(1)
        )

    def plus(self, more: "PathwaySums") -> "PathwaySums":
        """Sums over both."""
        return PathwaySums(*(a + b for a, b in zip(self, more, strict=True)))

    def mean(self) -> torch.Tensor:
        """What ``pathway_mean`` gives for the last of the tokens: [U, d]."""
        mean_kept = self.kept_states / self.kept.clamp(min=1.0).unsqueeze(-1)
        mean = self.states / self.count.clamp(min=1.0).unsqueeze(-1)
        return torch.where(self.kept.unsqueeze(-1) > 0.5, mean_kept, mean)


class StartsAt(nn.Linear):
    """The last layer of an MLP of one number, whose bias starts at ``start``.

    NOTE: it starts itself and not its router: transformers initialises what has parameters of its own.
    """

    def __init__(self, size: int, start: float):
        super().__init__(size, 1)
        self.start = start
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Sets the bias to its start."""
        init.constant_(self.bias, self.start)


class PathwayRouter(nn.Module):
    """Learned binary route, equations (2) to (6) of the paper.

        Z_emb = Z + Z ⊙ MLP(p)                         (2)   p: ``pathway_mean``
        π     = softmax(MLP(Z_emb)) = [1 - α, α]       (2)
        R̂     = argmax_j (log π(j) + G(j))             (3)   G standard Gumbel noise
        v(j)  = softmax_j((log π(j) + G(j)) / τ)       (4)   ``gumbel="fixed"``, τ = ``temperature``
        ω     = ReLU(MLP(Z_emb))                       (5)
        v(j)  = softmax_j(ω log π(j) + G(j))           (5)   ``gumbel="adaptive"``
        R     = R̂ ⊙ R^{l-1}                            (6)   ``hierarchical=True``

    Forward uses R̂, backward v (straight-through). Their name -> ours: MLP of p -> context_mlp, MLP of π -> keep_mlp,
    MLP of ω -> omega_mlp, v(1) -> relaxed.

    NOTE: with two classes the softmaxes are logistic functions of log π(1) - log π(0), the one output of ``keep_mlp``,
    and the difference of two Gumbel variables is one logistic variable: same distributions, half the random numbers.
    NOTE: the means run over i ≤ t by default (``context="causal"``); the printed sum runs over all N tokens
    (``context="global"``) and leaks the future into every step but the last.
    NOTE: evaluation is deterministic, R̂ = 1 where α ≥ 0.5, unless ``sampling``.
    NOTE: ω = softplus(MLP(Z_emb)) by default, not the printed ReLU. Where ReLU reaches 0, v no longer depends on π and
    no gradient reaches either: the token's route stays a fair coin for ever. On our synthetic world the first block
    ends so within two epochs. ``omega_activation="relu"`` is the paper's.
    NOTE: a fixed temperature has no ω; 1/τ stands in its place in the output.
    NOTE: tokens start with α = ``init_keep`` (the paper is silent) and ω = 1.
    NOTE: the sizes of the MLPs are not given in the paper; ours have one hidden layer of ``router_hidden_size``.

    Args:
        hidden_size: width d.
        router_hidden_size: inner width of the MLPs; None means ``hidden_size // 4``.
        context: "causal" or "global".
        hierarchical, gumbel, temperature, omega_activation, init_keep, sampling: see the equations and notes above.
    """

    def __init__(
        self,
        hidden_size: int,
        router_hidden_size: int | None = None,
        context: str = "causal",
        hierarchical: bool = True,
        gumbel: str = "adaptive",
        temperature: float = 1.0,
        omega_activation: str = "softplus",
        init_keep: float = 0.88,
        sampling: bool = False,
    ):
        super().__init__()
        inner = router_hidden_size or max(1, hidden_size // 4)
        self.context, self.hierarchical = context, hierarchical
        self.temperature = temperature
        self.omega_activation = OMEGA_ACTIVATIONS[omega_activation]
        self.sampling = sampling
        logit = math.log(init_keep / (1 - init_keep))
        omega = 1.0 if self.omega_activation is nn.functional.relu else math.log(math.e - 1)  # softplus of it is 1
        self.context_mlp = self._mlp(hidden_size, inner, nn.Linear(inner, hidden_size))
        self.keep_mlp = self._mlp(hidden_size, inner, StartsAt(inner, logit))
        self.omega_mlp = self._mlp(hidden_size, inner, StartsAt(inner, omega)) if gumbel == "adaptive" else None

    @staticmethod
    def _mlp(size: int, inner: int, last: nn.Linear) -> nn.Sequential:
        return nn.Sequential(nn.Linear(size, inner), nn.GELU(), last)

    def forward(
        self,
        hidden_states: torch.Tensor,
        previous_route: torch.Tensor | None = None,
        layout: SequenceLayout | None = None,
        generator: torch.Generator | None = None,
        ends: torch.Tensor | None = None,
    ) -> Routing:
        """Routes rows of tokens.

        hidden_states [B, N, d], previous_route [B, N] (None: all ones, R^0) -> Routing of [B, N] tensors; with ``ends``
        [S], ascending flat places of one token a sequence, of [1, S] tensors.
        """
        layout = layout or SequenceLayout.whole(hidden_states)
        if previous_route is None:
            previous_route = layout.valid.to(hidden_states.dtype)
        p = pathway_mean(hidden_states, previous_route, layout, self.context, ends)
        if ends is not None:
            hidden_states, previous_route = pick(hidden_states, ends), pick(previous_route, ends)
            return self.decide(hidden_states, p, previous_route, generator)
        routing = self.decide(hidden_states, p, previous_route, generator)
        return routing._replace(route=routing.route * layout.valid)

    def decide(self, hidden_states, p, previous_route, generator: torch.Generator | None = None) -> Routing:
        """Equations (2) to (6) given the mean p: hidden_states and p [..., d], previous_route [...] -> [...] each."""
        z_emb = hidden_states + hidden_states * self.context_mlp(p)  # (2)
        # float32 from here: half precision would round probabilities and noise before the comparison.
        logit = self.keep_mlp(z_emb).squeeze(-1).float()  # log π(1) - log π(0)
        if self.omega_mlp is None:
            omega = torch.full_like(logit, 1 / self.temperature)
        else:
            omega = self.omega_activation(self.omega_mlp(z_emb).squeeze(-1).float())  # (5)

        if self.training or self.sampling:
            uniform = torch.rand(logit.shape, device=logit.device, generator=generator)
            noise = torch.logit(uniform, eps=1e-6)  # G(1) - G(0)
            if self.omega_mlp is None:
                relaxed = torch.sigmoid((logit + noise) / self.temperature)  # (4)
            else:
                relaxed = torch.sigmoid(omega * logit + noise)  # (5)
            hard = (logit + noise > 0).to(relaxed.dtype)  # (3)
        else:
            relaxed = torch.sigmoid(logit)
            hard = (logit >= 0).to(relaxed.dtype)
        route = hard + (relaxed - relaxed.detach())  # the bracket is exactly 0: the route stays 0 or 1
        if self.hierarchical:
            route = route * previous_route.float()  # (6)
        return Routing(route, torch.sigmoid(logit), omega)

    def next(self, hidden_states: torch.Tensor, previous_route: torch.Tensor, sums: PathwaySums) -> Routing:
        """Routes one more token a user: hidden_states [U, d], previous_route [U], the sums with it -> [U] each."""
        return self.decide(hidden_states, sums.mean().to(hidden_states.dtype), previous_route)


def pick(values: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """[B, N, ...] at flat places ``ends`` [S] -> [1, S, ...]."""
    return values.flatten(0, 1).index_select(0, ends).unsqueeze(0)


class RandomRouter(nn.Module):
    """Keeps each token with a fixed probability: the paper's ablation "w/o pathway router" (Table 6).

    NOTE: the paper says "randomly choose" and no share: ours is ``router_init_keep``, which the ablations set to a
    half; under the hierarchical update each block halves what is left.
    NOTE: the paper does not say what evaluation does; ours keeps a fixed, evenly spread share of the positions (the
    Weyl sequence frac((t + 1)·φ + l·√2)), so that results repeat and neither padding nor the future changes them.
    """

    def __init__(self, layer_idx: int = 0, hierarchical: bool = True, keep: float = 0.88, sampling: bool = False):
        super().__init__()
        self.layer_idx, self.hierarchical, self.keep, self.sampling = layer_idx, hierarchical, keep, sampling

    def forward(
        self,
        hidden_states: torch.Tensor,
        previous_route: torch.Tensor | None = None,
        layout: SequenceLayout | None = None,
        generator: torch.Generator | None = None,
        ends: torch.Tensor | None = None,
    ) -> Routing:
        """As ``PathwayRouter.forward``."""
        layout = layout or SequenceLayout.whole(hidden_states)
        valid = layout.valid.float()
        routing = self._decide(valid, layout.ranks(), previous_route, generator)
        return routing if ends is None else Routing(*(pick(part, ends) for part in routing))

    def next(self, hidden_states: torch.Tensor, previous_route: torch.Tensor, sums: PathwaySums) -> Routing:
        """As ``PathwayRouter.next``."""
        return self._decide(torch.ones_like(sums.count).float(), sums.count.long(), previous_route)

    def _decide(self, valid, ranks, previous_route, generator=None) -> Routing:
        if self.training or self.sampling:
            uniform = torch.rand(valid.shape, device=valid.device, generator=generator)
        else:
            uniform = torch.frac(ranks * ((1 + math.sqrt(5)) / 2) + self.layer_idx * math.sqrt(2))
        route = (uniform < self.keep).float() * valid
        if self.hierarchical and previous_route is not None:
            route = route * previous_route.float()
        return Routing(route, torch.full_like(valid, self.keep), torch.ones_like(valid))
