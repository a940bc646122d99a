"""How many operations the matrix products of a step need, counted for real items: padding is no work that is needed.

Letters: n items of a history, d width, f inner width, h inner width of the router, T text width, E experts, M items
that are scored. A product [a, b] x [b, c] is 2abc operations. What is no product (norms, softmax, dropout, gates,
running means) is left out, so a share of the limit of 100 % cannot be reached.
"""

import numpy as np

from ..model.configuration_retr import RetrConfig

TRAINED = 3  # forward, and the gradients of both factors
TRAINED_INPUT = 2  # text vectors want no gradient


def body_operations(config: RetrConfig, lengths: np.ndarray, last_only: bool = False) -> float:
    """Forward pass over histories of ``lengths`` [S].

        block = Σ_s n_s (8 d² + 4 d f + r) + 4 d n_s²,    r = 4 d h + 4 d h (the router's three MLPs), or 0

    8 d²: W_Q, W_K, W_V, W_O; 4 d f: feed-forward; 4 d n²: Q Kᵀ and its product with V over the whole square, although
    the causal half would do. With ``last_only`` the last block has all keys and values, 4 d² a token, and all else for
    one token a history.
    """
    d, f = config.hidden_size, config.intermediate_size
    h = config.router_hidden_size or max(1, d // 4)
    routing = 8 * d * h if config.router == "pathway" else 0
    n = np.asarray(lengths, dtype=np.float64)
    token = 8 * d * d + 4 * d * f + routing
    block = (n * token + 4 * d * n**2).sum()
    last = (n * 4 * d * d + (token - 4 * d * d) + 4 * d * n).sum() if last_only else block
    return float((config.num_hidden_layers - 1) * block + last)


def adaptor_operations(config: RetrConfig, items: int) -> float:
    """Text vectors of ``items`` to model width, each once: 2 T E d an item; 0 where items are read by id alone."""
    if not config.uses_text:
        return 0.0
    return 2.0 * items * config.text_size * config.num_experts * config.hidden_size


def score_operations(config: RetrConfig, queries: int, items: int) -> float:
    """Scores of ``items`` for each of ``queries``: 2 d each."""
    return 2.0 * config.hidden_size * queries * items
