"""The baselines as models: a paper's network (retr_hf/baselines) between our item table and our head.

A network maps item vectors [S, n, d] and ``valid`` [S, n] (histories padded on the right) to states [S, n, d]. Here it
gets what every system has: the item table, layouts, the score, the objectives, saving, transformers' Auto classes. So
training, ranking and serving treat it as any other model; what it cannot do (routes, packed rows) it says.
"""

from collections.abc import Sequence

import torch
from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoProcessor
from transformers.configuration_utils import PreTrainedConfig

from .baselines.caser import Caser
from .baselines.gru4rec import Gru4Rec
from .baselines.sine import Sine
from .model.body_retr import RetrModelOutput, RetrPreTrainedModel
from .model.configuration_retr import RetrConfig
from .model.item_reader import ItemReader
from .model.modeling_retr import RetrForSequentialRecommendation
from .model.processing_retr import RetrProcessor
from .model.sequence_layout import SequenceLayout


class BaselineConfig(RetrConfig):
    """What the configs of the baselines share: the item, objective and score fields of ``RetrConfig`` hold, those of
    its body do not. The folder of such a model needs this package; no code travels with it."""

    positive = ()  # own fields that are at least 1 (or None)
    probabilities = ()  # own fields in [0, 1)

    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        """Writes config.json."""
        PreTrainedConfig.save_pretrained(self, save_directory, push_to_hub=push_to_hub, **kwargs)

    def validate_architecture(self):
        """Those of ``RetrConfig``, and the ranges of the own fields."""
        problems = [
            f"{name}={getattr(self, name)}: expected at least 1"
            for name in self.positive
            if getattr(self, name) is not None and getattr(self, name) < 1
        ]
        problems += [
            f"{name}={getattr(self, name)}: expected a probability in [0, 1)"
            for name in self.probabilities
            if not 0 <= getattr(self, name) < 1
        ]
        if problems:
            raise ValueError("; ".join(problems))
        super().validate_architecture()


@strict
class Gru4RecConfig(BaselineConfig):
    """GRU4Rec (``baselines.gru4rec``).

    gru_size, gru_layers: width (None: ``hidden_size``) and number of recurrent layers.
    embedding_dropout: on the item vectors that go in; ``hidden_dropout`` on the states that come out.
    """

    model_type = "gru4rec"
    positive = ("gru_size", "gru_layers")
    probabilities = ("embedding_dropout",)

    gru_size: int | None = None
    gru_layers: int = 1
    embedding_dropout: float | int = 0.0
    router: str = "none"


@strict
class CaserConfig(BaselineConfig):
    """Caser (``baselines.caser``); the defaults are the authors'.

    caser_length: items L of the image. horizontal_filters, vertical_filters: n_h of each height, and n_v.
    """

    model_type = "caser"
    positive = ("caser_length", "horizontal_filters", "vertical_filters")

    caser_length: int = 5
    horizontal_filters: int = 16
    vertical_filters: int = 4
    router: str = "none"


@strict
class SineConfig(BaselineConfig):
    """SINE (``baselines.sine``); the defaults are RecBole's.

    num_prototypes, num_interests: prototypes P, and how many of them, k, are active for a history.
    interest_temperature: τ. prototype_penalty: the weight ρ of what keeps prototypes apart.
    """

    model_type = "sine"
    positive = ("num_prototypes", "num_interests")

    num_prototypes: int = 50
    num_interests: int = 3
    interest_temperature: float | int = 0.1
    prototype_penalty: float | int = 0.5
    every_step: bool = False
    router: str = "none"

    def validate_architecture(self):
        """See the base; every prefix is an example, and there are prototypes enough."""
        if self.every_step:
            raise ValueError("every_step=True: SINE reads a history whole, so each prefix is an example; leave it out")
        if self.num_interests > self.num_prototypes:
            raise ValueError(f"num_interests={self.num_interests}: there are num_prototypes={self.num_prototypes}")
        if self.interest_temperature <= 0 or self.prototype_penalty < 0:
            raise ValueError("expected interest_temperature above 0 and prototype_penalty of at least 0")
        super().validate_architecture()


class BaselineModel(ItemReader, RetrPreTrainedModel):
    """A body: item table -> tokens -> a paper's network. Takes and returns what ``RetrModel`` does."""

    network_class: type[torch.nn.Module]
    reads = ()  # items alone

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        self.build_items(config)
        self.network = self.network_class(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        text_embeddings: torch.FloatTensor | None = None,
        table_item_ids: torch.LongTensor | None = None,
        item_embeddings: torch.FloatTensor | None = None,
        length_groups: Sequence[tuple[int, int]] | None = None,
        sequence_ends: torch.LongTensor | None = None,
        **unused,
    ) -> RetrModelOutput:
        """Arguments as of ``RetrModel.forward``.

        Raises:
            ValueError: packed rows, whose histories a network would mix; both or neither of input_ids, inputs_embeds.
        """
        if position_ids is not None:
            raise ValueError(f"{self.config.model_type} reads no packed rows: set training.layout=grouped (or padded)")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            if item_embeddings is None:
                item_embeddings = self.encode_items(table_item_ids, text_embeddings)
            inputs_embeds = self.look_up(input_ids, item_embeddings)
        shape = inputs_embeds.shape[:2]
        if length_groups is not None:
            length_groups = tuple((int(count), int(columns)) for count, columns in length_groups)
        valid = torch.ones(shape, dtype=torch.bool, device=inputs_embeds.device)
        if attention_mask is not None:
            valid = attention_mask.bool()
        layout = SequenceLayout(valid, groups=length_groups)
        states = [
            self._right_padded(tokens, real)
            for tokens, real in zip(layout.rectangles(inputs_embeds), layout.rectangles(valid), strict=True)
        ]
        states = layout.join(states, inputs_embeds.shape)
        if sequence_ends is not None:
            states = states.flatten(0, 1).index_select(0, sequence_ends).unsqueeze(1)
        penalty = getattr(self.network, "penalty", None)
        return RetrModelOutput(
            last_hidden_state=states,
            auxiliary_loss=penalty() if penalty is not None and self.training else None,
            item_embeddings=item_embeddings,
            position_ids=layout.ranks() - 1,
        )

    def _right_padded(self, tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """The network on rows [S, n, d] padded on either side, each turned until its history stands left, and back."""
        steps, first = torch.arange(valid.shape[1], device=valid.device), valid.int().argmax(1, keepdim=True)
        there, back = steps + first, steps - first  # [S, n], and no sorting, which ONNX does not know
        there = torch.where(there < valid.shape[1], there, there - valid.shape[1])
        back = torch.where(back < 0, back + valid.shape[1], back)
        turned = tokens.gather(1, there[..., None].expand_as(tokens))
        return self.network(turned, valid.gather(1, there)).gather(1, back[..., None].expand_as(tokens))

    def compile_blocks(self) -> None:
        """Hands the network to torch.compile, for any number of tokens."""
        self.network.compile(dynamic=True)  # in place: checkpoints do not hear of it


class BaselineForSequentialRecommendation(RetrForSequentialRecommendation):
    """A baseline with next-item scores; the classes below name the network."""


class Gru4RecModel(BaselineModel):
    """GRU4Rec's body."""

    config: Gru4RecConfig
    network_class = Gru4Rec


class Gru4RecForSequentialRecommendation(BaselineForSequentialRecommendation):
    """GRU4Rec with next-item scores."""

    config: Gru4RecConfig
    body_class = Gru4RecModel


class CaserModel(BaselineModel):
    """Caser's body."""

    config: CaserConfig
    network_class = Caser


class CaserForSequentialRecommendation(BaselineForSequentialRecommendation):
    """Caser with next-item scores."""

    config: CaserConfig
    body_class = CaserModel


class SineModel(BaselineModel):
    """SINE's body."""

    config: SineConfig
    network_class = Sine


class SineForSequentialRecommendation(BaselineForSequentialRecommendation):
    """SINE with next-item scores."""

    config: SineConfig
    body_class = SineModel


BASELINES = {  # config -> (body, head): what transformers' Auto classes are told
    Gru4RecConfig: (Gru4RecModel, Gru4RecForSequentialRecommendation),
    CaserConfig: (CaserModel, CaserForSequentialRecommendation),
    SineConfig: (SineModel, SineForSequentialRecommendation),
}

for _config, (_body, _head) in BASELINES.items():
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _body, exist_ok=True)
    AutoModelForSequenceClassification.register(_config, _head, exist_ok=True)
    AutoProcessor.register(_config, RetrProcessor, exist_ok=True)
