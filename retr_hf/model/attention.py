"""The attention slot: one written contract, and a table from name to class.

Contract. An attention is a module built as ``cls(config, layer_idx)`` and called as

    output, weights, auxiliary = attention(query_tokens, key_tokens, context, route, **kwargs)

    query_tokens  [B, M, d]  tokens that ask (M = N in training; a suffix of the row when serving)
    key_tokens    [B, N, d]  tokens that answer
    context       SequenceContext: the layout of the rows, the mask, and what some attentions need beside
                  the tokens (times, marks)
    route         [B, M] in {0, 1} or None
    output        [B, M, d]  after W_O; dropout, residual and layer norm are the body's
    weights       [B, h, M, N] attention weights, or None where the kernel does not give them
    auxiliary     dict name -> scalar: loss terms of this attention (empty for most); the heads add them up

The module owns W_Q, W_K, W_V and W_O. The router enters as ONE line: multiply the complete query vector, bias and query
positions included, by R_t before it meets any key. Keys and values are never gated, and the residual adds the ungated
input. What every tenant must fulfil is in ``tests/model/test_contract.py``: causality, padding, R = 0, R = 1, prefix
equality, finite gradients.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_retr import RetrConfig
from .pathway import SequenceLayout


@dataclass
class SequenceContext:
    """What an attention may know about the rows beside their tokens.

    layout: SequenceLayout, the real tokens and, in packed rows, the bounds of each sequence.
    attention_mask: made by transformers for the chosen kernel (4-D, a block mask, or None for plain causal).
    times: int64 [B, N] seconds, or None.
    marks: [B, N] event types, or None.
    """

    layout: SequenceLayout
    attention_mask: torch.Tensor | None = None
    times: torch.Tensor | None = None
    marks: torch.Tensor | None = None


class PathwayAttention(nn.Module):
    """Base of every tenant of the slot; see the contract above."""

    is_causal = True


class FullAttention(PathwayAttention):
    """Multi-head attention with a routed query, equation (7) of the paper.

        Q = (R ⊙ Z) W_Q,  K = Z W_K,  V = Z W_V
        head_m = softmax(Q K^T / sqrt(d/h)) V

    The product runs in whatever kernel ``config._attn_implementation`` names (eager, sdpa, flash, flex).

    NOTE: the projections have biases, as RecBole's SASRec has; the gate multiplies the complete query, so R = 1 is
    plain attention to the last digit and R = 0 a zero query, whose attention is uniform over the visible keys.
    """

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = 1
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        query_tokens: torch.Tensor,
        key_tokens: torch.Tensor,
        context: SequenceContext,
        route: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, torch.Tensor]]:
        """See the contract at the top of the file for shapes."""
        query = self.q_proj(query_tokens)
        if route is not None:
            query = query * route.unsqueeze(-1).to(query.dtype)  # (7), the only place the route enters

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, h, N, d/h]

        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, weights = attend(
            self,
            heads(query),
            heads(self.k_proj(key_tokens)),
            heads(self.v_proj(key_tokens)),
            context.attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.flatten(2)), weights, {}


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Plain softmax attention; query, key, value [B, h, N, d/h] -> ([B, N, h, d/h], weights [B, h, N, N])."""
    logits = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = nn.functional.softmax(logits, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


ATTENTIONS: dict[str, type[PathwayAttention]] = {"full": FullAttention}
