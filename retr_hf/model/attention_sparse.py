"""Sparse attentions: full attention in which a token sees a fixed few of the places before it (boolean patterns).

Letters: t and j places of the asking and the answering token in their own history, from 0; N the longest history.
"""

import math
from dataclasses import replace

import torch

from .attention import FullAttention, SequenceContext


class SparseAttention(FullAttention):
    """Base: full attention under ``context.sees`` and a pattern of places, whichever side the padding is on.

        head_m = softmax(Q K^T / sqrt(d/h) where j ≤ t and pattern(t, j), else -∞) V,    Q = (R ⊙ Z) W_Q

    Every pattern holds j = t, so no row is empty; at R = 0 a token gets the mean of the values its pattern shows.

    NOTE: a mask in a dense kernel, O(N²): it shows what the patterns learn, and not the memory they would save.
    """

    def pattern(self, t: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Places that broadcast, int64 -> bool: whether t sees j, given that j ≤ t."""
        raise NotImplementedError

    def mix(self, query, key, value, context: SequenceContext, **kwargs):
        """query [S, M, d], key and value [S, N, d] -> ([S, M, d], weights or None, {}).

        Raises:
            ValueError: a kernel that takes no boolean mask.
        """
        if (kernel := self.config._attn_implementation) not in ("sdpa", "eager"):
            raise ValueError(f"attention={self.config.attention!r} is a mask, which {kernel!r} does not take: use sdpa")
        t, j = context.ranks(query.shape[1])
        mask = context.sees(query.shape[1]) & self.pattern(t.unsqueeze(2), j.unsqueeze(1))  # [S, M, N]
        return super().mix(query, key, value, replace(context, attention_mask=mask.unsqueeze(1)), **kwargs)


class LogSparseAttention(SparseAttention):
    """LogSparse: exponentially rarer places into the past (``log_sparse_window`` = L_sub; None is the plain variant).

    Li, Jin, Xuan, Zhou, Chen, Wang, Yan, *Enhancing the Locality and Breaking the Memory Bottleneck of Transformer on
    Time Series Forecasting*, NeurIPS 2019.

        plain   t - j ∈ {0} ∪ {2^a}
        L_sub   (t - j) mod L_sub ∈ {0, …, b-1} ∪ {b-1 + 2^a},    b = ⌈log2 L_sub⌉,  a = 0, 1, …

    The second is the paper's local attention with restarts: b neighbours, then rarer ones up to the distance L_sub, and
    the same again from there. Share of the causal triangle that is seen: plain 0.133 at N = 100 and 0.077 at N = 200.

    NOTE: two blocks of the plain variant reach 29 of 100 places; the paper asks for ⌊log2 N⌋ + 1 blocks.
    NOTE: in a widely copied implementation all rows t < ⌊N / L_sub⌋ 2b are dense, which at L_sub = 16, N = 100 makes
    0.631 of the triangle where the rule makes 0.533, and each restart at the border drops a place. Neither here.
    NOTE: queries and keys come from single tokens, a convolution of width c = 1; the paper's is wider.
    """

    def pattern(self, t: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """See the class."""
        distance, window = t - j, self.config.log_sparse_window
        if window is None:
            return _is_zero_or_power_of_two(distance)
        neighbours = max(1, math.ceil(math.log2(window)))  # b
        beyond = distance % window - (neighbours - 1)
        return (beyond <= 0) | _is_zero_or_power_of_two(beyond)


class StridedAttention(SparseAttention):
    """Sparse Transformer: what is near, and summaries of what is far (``sparse_pattern``, ``sparse_stride`` = s).

    Child, Gray, Radford, Sutskever, *Generating Long Sequences with Sparse Transformers*, arXiv:1904.10509, 2019.

        strided  t - j < s          or  (t - j) mod s = 0
        fixed    ⌊j/s⌋ = ⌊t/s⌋      or  j mod s ≥ s - c,    c = ``sparse_summary``

    Two blocks connect every place with every later one. s is ⌈√N⌉ by default, N = ``max_position_embeddings``.

    NOTE: each head sees the union of the two sets; the authors also give them to different heads or blocks.
    NOTE: hidden logits are lost to the lowest float, not the authors' -1e9.
    NOTE: places count from the start of a history, so "fixed" means the same wherever the padding is.
    """

    def pattern(self, t: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """See the class."""
        # Read here and not kept: a head may shorten its positions after it is built.
        stride = self.config.sparse_stride or math.isqrt(self.config.max_position_embeddings - 1) + 1  # ⌈√N⌉
        if self.config.sparse_pattern == "strided":
            return (t - j < stride) | ((t - j) % stride == 0)
        return (t // stride == j // stride) | (j % stride >= stride - self.config.sparse_summary)


def _is_zero_or_power_of_two(x: torch.Tensor) -> torch.Tensor:
    return x & (x - 1) == 0
