"""SINE: a few of many interests, one vector of them for a whole history. A network from item vectors to states.

Tan, Zhang, Yao, Liu, Zhou, Yang, Hu, *Sparse-Interest Network for Sequential Recommendation*, WSDM 2021. Letters: S
histories, n columns, d width, P prototypes C ∈ R^{P×d}, k of them active; x_t the items of a history.

    a = softmax_t(tanh(X W_1) w_2),   z = a^T X                              summary
    s = C z,   J = the k largest,   C_u = C[J] ⊙ σ(s[J])                     active prototypes, k × d
    P_{k|t} = softmax_k( norm(x_t W_3) · LN(C_u) ),   P_{t|k} = softmax_t( tanh(X W_{k,1}) w_{k,2} )
    φ_k = norm( Σ_t P_{k|t} P_{t|k} x_t )                                    interests
    x̂_t = P_{·|t} C_u,   c = LN( Σ_t softmax_t(tanh(x̂_t W_3) w_4) x̂_t )      intention
    v = Σ_k softmax_k( φ_k · c / τ ) φ_k,   score of item i = v · e_i

and a penalty on prototypes that resemble each other, ρ ½ (‖M‖² - ‖diag M‖²), M = (C - C̄)(C - C̄)^T / d.

The authors' code was not at hand: equations and names are RecBole's. Theirs -> ours: ``prototype_size`` ->
``num_prototypes``, ``interest_size`` -> ``num_interests``, ``tau_ratio`` -> ``interest_temperature``, ``reg_ratio`` ->
``prototype_penalty``.

NOTE The order of a history means nothing to it; v reads all of it, so each prefix is an example (``every_step=False``).
NOTE Every softmax over t leaves padding out; RecBole masks none, so its v depends on how much padding there is.
NOTE The penalty is in every loss; in RecBole it acts under one of two loss types, which is not the default.
"""

import torch
from torch import nn


class Sine(nn.Module):
    """Built from a config: its ``hidden_size`` and ``hidden_dropout``, and the fields named above."""

    def __init__(self, config):
        super().__init__()
        d, k = config.hidden_size, config.num_interests
        self.interests, self.temperature, self.rho = k, config.interest_temperature, config.prototype_penalty
        self.prototypes = nn.Embedding(config.num_prototypes, d)  # C
        self.summary, self.summary_weight = nn.Linear(d, d, bias=False), nn.Linear(d, 1, bias=False)  # W_1, w_2
        self.assign = nn.Linear(d, d, bias=False)  # W_3
        self.position, self.position_weight = nn.Linear(d, k * d, bias=False), nn.Linear(d, k, bias=False)  # W_k1, w_k2
        self.intention_weight = nn.Linear(d, 1, bias=False)  # w_4
        self.prototype_norm, self.intention_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """tokens [S, n, d], valid bool [S, n] -> v of each history, at all its places: [S, n, d]."""
        x, d = self.dropout(tokens), tokens.shape[-1]
        a = _over_time(self.summary_weight(self.summary(x).tanh()), valid)  # [S, n, 1]
        z = (a * x).sum(1)  # [S, d]
        s, chosen = (z @ self.prototypes.weight.T).topk(self.interests, dim=-1)  # [S, k]
        active = self.prototypes(chosen) * s.sigmoid().unsqueeze(-1)  # C_u [S, k, d]

        towards = nn.functional.normalize(self.assign(x), dim=-1) @ self.prototype_norm(active).transpose(1, 2)
        of_interest = towards.softmax(-1)  # P_{k|t} [S, n, k]
        inner = self.position(x).tanh().unflatten(-1, (self.interests, d))  # [S, n, k, d]
        of_time = _over_time((inner * self.position_weight.weight).sum(-1), valid)  # P_{t|k} [S, n, k]
        interests = nn.functional.normalize((of_interest * of_time).transpose(1, 2) @ x, dim=-1)  # φ [S, k, d]

        concepts = of_interest @ active  # x̂ [S, n, d]
        weights = _over_time(self.intention_weight(self.assign(concepts).tanh()), valid)
        intention = self.intention_norm((weights * concepts).sum(1))  # c [S, d]
        share = ((interests @ intention.unsqueeze(-1)) / self.temperature).softmax(1)  # [S, k, 1]
        return (share * interests).sum(1, keepdim=True).expand_as(tokens)

    def penalty(self) -> torch.Tensor:
        """ρ ½ (‖M‖² - ‖diag M‖²)."""
        c = self.prototypes.weight - self.prototypes.weight.mean(1, keepdim=True)
        m = c @ c.T / c.shape[1]
        return self.rho * 0.5 * (m.square().sum() - m.diagonal().square().sum())


def _over_time(logits: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Softmax over the real places: logits [S, n, ·], valid [S, n]."""
    return logits.masked_fill(~valid.unsqueeze(-1), torch.finfo(logits.dtype).min).softmax(1)
