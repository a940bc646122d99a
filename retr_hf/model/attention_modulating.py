"""Self-modulating attention (SMRec): what a token gathers is re-weighted by how likely each type of event is just then.

Chen, Geng, Yang, Yan, Xue, Yu, Yang, *Learning Self-Modulating Attention in Continuous Time Space with Applications to
Sequential Recommendation*, ICML 2021.
Axis letters: S sequences a rectangle, M tokens that ask, N tokens that answer, h heads, d_h = d/h, E event types.
"""

import torch
from torch import nn
from transformers import initialization as init

from .attention import FullAttention, SequenceContext, eager_attention
from .configuration_retr import RetrConfig


class SelfModulatingAttention(FullAttention):
    """Causal attention times the intensity of the event type of each key.

        A_tj    = softmax_j(q_t k_j / √d_h)                             plain causal attention, its query routed
        c_t     = Σ_j A_tj T_j,   T = Z W_T                             the sequence so far, R^{d_h}
        g_{t,e} = σ([c_t ‖ Δ_t] W_e + b_e)                              R^{d_h}, e = 0 … E - 1
        λ_{t,e} = γ_e softplus(g_{t,e} · w_e / γ_e),  γ_e = exp(η_e)    intensity of type e after event t
        out_t   = Σ_j λ_{t, m(j)} A_tj V_j

    m(j) is the type ("mark") of event j and Δ_t a gap in units of ``config.modulating_time_scale`` seconds:

        modulating_delta="previous"   Δ_t = t_t - t_{t-1}, 0 at the first event
        modulating_delta="next"       Δ_t = t_{t+1} - t_t, 0 where the next time is not known: at the last event given

    With ``config.modulating_weight`` > 0 the auxiliary term "modulating" is that weight times the negative
    log-likelihood of a point process, its compensator estimated from one point, over every event t whose successor is
    in the history:

        -1/n Σ_t [ log λ_{t, m(t+1)} - ½ (t_{t+1} - t_t) Σ_e λ_{t,e} ]       mean over heads, n events in all

    Reads ``context.times``, int64 seconds, and with ``config.modulating_marks`` E > 1 ``context.marks`` in 0 … E - 1.
    The weights it returns are A. Theirs -> ours: T -> state_proj, (W_e, b_e) -> gate_proj, w_e -> type_weight,
    η -> log_scale; all of a block's own, and shared by its heads. Beside plain attention, whose weights it needs in
    memory whatever the kernel, it costs W_T, and E maps of d_h + 1 to d_h for each token and head.

    NOTE: the input is the body's: position added to the item (theirs: concatenated, the item scaled by √d), keys,
    values and query read the same tokens (theirs: layer norm before W_Q), projections have biases, and W_O, residual,
    norms and feed-forward are the body's blocks.
    NOTE: the authors' gap is ``"next"``, which presumes that the recommendation is asked at the very time of the next
    event. Nothing after the last input is given to the model, so a history's end asks with Δ = 0, "at once", in
    training and in evaluation, where the authors read the target's time. ``"previous"`` looks at nothing ahead.
    NOTE: of a route that is closed c_t is the plain mean of the T it sees: the route gates the query alone.
    NOTE: one type an event (theirs: also several), gaps in the same unit in both places (theirs: seconds in the
    likelihood), and neither padding nor a first event in it, whose "gap" is its distance from 1970.
    """

    reads = ("times",)

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        types = config.modulating_marks
        if types > 1:
            self.reads = ("times", "marks")
        self.state_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate_proj = nn.Linear(self.head_dim + 1, types * self.head_dim)
        self.type_weight = nn.Parameter(torch.empty(types, self.head_dim))  # w
        self.log_scale = nn.Parameter(torch.empty(types))  # η
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """w small, γ = 1: every intensity starts near log 2."""
        init.normal_(self.type_weight, std=self.config.initializer_range)
        init.zeros_(self.log_scale)

    def project(self, query_tokens, key_tokens, route=None) -> tuple[torch.Tensor, ...]:
        """Q [B, M, d], K, V and T [B, N, d]."""
        return *super().project(query_tokens, key_tokens, route), self.state_proj(key_tokens)

    def forward(self, query_tokens, key_tokens, context: SequenceContext, route=None, **kwargs):
        """As every attention; makes one mean of the likelihoods of all rectangles."""
        output, weights, sums = super().forward(query_tokens, key_tokens, context, route, **kwargs)
        if sums:
            sums = {"modulating": -self.config.modulating_weight * sums["log_likelihood"] / sums["events"]}
        return output, weights, sums

    def mix(self, query, key, value, state, context: SequenceContext, **kwargs):
        """query [S, M, d], key, value and state [S, N, d] -> ([S, M, d], A [S, h, M, N], sums of the likelihood).

        Raises:
            ValueError: times or marks that it reads are missing, or times too coarse to be subtracted.
        """
        self._require(context)
        asking = query.shape[1]
        query, key, value, state = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
                                    for part in (query, key, value, state))  # [S, h, M|N, d_h]  # fmt: skip
        mask = None if context.attention_mask is None else context.sees(asking).unsqueeze(1)
        gathered, weights = eager_attention(
            self, query, key, state, mask, self.scaling, self.config.attention_dropout if self.training else 0.0
        )
        since = gaps(context) / self.config.modulating_time_scale  # [S, N]
        until = nn.functional.pad(since, (0, 1))[:, 1:]
        delta = since if self.config.modulating_delta == "previous" else until
        if asking != delta.shape[1]:
            steps = torch.arange(delta.shape[1], device=delta.device)
            delta = delta.gather(1, (context.sees(asking) * steps).amax(-1))  # of the last token that each one sees
        intensity = self.intensities(gathered.transpose(1, 2), delta)  # [S, h, M, E]
        marks = None
        if self.config.modulating_marks == 1:
            mixed = intensity * (weights @ value)
        else:
            marks = context.marks.long().masked_fill(~context.layout.valid, 0)
            of_key = marks[:, None, None].expand(*weights.shape)
            mixed = (intensity.gather(-1, of_key) * weights) @ value  # [S, h, M, N] and never [S, h, M, N, E]
        sums = {}
        if self.config.modulating_weight and asking == key.shape[2]:
            sums = log_likelihood(intensity, until, context, marks)
        return mixed.to(value.dtype).transpose(1, 2).flatten(2), weights, sums

    def intensities(self, state: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        """λ [S, h, M, E] of the sequences so far, c [S, h, M, d_h], and gaps Δ [S, M] in units of the time scale."""
        delta = delta[:, None, :, None].expand(*state.shape[:-1], 1).to(state.dtype)
        gate = self.gate_proj(torch.cat([state, delta], dim=-1)).sigmoid()
        gate = gate.unflatten(-1, (-1, self.head_dim))  # [S, h, M, E, d_h]
        scale = self.log_scale.exp()
        return scale * nn.functional.softplus(torch.einsum("...ed,ed->...e", gate, self.type_weight) / scale)

    def _require(self, context: SequenceContext) -> None:
        if context.times is None:
            raise ValueError(
                'attention="modulating" reads timestamps, and the batch brought none: prepare the domain with a '
                "timestamp column (scripts/prepare.py tables --interactions FILE --columns timestamp=COLUMN), or pass "
                "times [B, N], int64 seconds"
            )
        if context.times.dtype in (torch.float32, torch.float16, torch.bfloat16):
            raise ValueError(
                f"times are {context.times.dtype}, in which today is known to two minutes at best: pass int64 seconds"
            )
        if self.config.modulating_marks > 1 and context.marks is None:
            raise ValueError(
                f"modulating_marks={self.config.modulating_marks}: pass marks [B, N], the type of each event from 0 to "
                f"{self.config.modulating_marks - 1}, or set modulating_marks=1"
            )


def gaps(context: SequenceContext) -> torch.Tensor:
    """Seconds since the event before, of the same sequence: [S, N]; 0 for first events and padding.

    Subtracted as they come, int64: float32 knows today to two minutes, but a gap to one in ten million.
    """
    follows = context.layout.valid & (context.layout.ranks() > 1)
    # Padded, then cut: a tensor of N - 1 columns would make N = 2 a case of its own in an exported graph.
    before = nn.functional.pad(context.times, (1, 0))[:, :-1]
    return (context.times - before).where(follows, 0)


def log_likelihood(
    intensity: torch.Tensor, until: torch.Tensor, context: SequenceContext, marks: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """Sum over events of log λ_{t, m(t+1)} - ½ Δ_t Σ_e λ_{t,e}, mean over heads, and the number of events.

    intensity: [S, h, N, E].
    until: [S, N] gap to the next event, in units of the time scale.
    marks: [S, N] types, or None: all of them 0.
    """
    valid, precise = context.layout.valid, intensity.float()
    has_next = nn.functional.pad(valid & (context.layout.ranks() > 1), (0, 1))[:, 1:]
    chosen = precise[..., 0]
    if marks is not None:
        following = nn.functional.pad(marks, (0, 1))[:, 1:][:, None, :, None]
        chosen = precise.gather(-1, following.expand(*precise.shape[:-1], 1)).squeeze(-1)
    floor = torch.finfo(precise.dtype).tiny  # softplus underflows far below zero, and log 0 has no gradient
    terms = chosen.clamp(min=floor).log() - 0.5 * until.unsqueeze(1) * precise.sum(-1)  # [S, h, N]
    return {"log_likelihood": terms.mean(1).where(has_next, 0).sum(), "events": valid.sum()}
