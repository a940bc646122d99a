"""The attention slot: one written contract, its base class, and plain full attention (the table is attentions.py).

Contract. An attention is a module built as ``cls(config, layer_idx)`` that owns W_Q, W_K, W_V and W_O and says two
things: what each token brings, and how tokens of one sequence mix.

    query, *keys = attention.project(query_tokens, key_tokens, route)

    query_tokens  [B, M, d]  tokens that ask
    key_tokens    [B, N, d]  tokens that answer
    route         [B, M] in {0, 1} or None
    query, keys   [B, M, ·], [B, N, ·]  token by token: nothing mixes here, so keys may be kept from call to call

    mixed, weights, auxiliary = attention.mix(query, *keys, context, **kwargs)

    query, keys   [S, M, ·], [S, N, ·]  one sequence a row; M = N, or M = 1: one token a sequence asks
    context       SequenceContext of these rows: the mask, and what some attentions need beside the tokens
    mixed         [S, M, d]  before W_O (``o_proj``); dropout, residual and layer norm are the body's
    weights       [S, h, M, N] attention weights, or None where the kernel does not give them
    auxiliary     dict name -> scalar: loss terms of this attention (empty for most); the heads add them up

    terms = attention.block_terms(block_input, block_output, context)

    block_input, block_output  [B, N, d]  what the whole block read and made, in training (ends: [1, S, d])
    terms         dict name -> scalar, as ``auxiliary``: what concerns the block and not the attention alone

The base class calls ``mix`` once a rectangle of the layout (sequence_layout.py), so a tenant never sees more than rows
of sequences, padded on the right at most; only packed rows come with a mask that says what belongs together.

The router enters as ONE line: multiply the complete query vector, bias and query positions included, by R_t before it
meets any key. Keys and values are never gated, and the residual adds the ungated input. What every tenant must fulfil
is in ``tests/model/test_contract.py``: causality, padding, R = 0, R = 1, prefix equality, finite gradients.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_retr import RetrConfig
from .dropout import dropout as cheap_dropout
from .sequence_layout import SequenceLayout


@dataclass
class SequenceContext:
    """What an attention may know about the rows beside their tokens.

    layout: SequenceLayout, the real tokens and where sequences lie.
    attention_mask: bool [S or 1, 1, M, N], True where a query sees a key, or one made by transformers for the chosen
        kernel; None means plain causal.
    ends: ascending flat place [S] of the one token a sequence that asks; None means all ask.
    times: int64 [B, N] seconds, or None.
    marks: [B, N] event types, or None.
    direction: "causal", or "bidirectional": all real tokens of a sequence see one another.
    """

    layout: SequenceLayout
    attention_mask: torch.Tensor | None = None
    ends: torch.Tensor | None = None
    times: torch.Tensor | None = None
    marks: torch.Tensor | None = None
    direction: str = "causal"

    def sees(self, queries: int) -> torch.Tensor:
        """What each of M = ``queries`` tokens a row may look at: bool [S or 1, M, N], whatever the kernel's mask is."""
        if queries == self.layout.valid.shape[1]:
            return self.layout.visible("causal")[0]
        return self.attention_mask.squeeze(1)

    def ranks(self, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Place in its own sequence, from 0, of each asking and each answering token: int64 [S, M], [S, N]."""
        keys = self.layout.ranks() - 1
        return keys if queries == keys.shape[1] else self.sees(queries).sum(-1) - 1, keys

    def rectangles(self) -> list["SequenceContext"]:
        """The context of each rectangle of the layout."""
        if self.layout.groups is None and self.ends is None:
            return [self]
        valid = self.layout.rectangles(self.layout.valid)
        times = [None] * len(valid) if self.times is None else self.layout.rectangles(self.times)
        marks = [None] * len(valid) if self.marks is None else self.layout.rectangles(self.marks)
        masks = [None] * len(valid)
        if self.direction == "bidirectional":
            masks = [mask.unsqueeze(1) for mask in self.layout.visible("global", self.ends)]
        elif self.ends is not None:
            masks = [mask.unsqueeze(1) for mask in self.layout.visible("causal", self.ends)]
        return [
            replace(self, layout=SequenceLayout(valid[nth]), attention_mask=masks[nth], ends=None, times=times[nth],
                    marks=marks[nth])
            for nth in range(len(valid))
        ]  # fmt: skip


class PathwayAttention(nn.Module):
    """Base of every tenant of the slot; see the contract above."""

    is_causal = True
    reads: tuple[str, ...] = ()  # what ``mix`` needs of the context beside layout and mask: "times", "marks"
    differentiates_block = False  # whether ``block_terms`` takes the block's derivative: training needs a second
    packs = True  # whether ``mix`` takes packed rows, whose ``sees`` says what belongs together

    def project(self, query_tokens, key_tokens, route=None) -> tuple[torch.Tensor, ...]:
        """Token by token; see the contract."""
        raise NotImplementedError

    def mix(self, query, *keys, context: SequenceContext, **kwargs):
        """Sequence by sequence; see the contract."""
        raise NotImplementedError

    def block_terms(self, block_input, block_output, context: SequenceContext) -> dict[str, torch.Tensor]:
        """Loss terms of the whole block around this attention, in training; see the contract."""
        return {}

    def initialize(self) -> None:
        """Starts the weights that are no module's own."""

    def forward(
        self,
        query_tokens: torch.Tensor,
        key_tokens: torch.Tensor,
        context: SequenceContext,
        route: torch.Tensor | None = None,
        **kwargs,
    ) -> tuple[torch.Tensor, torch.Tensor | None, dict[str, torch.Tensor]]:
        """Rows [B, N, d] of any layout -> (output of their shape, weights, auxiliary).

        With ``context.ends`` query_tokens are those tokens [1, S, d]. Weights come for one rectangle only.
        """
        layout = context.layout
        if layout.packed and not self.packs:
            raise ValueError(
                f'attention="{self.config.attention}" does not read several histories packed into a row: set '
                "training.layout=grouped (or padded)"
            )
        query, *keys = self.project(query_tokens, key_tokens, route)
        queries = layout.rectangles(query) if context.ends is None else layout.askers(query)
        mixed, auxiliary = [], {}
        for own_query, *own_keys, own_context in zip(
            queries, *(layout.rectangles(key) for key in keys), context.rectangles(), strict=True
        ):
            states, weights, terms = self.mix(own_query, *own_keys, context=own_context, **kwargs)
            mixed.append(states)
            auxiliary |= {name: auxiliary.get(name, 0) + term for name, term in terms.items()}
        output = self.o_proj(layout.join(mixed, query_tokens.shape))
        return output, weights if len(mixed) == 1 else None, auxiliary


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

    def project(self, query_tokens, key_tokens, route=None) -> tuple[torch.Tensor, ...]:
        """Q [B, M, d], K and V [B, N, d]."""
        query = self.q_proj(query_tokens)
        if route is not None:
            query = query * route.unsqueeze(-1).to(query.dtype)  # (7), the only place the route enters
        return query, self.k_proj(key_tokens), self.v_proj(key_tokens)

    def mix(self, query, key, value, context: SequenceContext, **kwargs):
        """query [S, M, d], key and value [S, N, d] -> ([S, M, d], weights or None, {})."""

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [S, h, N, d/h]

        dropout = self.config.attention_dropout if self.training else 0.0
        kernel = self.config._attn_implementation
        if kernel == "sdpa" and dropout and query.device.type == "cpu" and not torch.compiler.is_compiling():
            kernel = "eager"  # torch's own would leave its fast path for dropout, and draw it slowly
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention)
        output, weights = attend(
            self,
            heads(query),
            heads(key),
            heads(value),
            context.attention_mask,
            dropout=dropout,
            scaling=self.scaling,
            **kwargs,
        )
        return output.flatten(2), weights, {}


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, links=None, **kwargs):
    """Plain softmax attention; query [B, h, M, d/h], key, value [B, h, N, d/h] -> ([B, M, h, d/h], weights).

    attention_mask: bool (True sees) or additive, [B or 1, 1, M, N]; None means causal, M = N.
    links: factors of the weights, [B or 1, 1, M, N], after softmax and dropout; None means 1.
    """
    logits = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is None:
        length = query.shape[-2]
        attention_mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    if attention_mask.dtype == torch.bool:
        # The lowest number and not -inf: a row that sees nothing (padding) becomes uniform and not NaN.
        floor = torch.finfo(logits.dtype).min
        attention_mask = torch.zeros_like(attention_mask, dtype=logits.dtype).masked_fill(~attention_mask, floor)
    weights = nn.functional.softmax(logits + attention_mask, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = cheap_dropout(weights, dropout, module.training)
    if links is not None:
        weights = weights * links
    return (weights @ value).transpose(1, 2), weights
