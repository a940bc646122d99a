"""One block of RETR: router, attention, feed-forward.

Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024. Axis letters: B rows, N length, d width, S
sequences of which one token each asks.
"""

from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import SequenceContext
from .attentions import ATTENTIONS
from .configuration_retr import RetrConfig
from .dropout import Dropout
from .pathway import PathwayRouter, RandomRouter, pick


def build_router(config: RetrConfig, layer_idx: int) -> PathwayRouter | RandomRouter | None:
    """The router a config asks for, or None."""
    if config.router == "none":
        return None
    if config.router == "random":
        return RandomRouter(layer_idx, config.hierarchical_route, config.router_init_keep, config.router_sampling)
    return PathwayRouter(
        config.hidden_size,
        config.router_hidden_size,
        context=config.router_context,
        hierarchical=config.hierarchical_route,
        gumbel=config.gumbel,
        temperature=config.gumbel_temperature,
        omega_activation=config.omega_activation,
        init_keep=config.router_init_keep,
        sampling=config.router_sampling,
    )


class RetrLayer(GradientCheckpointingLayer):
    """One block: Ẑ, R = PathMSA(Z, R) (1); Ẑ = LN(Ẑ + Z); Z = LN(FFN(Ẑ) + Ẑ). Post-norm, as RecBole's SASRec."""

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__()
        self.router = build_router(config, layer_idx)
        self.self_attn = ATTENTIONS[config.attention](config, layer_idx)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout)

    def forward(self, hidden_states, route, context: SequenceContext, route_generator=None, **kwargs):
        """hidden_states [B, N, d], route [B, N] or None -> (hidden_states, R, α, ω, loss terms ...); no router: None.

        With ``context.ends`` [S] only those tokens come out, [1, S, d]: the others answer, but do not ask. The tuple is
        flat, because re-entrant checkpointing loses the gradient of what is nested in it.
        """
        routing = None, None, None
        if self.router is not None:
            routing = self.router(hidden_states, route, context.layout, route_generator, context.ends)
            route = routing.route
        asking = hidden_states if context.ends is None else pick(hidden_states, context.ends)
        attended, _, auxiliary = self.self_attn(asking, hidden_states, context, route, **kwargs)
        output = self.finish(asking, attended)
        terms = self.self_attn.block_terms(hidden_states, output, context) if self.training else {}
        return output, *routing, *auxiliary.values(), *terms.values()

    def finish(self, hidden_states, attended):
        """What follows the attention, token by token: hidden_states and attended [..., d] -> [..., d]."""
        hidden_states = self.attention_norm(self.dropout(attended, hidden_states))
        inner = self.down_proj(self.act_fn(self.up_proj(hidden_states)))
        return self.ffn_norm(self.dropout(inner, hidden_states))
