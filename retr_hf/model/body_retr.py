"""The body of RETR: item table -> tokens -> routed blocks.

Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024; items as in UniSRec (Hou et al., KDD 2022).
Axis letters: B rows of a batch, N length, d width, h heads, L blocks, M rows of an item table, T text width.

Items. The text table is no weight. A forward pass takes ``input_ids``, rows of an *item table*, and the table itself:
``text_embeddings`` [M, T], with ``table_item_ids`` [M] saying which catalogue item each row is (default: row i is item
i, the whole catalogue). Row 0 is padding. In training the table holds the batch's own unique items, so each item is
encoded once; ``item_embeddings`` [M, d], already encoded, skips even that.

Rows. A row holds one history, padded on either side under ``attention_mask``; or, with explicit ``position_ids``,
several histories packed one after the other, each starting at position 0 (padding: position 0, one token a sequence);
or, with ``length_groups``, one long row [1, T] holds groups of histories of like length: the fastest way to train.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from transformers.masking_utils import create_causal_mask
from transformers.modeling_utils import PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention import PathwayAttention, SequenceContext
from .block_retr import RetrLayer
from .cloze import MASK
from .configuration_retr import RetrConfig
from .dropout import Dropout
from .item_encoder import MixtureOfExpertsAdaptor
from .item_reader import ItemReader
from .outputs import RetrModelOutput
from .pathway import StartsAt, pick
from .sequence_layout import SequenceLayout


class RetrPreTrainedModel(PreTrainedModel):
    """Weight initialisation and what transformers needs to know about every RETR model."""

    config: RetrConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RetrLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": RetrLayer, "attentions": PathwayAttention}
    # NOTE: no module is kept in float32 where the rest is half: it spares a quarter of the few routes that turn (of
    # X-RETR on Scientific 0.08 % instead of 0.12 % in bfloat16), changes no ranking and takes half as long again.

    def __init__(self, config: RetrConfig):
        super().__init__(config)
        self.add_model_tags(["retr", "recommendation", "sequential-recommendation"])

    def enable_input_require_grads(self):
        """Lets adapters train under re-entrant checkpointing: what the first block reads gets a gradient.

        Not at the id table, as transformers has it: tokens are rows of an item table, but each has a position.
        """
        hook = self.base_model.embed_positions.register_forward_hook(lambda *call: call[-1].requires_grad_(True))
        self._require_grads_hooks, self._require_grads_hook = [hook], hook

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, MixtureOfExpertsAdaptor | PathwayAttention | StartsAt):
            module.initialize()


class RetrModel(ItemReader, RetrPreTrainedModel):
    """The body: item table -> tokens -> L routed blocks. No loss, no score.

    With ``router="none"`` this is RecBole's SASRec encoder (Kang & McAuley 2018), and with text items UniSRec's.
    """

    def __init__(self, config: RetrConfig):
        super().__init__(config)
        self.build_items(config)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.embed_mask = nn.Embedding(1, config.hidden_size) if config.direction == "bidirectional" else None
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.input_norm else None
        self.dropout = Dropout(config.hidden_dropout)
        self.layers = nn.ModuleList(RetrLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        text_embeddings: torch.FloatTensor | None = None,
        table_item_ids: torch.LongTensor | None = None,
        item_embeddings: torch.FloatTensor | None = None,
        times: torch.LongTensor | None = None,
        marks: torch.Tensor | None = None,
        length_groups: Sequence[tuple[int, int]] | None = None,
        sequence_ends: torch.LongTensor | None = None,
        output_routes: bool | None = None,
        route_generator: torch.Generator | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> RetrModelOutput:
        """Runs the body over histories.

        input_ids: [B, N] rows of the item table (0 is padding); or inputs_embeds [B, N, d], exactly one of them. In a
            bidirectional body -1 is [mask].
        attention_mask: [B, N], 1 for real items; None means all are real.
        position_ids: [B, N]; pass it for packed rows only (see the top of the file).
        text_embeddings, table_item_ids, item_embeddings: the item table (see the top of the file).
        times, marks: [B, N], for attentions that read them.
        length_groups: (S, n) of each group of the row [1, T]: S histories of n columns, padded on the right.
        sequence_ends: [S] flat place (row * N + column) of one token of each history. The last block computes these
            alone, and last_hidden_state is [S, 1, d], in their order. Costs about half a block less.
        output_routes: return routes, keep_probabilities and omegas.
        route_generator: source of the routes' noise; None means torch's own.

        Raises:
            ValueError: both or neither of input_ids and inputs_embeds; a history longer than
                ``max_position_embeddings``; groups that do not fit the row; an item table that does not fit the config.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("pass exactly one of input_ids and inputs_embeds")
        masks = self.embed_mask is not None and input_ids is not None
        if inputs_embeds is None:
            if item_embeddings is None:
                item_embeddings = self.encode_items(table_item_ids, text_embeddings)
            inputs_embeds = self.look_up(input_ids.clamp(min=0) if masks else input_ids, item_embeddings)
        if masks:
            inputs_embeds = torch.where((input_ids == MASK)[..., None], self.embed_mask.weight[0], inputs_embeds)

        if route_generator is not None and self.training and any(layer.gradient_checkpointing for layer in self.layers):
            raise ValueError("gradient checkpointing draws the routes twice: leave route_generator out")
        layout, position_ids, mask = self._lay_out(inputs_embeds, attention_mask, position_ids, length_groups)
        counted = layout.ages(position_ids) if self.config.positions_from == "last" else position_ids
        hidden_states = self.tokens(inputs_embeds, counted)

        if output_routes is None:
            output_routes = getattr(self.config, "output_routes", False)
        context = SequenceContext(layout, mask, times=times, marks=marks, direction=self.config.direction)
        ends, early = None, False
        if sequence_ends is not None:
            ends, order = sequence_ends.sort()
            # Kernels without a mask of our own, packed rows and shown routes want all tokens in the last block too.
            early = self.config._attn_implementation in ("sdpa", "eager") and not layout.packed and not output_routes
        routings, auxiliaries = [], []
        route = None
        for layer in self.layers:
            if early and layer is self.layers[-1]:
                context = replace(context, attention_mask=None, ends=ends)
            hidden_states, *rest = layer(hidden_states, route, context, route_generator, **kwargs)
            routing, terms = rest[:3], rest[3:]
            auxiliaries.extend(terms)
            if layer.router is not None:
                route = routing[0]
                routings.append(routing)
        if ends is not None:
            if not early:
                hidden_states = pick(hidden_states, ends)
            hidden_states = hidden_states[0].index_select(0, order.argsort()).unsqueeze(1)

        shown = zip(*routings, strict=True) if output_routes and routings else (None, None, None)
        routes, keep_probabilities, omegas = shown
        return RetrModelOutput(
            last_hidden_state=hidden_states,
            routes=routes,
            keep_probabilities=keep_probabilities,
            omegas=omegas,
            auxiliary_loss=sum(auxiliaries) if auxiliaries else None,
            item_embeddings=item_embeddings,
            position_ids=position_ids,
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """What a call must bring beside the items, for the attention: some of "times" and "marks"."""
        return self.layers[0].self_attn.reads

    def compile_blocks(self) -> None:
        """Hands what each block does token by token to torch.compile: one graph for training and one for evaluation,
        whatever the number of tokens. Their mixing stays with the attention's kernel, and a block that is
        differentiated twice as it is."""
        for layer in self.layers:
            if not layer.self_attn.differentiates_block:
                layer.finish = torch.compile(layer.finish, dynamic=True)

    def tokens(self, inputs_embeds: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """What the first block reads, X = E[i] + P: inputs_embeds [..., d], positions [...], counted as the config
        says, -> [..., d]."""
        hidden_states = inputs_embeds + self.embed_positions(positions)
        if self.input_norm is not None:
            hidden_states = self.input_norm(hidden_states)
        return self.dropout(hidden_states)

    def _lay_out(self, inputs_embeds, attention_mask, position_ids, length_groups):
        """(SequenceLayout, position_ids [B, N], mask for the kernel or None) of the rows."""
        length, device = inputs_embeds.shape[1], inputs_embeds.device
        full = attention_mask is None
        if full:
            attention_mask = torch.ones(inputs_embeds.shape[:2], dtype=torch.long, device=device)
        valid = attention_mask.bool()
        if length_groups is not None:
            groups = tuple((int(count), int(columns)) for count, columns in length_groups)
            if len(inputs_embeds) != 1 or sum(count * columns for count, columns in groups) != length:
                raise ValueError(
                    f"length_groups {groups} hold {sum(count * columns for count, columns in groups)} tokens: expected "
                    f"one row of as many, came {list(inputs_embeds.shape[:2])}"
                )
            self._check_length(max(columns for _, columns in groups))
            positions = [torch.arange(columns, device=device).repeat(count) for count, columns in groups]
            return SequenceLayout(valid, groups=groups), torch.cat(positions).unsqueeze(0), None
        packed = position_ids is not None
        if packed:
            if "flash" in self.config._attn_implementation:
                raise ValueError(
                    "packed rows need sdpa, eager or flex attention: set training.layout=grouped, or another kernel"
                )
            layout = SequenceLayout.from_positions(position_ids, valid)
        else:
            self._check_length(length)
            layout = SequenceLayout(valid)
            position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        if self.config.direction == "bidirectional":
            if self.config._attn_implementation not in ("sdpa", "eager"):
                raise ValueError('direction="bidirectional" reads rows through a mask: use sdpa or eager attention')
            return layout, position_ids, layout.visible("global")[0].unsqueeze(1)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            # transformers reads packed rows from the positions alone; their padding is sequences of its own.
            attention_mask=None if packed or full else attention_mask,
            past_key_values=None,
            position_ids=position_ids if packed else None,
        )
        return layout, position_ids, mask

    def _check_length(self, length: int) -> None:
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"histories of {length} items, the model reads {self.config.max_position_embeddings}: keep the most "
                "recent ones (RetrProcessor does)"
            )


def last_places(attention_mask: torch.Tensor) -> torch.Tensor:
    """Flat place (row * N + column) [B] of each row's last real item, whichever side of [B, N] the padding is on."""
    rows, length = attention_mask.shape
    steps = torch.arange(length, device=attention_mask.device)
    columns = torch.where(attention_mask.bool(), steps, 0).amax(dim=1)
    return torch.arange(rows, device=attention_mask.device) * length + columns
