"""LowRankAttention: every token asks a few interests in place of every key (LightSANs).

Fan, Liu, Lian, Zhao, Xie, Wen, *Lighter and Better: Low-Rank Decomposed Self-Attention Networks for Next-Item
Recommendation*, SIGIR 2021. Letters: S sequences, N keys, M queries, d width, h heads, k interests.
"""

import torch
from torch import nn

from .attention import FullAttention, SequenceContext
from .configuration_retr import RetrConfig
from .dropout import dropout


class LowRankAttention(FullAttention):
    """Attention to k summaries of what a token sees, and beside it attention by position alone.

        D_K = softmax_{j ≤ t}(K Θ_K),  K̃_t = D_K^T K          keys summed up in k interests; Ṽ_t likewise, with Θ_V
        O_item,t = softmax_interests(q_t K̃_t^T / sqrt(d/h)) Ṽ_t
        A_pos = softmax_{j ≤ t}(P' W_P1 (P' W_P2)^T / (sqrt(2 d/h) sqrt(d/h))),  P' = LN(P);  O_pos = A_pos V
        output = (O_item + O_pos) W_O

    Their code -> ours: query, key, value, dense -> q_proj, k_proj, v_proj, o_proj; attpooling_key.theta,
    attpooling_value.theta -> key_interests, value_interests; pos_ln -> position_norm; pos_q_linear, pos_k_linear ->
    position_q_proj, position_k_proj; k_interests -> ``low_rank_interests``.

    No [N, k, d] is ever made: with A = Q K^T, as full attention has it, O_item = (softmax(A D_K) D_V^T) V. Both D are
    softmaxes of their own row, so a prefix of any length is as stable as its softmax. Quadratic in N, as full
    attention is; running sums would be linear, but take k d numbers a token where this takes h N.

    NOTE: the authors pool over the whole row, padding and future included; ours pools over what each query sees. The
    last row of a history equals theirs on the history without padding.
    NOTE: the paper's softmax over interests; the released code, and RecBole, take it over the queries.
    NOTE: Θ starts as other weights do; N(0, 1), as theirs, makes D near one-hot at width 256.
    NOTE: the position branch has a table of its own, and the body's positions stay in the tokens (the authors add none
    there). The factor of its logits is that of the released code, which divides twice.
    NOTE: the gate multiplies the query of the item branch, whose output becomes the mean of the interests at R = 0. The
    position branch has no query of a token: O_pos stays.
    NOTE: as in their code, dropout falls on the weights of the interests, not on A_pos.
    """

    def __init__(self, config: RetrConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.key_interests = nn.Linear(config.hidden_size, config.low_rank_interests, bias=False)
        self.value_interests = nn.Linear(config.hidden_size, config.low_rank_interests, bias=False)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.position_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.position_q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.position_k_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def cut_positions(self, length: int) -> None:
        """Keeps the first ``length`` positions."""
        kept = self.embed_positions.weight.detach()[:length].clone()
        self.embed_positions = nn.Embedding.from_pretrained(kept, freeze=False)

    def project(self, query_tokens, key_tokens, route=None) -> tuple[torch.Tensor, ...]:
        """Q [B, M, d]; K and V [B, N, d], K Θ_K and V Θ_V [B, N, k]."""
        query, key, value = super().project(query_tokens, key_tokens, route)
        return query, key, value, self.key_interests(key), self.value_interests(value)

    def mix(self, query, key, value, key_interests, value_interests, context: SequenceContext, **kwargs):
        """query [S, M, d], key and value [S, N, d], both interests [S, N, k] -> ([S, M, d], weights, {}).

        weights [S, h, M, N] are those of O_item and of O_pos together: a row sums to 2.
        """

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [S, h, N, d/h]

        sees = context.sees(query.shape[1])  # [S or 1, M, N]
        pools = masked_softmax(torch.cat([key_interests, value_interests], -1).mT.unsqueeze(1), sees.unsqueeze(2))
        key_pool, value_pool = pools.to(value.dtype).chunk(2, dim=2)  # D_K^T, D_V^T [S, M, k, N]
        pairs = (heads(query * self.scaling) @ heads(key).mT).transpose(1, 2)  # A [S, M, h, N]
        interests = (pairs @ key_pool.mT).softmax(-1, dtype=torch.float32).to(value.dtype)  # [S, M, h, k]
        interests = dropout(interests, self.config.attention_dropout, self.training)
        weights = (interests @ value_pool).transpose(1, 2) + self.position_weights(sees, context).to(value.dtype)
        return (weights @ heads(value)).transpose(1, 2).flatten(2), weights, {}

    def position_weights(self, sees: torch.Tensor, context: SequenceContext) -> torch.Tensor:
        """A_pos [S or 1, h, M, N] of the places the tokens have in their own sequences; sees [S or 1, M, N]."""
        longest = min(sees.shape[-1], self.embed_positions.num_embeddings)
        positions = self.position_norm(self.embed_positions.weight[:longest])
        query, key = (
            states.unflatten(-1, (-1, self.head_dim)).transpose(0, 1)  # [h, P, d/h]
            for states in (self.position_q_proj(positions), self.position_k_proj(positions))
        )
        logits = (query * (2**-0.5 * self.scaling**2)) @ key.mT  # [h, P, P]
        if context.attention_mask is None and not context.layout.packed:
            # Plain causal: padding is on the right, a token's column is its place, and all rows share one matrix.
            steps = torch.arange(longest, device=logits.device)
            return masked_softmax(logits, steps <= steps[:, None]).unsqueeze(0)
        asking, answering = (places.clamp(min=0) for places in context.ranks(sees.shape[1]))  # padding: any place
        logits = logits[:, asking[:, :, None], answering[:, None]]  # [h, S, M, N]
        return masked_softmax(logits, sees).transpose(0, 1)


def masked_softmax(logits: torch.Tensor, sees: torch.Tensor) -> torch.Tensor:
    """Softmax of the last axis where ``sees``, at least in float32; where a row sees nothing (padding) it is finite."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    floor = torch.finfo(logits.dtype).min
    return (logits + torch.zeros_like(sees, dtype=logits.dtype).masked_fill(~sees, floor)).softmax(-1)
