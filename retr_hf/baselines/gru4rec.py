"""GRU4Rec: a recurrent network over the items of a history. A network from item vectors to states, and nothing else.

Hidasi, Karatzoglou, Baltrunas, Tikk, *Session-based Recommendations with Recurrent Neural Networks*, ICLR 2016; Hidasi,
Karatzoglou, CIKM 2018 (GRU4Rec+). Letters: S histories, n columns, d item width, D width of the GRU.

    h_t = GRU(e_t, h_{t-1}),    r_j = (h_t W) · e_j + b_j

The item table e and the bias b are the head's; its objectives "bpr_max", "top1_max", "top1" and "softmax" are the
authors' losses, "bpr" with one negative is RETR's.

Their name -> ours: ``E`` = ``Wy`` ("constrained_embedding", the same table reads and scores) -> the item table, ``By``
-> ``item_bias``, ``layers`` -> ``gru_size``, ``dropout_p_embed``, ``dropout_p_hidden`` -> ``embedding_dropout``,
``hidden_dropout``, ``bpreg`` -> ``bpr_max_regularisation``, ``elu_param`` -> ``bpr_max_elu``, ``n_sample`` ->
``num_negatives``, ``sample_alpha`` -> ``popularity_power``.

NOTE Whole histories with a loss at every step. The authors run many sessions side by side, one event a step, and carry
the hidden state from step to step with its gradient cut off; a history here is short enough to go through whole.
NOTE torch's GRU: against the authors' cell z and 1 - z change places, and the reset gate acts behind U. Another member
of the same family; the authors' own PyTorch version uses torch's cell too.
NOTE W exists where D ≠ d alone (RecBole's dense layer); with D = d the state itself meets the items, as theirs.
NOTE Adam, not Adagrad with momentum: all systems of our tables share one optimiser.
"""

import torch
from torch import nn


class Gru4Rec(nn.Module):
    """Built from a config: ``hidden_size``, ``gru_size`` (None: as wide), ``gru_layers``, ``*_dropout``."""

    def __init__(self, config):
        super().__init__()
        size = config.gru_size or config.hidden_size
        self.embedding_dropout = nn.Dropout(config.embedding_dropout)
        self.gru = nn.GRU(config.hidden_size, size, config.gru_layers, batch_first=True)
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.output = nn.Linear(size, config.hidden_size) if size != config.hidden_size else None

    def forward(self, tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """tokens [S, n, d], valid bool [S, n], padding on the right alone -> states [S, n, d]."""
        states, _ = self.gru(self.embedding_dropout(tokens))  # [S, n, D]; what is on the right is never read
        states = self.hidden_dropout(states)
        return states if self.output is None else self.output(states)
