"""What the body and the heads return.

Axis letters: B rows of a batch, N length, d width, M rows of an item table.
"""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class RetrModelOutput(ModelOutput):
    """Output of the body.

    last_hidden_state: [B, N, d].
    hidden_states, attentions: tuples over blocks, on request.
    routes, keep_probabilities, omegas: tuples over blocks of [B, N], with ``output_routes=True``: the hard route R, the
        probability α of being kept, the weight ω of the adaptive relaxation.
    auxiliary_loss: scalar, the attentions' own loss terms (None where they have none).
    item_embeddings: the encoded item table, as it came or [M, d].
    position_ids: [B, N], the place of each item in its own history, from 0.
    """

    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    routes: tuple[torch.FloatTensor, ...] | None = None
    keep_probabilities: tuple[torch.FloatTensor, ...] | None = None
    omegas: tuple[torch.FloatTensor, ...] | None = None
    auxiliary_loss: torch.FloatTensor | None = None
    item_embeddings: torch.FloatTensor | None = None
    position_ids: torch.LongTensor | None = None


@dataclass
class RetrOutput(ModelOutput):
    """Output of both heads; the fields of ``RetrModelOutput`` behind ``loss`` and ``logits``.

    loss: scalar, given ``labels``.
    data_loss: the same without the attentions' own terms.
    logits: [B, M] scores of the item table after the last item of each row, padding row at -inf. Left out (None) in
        training, where the loss reads other positions, of rows that hold several histories (``encode_users`` with
        ``sequence_ends`` reads those), and by the pre-training head.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    routes: tuple[torch.FloatTensor, ...] | None = None
    keep_probabilities: tuple[torch.FloatTensor, ...] | None = None
    omegas: tuple[torch.FloatTensor, ...] | None = None
    item_embeddings: torch.FloatTensor | None = None
    data_loss: torch.FloatTensor | None = None
