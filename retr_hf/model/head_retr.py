"""What both heads share: the body, and how its states and the history become scores.

Axis letters: B rows of a batch, N length, d width, M rows of an item table, T text width, K queries, n ages.
"""

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN

from .body_retr import RetrModel, RetrPreTrainedModel, last_places
from .cloze import Asked, ask_for_next
from .configuration_retr import RetrConfig
from .history_terms import RepeatTerm, TextPath, items_around, recent_rows
from .transition_memory import AGES, REACH, TransitionMemory

# An item without text is the zero vector at the start; a smaller floor would give it a gradient of 1 / floor.
NORM_FLOOR = 1e-3


class OutputTransform(nn.Module):
    """y = LN(GELU(z W_P + b_P)), BERT4Rec's layer between state and score: [..., d] -> [..., d]."""

    def __init__(self, config: RetrConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.act_fn = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return self.norm(self.act_fn(self.dense(hidden_states)))


class RetrHead(RetrPreTrainedModel):
    """The body, and the score of history_terms.py: a product of a query and a candidate, and what some items are given
    beside it, by the repeat term and the transition memory.

    With ``config.text_path`` the item table is [M, d + T], wider than the body reads: beside the encoded vector of each
    item stands its normalised text. With ``config.output_table`` and ``config.item_bias`` stand beside it
    the vector that the item is scored with, and its bias: [M, d + d + 1].
    """

    body_class = RetrModel

    def __init__(self, config: RetrConfig):
        super().__init__(config)
        self.model = self.body_class(config)
        self.item_bias = nn.Embedding(config.vocab_size, 1) if config.item_bias else None
        self.output_table = nn.Embedding(config.vocab_size, config.hidden_size) if config.output_table else None
        self.output_transform = OutputTransform(config) if config.output_transform else None
        self.text_path = TextPath(config) if config.text_path else None
        self.repeat_term = RepeatTerm(config) if config.repeat_term else None
        remembers = config.transition_memory and config.uses_ids
        self.transition_memory = TransitionMemory(config) if remembers else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.item_bias:
            init.zeros_(module.weight)
        elif isinstance(module, TextPath | RepeatTerm | TransitionMemory):  # a checkpoint may be without them
            module.initialize()

    def get_output_embeddings(self):
        """None: scores are products with the item table, which is no weight."""
        return None

    def encode_items(self, item_ids=None, text_embeddings=None) -> torch.Tensor:
        """Item table [M, d], with a text path [M, d + T]; arguments as for ``RetrModel.encode_items``."""
        vectors = self.model.encode_items(item_ids, text_embeddings)
        tables = [table for table in (self.output_table, self.item_bias) if table is not None]
        if tables:
            beside = [table.weight if item_ids is None else table(item_ids) for table in tables]
            return torch.cat([vectors, *(each.to(vectors.dtype) for each in beside)], dim=-1)
        if self.text_path is None:
            return vectors
        return torch.cat([vectors, nn.functional.normalize(text_embeddings, dim=-1).to(vectors.dtype)], dim=-1)

    def encode_new_items(self, text_embeddings: torch.Tensor) -> torch.Tensor:
        """Rows of an item table [X, ·] for items that no training has seen, from text vectors [X, T] alone.

        With ids beside the text their id vector is zero, which is what padding has.

        Raises:
            ValueError: a model that reads ids alone.
        """
        if not self.config.uses_text:
            raise ValueError('item_features="id": a new item is known by its text, which this model does not read')
        ids = torch.zeros(len(text_embeddings), dtype=torch.long, device=self.device) if self.config.uses_ids else None
        return self.encode_items(ids, text_embeddings.to(self.device))

    @torch.no_grad()
    def add_items(self, count: int, catalog_hash: str) -> None:
        """Makes room for ``count`` more items in the id table, at the end: rows of zeros, as ``encode_new_items`` has.

        Nothing to do for a model of texts alone. catalog_hash: of the catalogue with the new items.

        Raises:
            ValueError: a model that reads ids alone.
        """
        if not self.config.uses_text:
            raise ValueError('item_features="id": a new item needs training; use a model that reads text')
        if self.config.uses_ids:
            old = torch.arange(self.config.vocab_size)
            self.place_items(nn.functional.pad(old, (0, count)), catalog_hash)

    @torch.no_grad()
    def place_items(self, rows: torch.Tensor, catalog_hash: str) -> None:
        """Lays what the model keeps an item out anew, for a catalogue with other rows.

        New items start with rows of zeros where a text tells what they are; under ids alone at random, as in training
        from scratch, and need some. For a model of texts alone there is nothing to do.

        Args:
            rows: int64 [M'], the present row of each new row, 0 for padding and for an item that is new.
            catalog_hash: of the catalogue they are rows of.
        """
        if not self.config.uses_ids:
            return
        new = rows == 0
        new[0] = False
        for name, parent in (("embed_tokens", self.model), ("output_table", self), ("item_bias", self)):
            table = getattr(parent, name)
            if table is None:
                continue
            weight = table.weight[rows.to(table.weight.device)]
            weight[rows == 0] = 0
            if not self.config.uses_text and name != "item_bias":
                weight[new] = torch.empty_like(weight[new]).normal_(0, self.config.initializer_range)
            frozen = not table.weight.requires_grad
            table = nn.Embedding.from_pretrained(weight, freeze=frozen, padding_idx=table.padding_idx)
            setattr(parent, name, table)
        if self.transition_memory is not None:
            self.transition_memory.place_items(rows)
        self.config.vocab_size, self.config.catalog_hash = len(rows), catalog_hash

    @torch.no_grad()
    def encode_catalog(self, text_embeddings: torch.Tensor | None = None, items_at_once: int = 8192) -> torch.Tensor:
        """Item table of a whole catalogue [num_items + 1, ·], in evaluation mode, on the model's device.

        text_embeddings: [num_items + 1, T], row 0 padding, on any device; None where the model reads ids alone.
        """
        ids = torch.arange(self.config.vocab_size if text_embeddings is None else len(text_embeddings))
        was_training = self.training
        self.eval()
        parts = [
            self.encode_items(
                rows.to(self.device) if self.config.uses_ids else None,
                None if text_embeddings is None else text_embeddings[rows[0] : rows[-1] + 1].to(self.device),
            )
            for rows in ids.split(items_at_once)
        ]
        self.train(was_training)
        return torch.cat(parts)

    def cut_positions(self, length: int) -> None:
        """Shortens the histories the model reads to ``length`` items, for training on shorter ones.

        Every module that holds something a position or an age has its own ``cut_positions``.
        """
        if length < self.config.max_position_embeddings:
            if hasattr(self.model, "embed_positions"):  # a baseline may have none
                kept = self.model.embed_positions.weight.detach()[:length].clone()
                self.model.embed_positions = nn.Embedding.from_pretrained(kept, freeze=False)
            self.config.max_position_embeddings = length
            for module in self.modules():
                if module is not self and hasattr(module, "cut_positions"):
                    module.cut_positions(length)

    def query_vectors(
        self,
        hidden_states: torch.Tensor,
        recent: torch.Tensor | None = None,
        item_embeddings: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states [K, d] as queries, so that score = query · candidate (+ ``added_scores``).

        recent, item_embeddings: ``history_terms.recent_rows`` [K, n] and their item table, for the text path.
        """
        query = self.body_queries(hidden_states)
        if self.text_path is None:
            return query
        text = self.text_path(recent, item_embeddings[:, self.config.hidden_size :])
        return torch.cat([self.text_path.gain * query, (text / self.config.temperature).to(query.dtype)], dim=-1)

    def body_queries(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Hidden states [..., d] as queries of the body alone."""
        if self.output_transform is not None:
            hidden_states = self.output_transform(hidden_states)
        if self.config.score == "cosine":
            return nn.functional.normalize(hidden_states, dim=-1, eps=NORM_FLOOR) / self.config.temperature
        if self.config.item_bias:
            return torch.cat([hidden_states, torch.ones_like(hidden_states[..., :1])], dim=-1)
        return hidden_states

    def candidate_vectors(self, item_embeddings: torch.Tensor) -> torch.Tensor:
        """Rows of an item table (or states [M, d]) as candidates, so that score = query · candidate, and no more than
        that unless the head ``adds_scores``."""
        if self.config.score != "cosine":
            return item_embeddings if self.output_table is None else item_embeddings[:, self.config.hidden_size :]
        vectors, text = item_embeddings.tensor_split([self.config.hidden_size], dim=-1)
        vectors = nn.functional.normalize(vectors, dim=-1, eps=NORM_FLOOR)
        return torch.cat([vectors, text], dim=-1) if text.shape[-1] else vectors

    def added_scores(
        self, recent: torch.Tensor, around: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Which rows of the table histories [K, n] (``recent_rows``) give something beside the product, and what; of a
        head that ``adds_scores``.

        around: ``items_around`` as the transition memory wants it, in training.

        Returns:
            rows [K, r], 0 for none and some of them more than once, and scores [K, r].
        """
        terms = [] if self.repeat_term is None else [(recent, self.repeat_term(recent))]
        if self.transition_memory is not None:
            terms.append(self.transition_memory(recent, around))
        rows, scores = (torch.cat(parts, dim=1) for parts in zip(*terms, strict=True))
        return rows, scores / self.config.temperature

    def scores(
        self,
        hidden_states: torch.Tensor,
        recent: torch.Tensor | None,
        item_embeddings: torch.Tensor,
        candidates: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Scores [K, M] of the item table, its padding row at -inf.

        hidden_states: [K, d]. recent: their histories [K, n], needed where ``reads_history``.
        candidates: ``candidate_vectors`` of the table, where they are there already.
        """
        candidates = self.candidate_vectors(item_embeddings) if candidates is None else candidates
        scores = self.query_vectors(hidden_states, recent, item_embeddings) @ candidates.T
        if self.adds_scores:
            rows, added = self.added_scores(recent)
            scores = scores.scatter_add(1, rows, added.to(scores.dtype))
        return torch.cat([torch.full_like(scores[:, :1], float("-inf")), scores[:, 1:]], dim=1)

    @property
    def adds_scores(self) -> bool:
        """Whether some items are given something beside the product (``added_scores``): then vectors alone do not tell
        the score."""
        return self.repeat_term is not None or self.transition_memory is not None

    @property
    def reads_history(self) -> bool:
        """Whether the score reads the history beside the body's state."""
        return self.text_path is not None or self.adds_scores

    def encode_users(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        sequence_ends: torch.Tensor | None = None,
        text_embeddings: torch.Tensor | None = None,
        table_item_ids: torch.Tensor | None = None,
        item_embeddings: torch.Tensor | None = None,
        **inputs,
    ) -> torch.Tensor:
        """Query vectors [B, ·] after the last item of each history; inputs as for ``RetrModel.forward``.

        Their product with ``candidate_vectors`` is the score, but for a head that ``adds_scores`` (RETR+): there it is
        the score without the repeat term and the transition memory, which ``scores``, ``Recommender`` and the programs
        of scripts/export.py add.

        attention_mask: [B, N], needed unless ``sequence_ends`` is given.
        sequence_ends: [S] where the histories end, in packed or grouped rows; the result is [S, ·].

        Raises:
            ValueError: what ``RetrModel.forward`` refuses; no input_ids where the score reads the history.
        """
        if sequence_ends is None:
            sequence_ends = last_places(attention_mask)
        if self.config.direction == "bidirectional":
            asked = self.ask_for_next(input_ids, attention_mask, inputs.pop("length_groups", None))
            attention_mask, inputs["length_groups"] = asked.attention_mask, asked.length_groups
            input_ids = asked.input_ids
            # Histories are asked in the order of their rows; the answers come in the order of sequence_ends.
            sequence_ends = asked.sequence_ends[sequence_ends.argsort().argsort()]
        if item_embeddings is None:
            item_embeddings = self.encode_items(table_item_ids, text_embeddings)
        outputs = self.model(
            input_ids, attention_mask, sequence_ends=sequence_ends, item_embeddings=item_embeddings, **inputs
        )
        recent = self._recent(input_ids, outputs, sequence_ends)
        return self.query_vectors(outputs.last_hidden_state.squeeze(1), recent, item_embeddings)

    def ask_for_next(self, input_ids, attention_mask=None, length_groups=None) -> Asked:
        """Histories with the [mask] behind them where a bidirectional body answers (``cloze``)."""
        return ask_for_next(input_ids, attention_mask, length_groups, self.config.max_position_embeddings)

    def _recent(self, input_ids, outputs, places) -> torch.Tensor | None:
        """The histories behind some places, where the score reads them."""
        if not self.reads_history:
            return None
        if input_ids is None:
            raise ValueError(
                "text_path, repeat_term and transition_memory read which items a history holds: pass input_ids"
            )
        return recent_rows(input_ids, outputs.position_ids, places)

    def _steps_and_targets(self, input_ids, outputs, labels, item_embeddings):
        """Queries [T, ·] of the steps that have a target, the targets [T], the steps' flat places [T], and the rows of
        the table [T, r] that are given something, with what, or None."""
        # Places and not a mask: the gradient of a mask is added up entry by entry on a CPU.
        places = (labels.flatten() != -100).nonzero().squeeze(1)
        states = outputs.last_hidden_state.flatten(0, 1).index_select(0, places)
        recent = self._recent(input_ids, outputs, places)
        queries = self.query_vectors(states, recent, item_embeddings)
        counted = self.training and self.transition_memory is not None
        near = AGES + REACH, REACH
        around = items_around(input_ids, labels, outputs.position_ids, places, *near) if counted else None
        added = self.added_scores(recent, around) if self.adds_scores else None
        return queries, labels.flatten()[places], places, added
