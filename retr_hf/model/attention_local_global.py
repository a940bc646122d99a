"""LocalGlobalAttention: some heads look everywhere, the others near by (Locker).

He, Zhao, Lin, Wang, Kale, McAuley, *Locker: Locally Constrained Self-Attentive Sequential Recommendation*, CIKM 2021.
Letters: S sequences, N keys, M queries, d width, h heads (g of them global, l local), w reach, P longest history.
"""

import torch
from torch import nn
from transformers import initialization as init

from .attention import FullAttention, SequenceContext
from .configuration_retr import RetrConfig
from .dropout import dropout


class LocalGlobalAttention(FullAttention):
    """Multi-head attention whose first g heads are ordinary, and whose last l heads prefer what is near.

    With a_tj = q_t k_j / sqrt(d/h) and the distance Δ = t - j ≥ 0, a local head is (``local_type``)

        window    softmax_j of a_tj where Δ ≤ w
        initial   softmax_j of a_tj σ(ρ_Δ / 0.1),  ρ learned, a number a head; it starts as exp(-½ (Δ / ½)²)
        adaptive  softmax_j of a_tj + m·(δ_Δ + v_t + v_j + u_t W_u),  δ and m learned, d/h numbers a head
        conv      ReLU(Σ_{Δ ≤ w} C_Δ v_{t-Δ} + b): no query, no softmax

    ``initial`` and ``adaptive`` add position vectors of their own to the local q and k, in every block. In
    ``adaptive`` m·v_t and m·u_t W_u are the same for all j, so the softmax cancels them: the user term of the released
    code does nothing, and neither term is computed here. Nothing of size [N, N, d/h] is made.

    Their code -> ours: ``win``, ``initial``, ``adapt``, ``conv`` -> ``window``, ``initial``, ``adaptive``, ``conv``
    (their ``rnn``, which reads the items ahead, is left out); local_num_heads -> ``local_heads``; init_val ->
    ``local_window``; abs_pos_emb_query, abs_pos_emb_key -> query_positions, key_positions; rel_pos_score ->
    closeness (ρ); rel_pos_emb -> distances (δ); mlps -> preference (m); convs -> convolution.

    NOTE: the authors' attention is bidirectional; ours is causal, so offsets are distances to the past and the
    convolution has w + 1 taps, v_{t-w} .. v_t, where theirs has 2 w + 1.
    NOTE: their ρ starts with its peak one item ahead, at j = t + 1, an off-by-one; ours starts with it at j = t.
    NOTE: their position vectors are reshaped across heads and places; ours belong to the place they are added at.
    NOTE: they leave positions out of the input of ``initial`` and ``adaptive``; the body's stay, so global heads know
    the order too.
    NOTE: the gate multiplies the complete query of every head, position vector included. The terms of the local heads
    that are no query (ρ, m·δ, m·v_j) stay, and ``conv`` heads have no query: there it reaches the global heads only.
    """

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        heads, longest = config.num_attention_heads, config.max_position_embeddings
        self.local_type, self.reach = config.local_type, config.local_window
        self.local_heads = heads - 1 if config.local_heads is None else config.local_heads
        self.global_heads = heads - self.local_heads
        local_size = self.local_heads * self.head_dim
        if self.local_type == "initial":
            self.closeness = nn.Parameter(torch.empty(longest, self.local_heads))
        elif self.local_type == "adaptive":
            self.distances = nn.Embedding(longest, local_size)
            self.preference = nn.Linear(self.head_dim, self.local_heads, bias=False)
        elif self.local_type == "conv":
            self.q_proj = nn.Linear(config.hidden_size, self.global_heads * self.head_dim)
            self.k_proj = nn.Linear(config.hidden_size, self.global_heads * self.head_dim)
            self.convolution = nn.Conv1d(local_size, local_size, self.reach + 1, groups=self.local_heads)
        self.has_positions = self.local_type in ("initial", "adaptive")
        if self.has_positions:
            self.query_positions = nn.Embedding(longest, local_size)
            self.key_positions = nn.Embedding(longest, local_size)
        self.initialize()

    @torch.no_grad()
    def initialize(self) -> None:
        """ρ: near is more."""
        if self.local_type == "initial":
            distance = torch.arange(len(self.closeness), device=self.closeness.device, dtype=self.closeness.dtype)
            start = torch.exp(-0.5 * (distance / 0.5) ** 2)
            init.copy_(self.closeness, start.unsqueeze(1).expand_as(self.closeness))

    def cut_positions(self, length: int) -> None:
        """Keeps the first ``length`` positions and distances."""
        if self.local_type == "initial":
            self.closeness = nn.Parameter(self.closeness.detach()[:length].clone())
        for name, table in list(self.named_children()):
            if isinstance(table, nn.Embedding):
                setattr(self, name, nn.Embedding.from_pretrained(table.weight.detach()[:length].clone(), freeze=False))

    def project(self, query_tokens, key_tokens, route=None) -> tuple[torch.Tensor, ...]:
        """Q [B, M, d], K and V [B, N, d]; the gate R as one more column of Q where position vectors follow, m·v_j
        [B, N, l] for ``adaptive``, and no local heads in Q and K for ``conv``."""
        query, *keys = super().project(query_tokens, key_tokens, route)
        if self.has_positions:
            gate = torch.ones_like(query[..., :1]) if route is None else route.unsqueeze(-1).to(query.dtype)
            query = torch.cat([query, gate], -1)
        if self.local_type == "adaptive":
            keys.append(self._prefer(self._local(keys[1])))
        return query, *keys

    def mix(self, query, key, value, value_bias=None, *, context: SequenceContext, **kwargs):
        """query [S, M, d] or [S, M, d + 1], key and value [S, N, d], value_bias [S, N, l] -> ([S, M, d], weights, {}).

        weights are [S, h, M, N], or [S, g, M, N] for ``conv``.
        """

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [S, h, N, d/h]

        asking, answering, sees = _places(context, query.shape[1])
        distance = asking.unsqueeze(2) - answering.unsqueeze(1)  # Δ [S or 1, M, N]
        if self.has_positions:
            query, gate = query[..., :-1], query[..., -1:]
            query = self._add_local(query, gate * self.query_positions(asking))
            key = self._add_local(key, self.key_positions(answering))
        logits = heads(query * self.scaling) @ heads(key).mT
        visible, bias = sees.unsqueeze(1), logits.new_zeros(())
        if self.local_type == "window":
            near = visible & (distance <= self.reach).unsqueeze(1)
            everywhere = visible.expand(-1, self.global_heads, -1, -1)
            visible = torch.cat([everywhere, near.expand(-1, self.local_heads, -1, -1)], 1)
        elif self.local_type == "initial":
            factor = _look_up((self.closeness / 0.1).sigmoid(), distance)
            logits = logits * self._beside_global(factor, 1.0)
        elif self.local_type == "adaptive":
            table = self._prefer(self.distances.weight)  # m·δ [P, l]
            bias = self._beside_global(_look_up(table, distance) + value_bias.mT.unsqueeze(2), 0.0)
        precise = torch.promote_types(logits.dtype, torch.float32)
        floor = torch.zeros_like(visible, dtype=precise).masked_fill(~visible, torch.finfo(precise).min)
        weights = (logits + bias + floor).softmax(-1).to(value.dtype)
        weights = dropout(weights, self.config.attention_dropout, self.training)
        if self.local_type != "conv":
            return (weights @ heads(value)).transpose(1, 2).flatten(2), weights, {}
        seen = (weights @ heads(value[..., : key.shape[-1]])).transpose(1, 2).flatten(2)
        return torch.cat([seen, self._convolve(self._local(value), distance, sees)], -1), weights, {}

    def _local(self, states: torch.Tensor) -> torch.Tensor:
        """The part [..., l d/h] of [..., d] that is the local heads'."""
        return states[..., self.global_heads * self.head_dim :]

    def _add_local(self, states: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        return states + nn.functional.pad(vectors, (self.global_heads * self.head_dim, 0))

    def _beside_global(self, local: torch.Tensor, neutral: float) -> torch.Tensor:
        """[·, l, M, N] -> [·, h, M, N], ``neutral`` for the global heads."""
        return nn.functional.pad(local, (0, 0, 0, 0, self.global_heads, 0), value=neutral)

    def _prefer(self, states: torch.Tensor) -> torch.Tensor:
        """m·x of each local head: [..., l d/h] -> [..., l]."""
        return (states.unflatten(-1, (self.local_heads, -1)) * self.preference.weight).sum(-1)

    def _convolve(self, value: torch.Tensor, distance: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
        """value [S, N, l d/h] -> [S, M, l d/h]; what lies before a sequence counts as zeros."""
        shifts = torch.arange(self.reach, -1, -1, device=value.device).unsqueeze(1)
        picks = (distance.unsqueeze(2) == shifts) & sees.unsqueeze(2)  # [S or 1, M, w + 1, N]
        taps = picks.to(value.dtype).flatten(1, 2) @ value  # a product with zeros and ones: v_{t-w} .. v_t
        taps = taps.unflatten(1, (-1, self.reach + 1))  # [S, M, w + 1, l d/h]
        return self.convolution(taps.flatten(0, 1).mT).relu().view(*taps.shape[:2], -1)


def _places(context: SequenceContext, queries: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places of the asking [S or 1, M] and the answering tokens [S or 1, N], and who sees whom [S or 1, M, N]."""
    if context.attention_mask is None and not context.layout.packed:
        # Plain causal: padding is on the right, so a token's column is its place, in every row.
        steps = torch.arange(queries, device=context.layout.valid.device).unsqueeze(0)
        return steps, steps, steps <= steps.mT.unsqueeze(0)
    asking, answering = (places.clamp(min=0) for places in context.ranks(queries))  # padding: any place
    return asking, answering, context.sees(queries)


def _look_up(table: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """table [P, l] at distances [S or 1, M, N] -> [S or 1, l, M, N]; what is unseen reads any row."""
    return nn.functional.embedding(distance.clamp(0, len(table) - 1), table).permute(0, 3, 1, 2)
