"""DenoisingAttention: full attention through a learned binary mask (Rec-denoiser).

Chen, Lin, Pan, Wang, Yeh, Li, Zheng, Wang, Yang, *Denoising Self-Attentive Sequential Recommendation*, RecSys 2022.
Letters: S sequences, M queries, N keys, d width, h heads.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .antithetic import MaskDraws
from .attention import FullAttention, SequenceContext, eager_attention
from .configuration_retr import RetrConfig


class DenoisingAttention(FullAttention):
    """Attention whose weights pass a mask of places, one a block, the same for all users and heads.

        head_m = (softmax(Q K^T / sqrt(d/h)) ⊙ Z) V          not normalised again: a row may lose all its weight
        Z_uv   ~ Bernoulli(g(Φ_uv)),  g = σ                  training; one draw a batch
        Z_uv   = g(Φ_uv) where above 0.5, else 0             evaluation
        loss  += β Σ_{u ≥ v} g(Φ_uv) + γ ‖J‖²_F              J = ∂ block / ∂ its input, the whole block

    Φ [N, N] is a free parameter, ``links``; u is the asking and v the answering place. No gradient goes through Z: that
    of Φ is estimated by ARM (antithetic.py). β is ``denoising_l0_weight``, γ ``denoising_jacobian_weight``; Φ starts
    near g(Φ) = ``denoising_init_keep``. With Φ → ∞ and β = γ = 0 this is full attention.

    NOTE: places count from the start of a history. The authors pad on the left, so theirs count from the end; then a
    loss at every step would meet another mask than the pass over its prefix, and the body's positions count from the
    start as well.
    NOTE: silent in the paper: how Φ starts, whether heads share a mask, how often U is drawn.
    NOTE: dropout falls on the weights before the mask. The gate multiplies the query: at R = 0 the mean of the visible
    values becomes their sum with Z / their number.
    NOTE: always the plain products, whichever kernel is configured: others give no weights to mask, nor a second
    derivative.
    """

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.links = nn.Parameter(torch.empty(config.max_position_embeddings, config.max_position_embeddings))  # Φ
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """Φ around the logit of the keep probability, as far from it as other weights are from 0."""
        keep = self.config.denoising_init_keep
        init.normal_(self.links, math.log(keep / (1 - keep)), self.config.initializer_range)

    @property
    def differentiates_block(self) -> bool:
        """See the base class."""
        return self.config.denoising_jacobian_weight > 0

    def cut_positions(self, length: int) -> None:
        """Keeps the links between the first ``length`` places."""
        self.links = nn.Parameter(self.links.detach()[:length, :length].clone())

    def forward(self, *args, mask_draws: MaskDraws | None = None, **kwargs):
        """See the contract. mask_draws: who draws Z in training, and hears of it; None draws unheard."""
        links = (mask_draws or MaskDraws()).mask(self.links) if self.training else self.expected_links()
        return super().forward(*args, links=links, **kwargs)

    def expected_links(self) -> torch.Tensor:
        """Z of evaluation [N, N]."""
        keep = self.links.detach().sigmoid()
        return torch.where(keep > 0.5, keep, 0)

    def mix(self, query, key, value, context: SequenceContext, links: torch.Tensor | None = None, **kwargs):
        """query [S, M, d], key and value [S, N, d], links Z of all places -> ([S, M, d], weights ⊙ Z, {})."""

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [S, h, N, d/h]

        links = self.expected_links() if links is None else links
        asking, answering = (places.clamp(min=0) for places in context.ranks(query.shape[1]))  # padding: any place
        links = links[asking.unsqueeze(2), answering.unsqueeze(1)]  # [S, M, N]
        output, weights = eager_attention(
            self,
            heads(query),
            heads(key),
            heads(value),
            context.sees(query.shape[1]).unsqueeze(1),
            self.scaling,
            self.config.attention_dropout,
            links.unsqueeze(1),
        )
        return output.flatten(2), weights, {}

    def block_terms(self, block_input, block_output, context: SequenceContext) -> dict[str, torch.Tensor]:
        """β Σ g(Φ) and γ ‖J‖²_F, the latter a mean over the real tokens that came out; none of a frozen block."""
        weight, terms = self.config.denoising_jacobian_weight, {}
        # Drawn before anything is left out: the pass without gradient must find the generator where this one does.
        noise = torch.randn_like(block_output) if weight else None
        if not (torch.is_grad_enabled() and self.links.requires_grad):
            return terms
        if self.config.denoising_l0_weight:
            terms["links"] = self.config.denoising_l0_weight * self.links.sigmoid().tril().sum()
        if weight:
            real = context.layout.valid if context.ends is None else torch.ones_like(noise[..., 0], dtype=torch.bool)
            terms["jacobian"] = (
                weight * jacobian_norm(block_input, block_output, noise * real.unsqueeze(-1)) / real.sum()
            )
        return terms


def jacobian_norm(x: torch.Tensor, y: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """One draw of ‖∂y/∂x‖²_F, unbiased (Hutchinson): ‖η^T ∂y/∂x‖², η ~ N(0, I) ``noise`` of the shape of y.

    Differentiable, so everything between x and y must be twice.
    """
    (gradient,) = torch.autograd.grad(y, x, noise, create_graph=True)
    return gradient.float().square().sum()
