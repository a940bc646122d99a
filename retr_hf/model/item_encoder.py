"""From a catalogue's text vectors to model space: UniSRec's mixture of whitening experts.

Hou et al., *Towards Universal Sequence Representation Learning for Recommender Systems*, KDD 2022, section 2.2.
Letters: M items, T text width, d model width, E experts.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_retr import RetrConfig
from .dropout import Dropout


class MixtureOfExpertsAdaptor(nn.Module):
    """Item text vectors [M, T] -> item vectors [M, d].

        x           = s t / |t|                                         s: ``text_scale``; zeros stay zeros
        expert_e(x) = (dropout(x) - b_e) W_e                            parametric whitening
        g           = softmax(x W_g + ε ⊙ (softplus(x W_n) + 0.01))     ε ~ N(0, 1), in training only
        out         = Σ_e g_e expert_e(x)

    Their name -> ours: PWLayer.lin -> a block of ``experts``, PWLayer.bias -> ``centers``, w_gate -> ``gate``,
    w_noise -> ``gate_noise``. No top-k, despite the name of the published layer.

    NOTE: one dropout mask serves all experts (theirs draws one each): the experts are then one matrix product, and the
    centres fold into one vector an expert, b_e W_e, because (x - b) W = x W - b W.

    NOTE: the authors take t as it is, BERT's [CLS] vector, which is about 14 long. Sentence encoders and whitening
    leave vectors of length 1: adapted, they would start no longer than the id embeddings they are added to, and move
    less at each step of Adam than those. ``text_scale=None`` is the authors' form.
    """

    def __init__(self, config: RetrConfig):
        super().__init__()
        self.num_experts, self.hidden_size, self.text_scale = config.num_experts, config.hidden_size, config.text_scale
        self.experts = nn.Linear(config.text_size, config.num_experts * config.hidden_size, bias=False)  # W_e stacked
        self.centers = nn.Parameter(torch.zeros(config.num_experts, config.text_size))  # b_e
        self.gate = nn.Linear(config.text_size, config.num_experts, bias=False)  # W_g
        self.gate_noise = nn.Linear(config.text_size, config.num_experts, bias=False)  # W_n
        self.dropout = Dropout(config.adaptor_dropout)

    def forward(self, text_embeddings: torch.Tensor) -> torch.Tensor:
        """text_embeddings [M, T] -> [M, d]."""
        if self.text_scale is not None:
            text_embeddings = self.text_scale * nn.functional.normalize(text_embeddings, dim=-1)
        logits = self.gate(text_embeddings)  # [M, E]
        if self.training:
            scale = nn.functional.softplus(self.gate_noise(text_embeddings)) + 0.01
            logits = logits + torch.randn_like(logits) * scale
        gates = logits.softmax(dim=-1)
        projected = self.experts(self.dropout(text_embeddings))
        projected = projected.unflatten(-1, (self.num_experts, self.hidden_size))  # [M, E, d], x W_e
        # Through the module and not its weight, which an adapter adds to and a quantised layer does not have. Of every
        # centre with every expert, [E, E, d], the diagonal is wanted: as much work as E more items.
        folded = self.experts(self.centers).unflatten(-1, (self.num_experts, self.hidden_size))
        folded = folded.diagonal().T  # b_e W_e, [E, d]
        return torch.einsum("me,med->md", gates, projected) - gates @ folded

    @torch.no_grad()
    def initialize(self):
        """Gates start at zero (all experts equal), as in the authors' code; the experts at ``initializer_range``."""
        init.zeros_(self.gate.weight)
        init.zeros_(self.gate_noise.weight)
        init.zeros_(self.centers)
