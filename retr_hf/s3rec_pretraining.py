"""S3-Rec's pre-training: RETR's body, bidirectional, under the four objectives of baselines/s3rec.py.

What comes of it is an ordinary model of item ids, causal, that scripts/finetune.py starts from: S3-Rec is SASRec with
other first weights. Nothing but [mask] and the objectives' own weights is left behind.
"""

from dataclasses import dataclass, fields

import torch
from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils import ModelOutput

from .baseline_models import BaselineConfig
from .baselines.s3rec import S3RecObjectives
from .model.body_retr import RetrModel, RetrPreTrainedModel
from .model.cloze import MASK
from .model.configuration_retr import RetrConfig
from .model.modeling_retr import RetrForSequentialRecommendation
from .model_section import RETR_KEYS
from .training.settings_s3rec import S3REC_SETTINGS


@strict
class S3RecConfig(BaselineConfig):
    """RETR's body and the objectives of ``baselines.s3rec``; the defaults are the authors'.

    num_attributes: attributes A of the domain's items (stamped by training); 0 leaves AAP and MAP out.
    hidden_share: of the items hidden for AAP, MIP and MAP. aap_weight, mip_weight, map_weight, sp_weight: of the terms.
    """

    model_type = "s3rec"

    num_attributes: int = 0
    hidden_share: float | int = 0.2
    aap_weight: float | int = 0.2
    mip_weight: float | int = 1.0
    map_weight: float | int = 1.0
    sp_weight: float | int = 0.5
    direction: str = "bidirectional"
    item_features: str = "id"
    score: str = "dot"
    router: str = "none"
    router_context: str = "global"

    def validate_architecture(self):
        """See the base; pre-training hides items, so its body is bidirectional and reads ids."""
        if self.direction != "bidirectional" or self.item_features != "id":
            raise ValueError('S3-Rec is pre-trained with direction="bidirectional" and item_features="id"')
        if not 0 <= self.hidden_share < 1:
            raise ValueError(f"hidden_share={self.hidden_share}: expected a share in [0, 1)")
        super().validate_architecture()


BODY = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout",
        "attention_dropout", "input_norm", "positions_from", "initializer_range")  # fmt: skip
OWN = ("hidden_share", "aap_weight", "mip_weight", "map_weight", "sp_weight")
ROUTER = tuple(key for key in RETR_KEYS if key.startswith(("router", "gumbel", "omega", "hierarchical")))
S3REC_SCHEMA = {**S3REC_SETTINGS, "model": (S3RecConfig, (*BODY, *OWN, *ROUTER))}


@dataclass
class S3RecOutput(ModelOutput):
    """loss: scalar. terms: name -> the sum of each objective before its weight, without gradient."""

    loss: torch.FloatTensor | None = None
    terms: dict[str, torch.FloatTensor] | None = None


class S3RecForPreTraining(RetrPreTrainedModel):
    """The body and the four objectives."""

    config: S3RecConfig

    def __init__(self, config: S3RecConfig):
        super().__init__(config)
        self.model = RetrModel(config)
        self.objectives = S3RecObjectives(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        item_ids: torch.LongTensor,
        negative_ids: torch.LongTensor,
        hidden_segment_ids: torch.LongTensor,
        segment_ids: torch.LongTensor,
        other_segment_ids: torch.LongTensor,
        sequence_ends: torch.LongTensor,
        length_groups: tuple[tuple[int, int], ...] | None = None,
        position_ids: torch.LongTensor | None = None,
        item_attributes: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
    ) -> S3RecOutput:
        """The weighted sum of the objectives over the histories of the global batch.

        input_ids ... position_ids: what ``data.s3rec.S3RecCollator`` makes.
        item_attributes: bool [num_items + 1, A].
        num_items_in_batch: histories of the global batch; None means those of this call.
        """
        table, objectives = self.model.encode_items(), self.objectives

        def read(ids, **ends):
            outputs = self.model(
                ids, attention_mask, position_ids, item_embeddings=table, length_groups=length_groups, **ends
            ).last_hidden_state
            return outputs.flatten(0, 1)

        states, flat = read(input_ids), input_ids.flatten()
        hidden = (flat == MASK).nonzero().squeeze(1)
        items, others = (ids.flatten()[hidden] for ids in (item_ids, negative_ids))
        at_hidden = states.index_select(0, hidden)
        terms = {"mip": objectives.contrast("mip", at_hidden, table[items], table[others])}
        if objectives.attributes is not None:
            shown = ((flat != MASK) & attention_mask.flatten().bool()).nonzero().squeeze(1)
            of_shown = item_attributes[flat[shown]]
            terms["aap"] = objectives.attribute_loss("aap", states.index_select(0, shown), of_shown)
            terms["map"] = objectives.attribute_loss("map", at_hidden, item_attributes[items])
        last = [read(ids, sequence_ends=sequence_ends) for ids in (hidden_segment_ids, segment_ids, other_segment_ids)]
        terms["sp"] = objectives.contrast("sp", *last)
        count = len(sequence_ends) if num_items_in_batch is None else num_items_in_batch
        loss = sum(objectives.weights[name] * term for name, term in terms.items()) / count
        return S3RecOutput(loss=loss, terms={name: term.detach() for name, term in terms.items()})

    def recommender(self) -> RetrForSequentialRecommendation:
        """The body as one that learns next items: causal, with a causal router, its weights these."""
        names = {field.name for field in fields(RetrConfig)} - {field.name for field in fields(PreTrainedConfig)}
        values = {name: getattr(self.config, name) for name in names}
        head = RetrForSequentialRecommendation(
            RetrConfig(**values | {"direction": "causal", "router_context": "causal", "objective": "bce"})
        )
        body = {name: weight for name, weight in self.model.state_dict().items() if not name.startswith("embed_mask.")}
        head.model.load_state_dict(body)
        return head
