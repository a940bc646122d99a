"""S3-Rec: four objectives that a body is pre-trained with on one domain, before it learns next items as SASRec does.

Zhou, Wang, Zhao, Zhu, Wang, Zhang, Wang, Wen, *S³-Rec: Self-Supervised Learning for Sequential Recommendation with
Mutual Information Maximization*, CIKM 2020. Letters: T places of histories, S histories, d width, A attributes; F_t the
output of a bidirectional body at a place, e an item's vector, E_A the attributes' vectors, a(i) those of an item.

    AAP  at places not hidden:  BCE( σ(E_A (F_t W_aap)^T), a(i_t) ), summed over all A attributes             weight 0.2
    MIP  at hidden places:      -log σ( σ(f⁺) - σ(f⁻) ),  f = (F_t W_mip) · e                                 weight 1.0
    MAP  as AAP, at hidden places: the attributes of the item that is hidden                                  weight 1.0
    SP   -log σ( σ((C W_sp) · S⁺) - σ((C W_sp) · S⁻) )                                                        weight 0.5

where C is the output at the last place of a history with a segment hidden, S⁺ of that segment in its place with the
rest hidden, S⁻ of another run of items there.

Their name -> ours: ``aap_norm``, ``mip_norm``, ``map_norm``, ``sp_norm`` -> the ``linear`` of each.

NOTE The sigmoid within the sigmoid is the authors': a term of MIP or SP lies in [0.3133, 1.3133], never below.
NOTE The paper states AAP on the item's own vector; the authors' code, as ours, reads the body's output.
NOTE Sums over places, divided by the number of histories; the authors divide by nothing. To Adam it is the same.
"""

import torch
from torch import nn
from torch.nn import functional as F


class S3RecObjectives(nn.Module):
    """The weights of the four objectives: attribute vectors [A, d] and a linear map for each.

    Built from a config: ``hidden_size``, ``num_attributes`` (0: MIP and SP alone) and the four ``*_weight``.
    """

    def __init__(self, config):
        super().__init__()
        weights = {"aap": config.aap_weight, "map": config.map_weight} if config.num_attributes else {}
        self.weights = weights | {"mip": config.mip_weight, "sp": config.sp_weight}
        self.linear = nn.ModuleDict({name: nn.Linear(config.hidden_size, config.hidden_size) for name in self.weights})
        self.attributes = nn.Embedding(config.num_attributes, config.hidden_size) if config.num_attributes else None

    def attribute_loss(self, name: str, states: torch.Tensor, has: torch.Tensor) -> torch.Tensor:
        """AAP or MAP of states [T, d] and what their items have, bool [T, A]: the sum over places and attributes."""
        logits = self.linear[name](states) @ self.attributes.weight.T
        return F.binary_cross_entropy_with_logits(logits.float(), has.float(), reduction="sum")

    def contrast(self, name: str, states: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """MIP or SP of states, own and other vectors [T, d]: the sum."""
        mapped = self.linear[name](states)
        positive, negative = ((mapped * vectors).sum(-1).float().sigmoid() for vectors in (own, other))
        return -F.logsigmoid(positive - negative).sum()
