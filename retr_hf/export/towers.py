"""A recommendation head as two modules that can be exported: the user tower and the item tower.

    s(u, i) = queries[u] · candidates[i]  (+ added[u, r] for every r with rows[u, r] = i)

Axis letters: B histories, N length, d width, M rows of the item table, T text width, W width of the item table, D width
of queries and candidates (both d, with a text path d + T; ``head_retr.RetrHead`` says what else stands in a table).

A tower shares the head's weights and holds those it needs. Its ``example`` is what it is exported with, its
``dynamic_shapes`` say which axes are free. transformers' own exporters take a tower too, called with its ``example``.
"""

import copy

import torch
from torch import nn
from torch.export import Dim

from ..model.body_retr import last_places
from ..model.history_terms import recent_rows
from ..model.modeling_retr import RetrForSequentialRecommendation
from ..model.processing_retr import longest_history


class UserTower(nn.Module):
    """Histories -> queries, in float32.

    Inputs
        input_ids: int64 [B, N], rows of the item table, oldest first, 0 for padding on either side.
        attention_mask: int64 [B, N], 1 for real items.
        item_embeddings: float32 [M, W], the item table (``table`` of the item tower, row 0 padding).
        times, marks: int64 [B, N], for an attention that reads them and no other.
    Outputs
        queries: [B, D].
        rows, added: int64 and float32 [B, r], for a head with a repeat term or a transition memory: items, 0 for none,
            and what each is given beside the product; the first N are the history's, newest first, if they get any.

    Args:
        head: put into evaluation mode.

    Raises:
        ValueError: the head samples its routes in evaluation, is recurrent, or its attention kernel is no plain one.
    """

    def __init__(self, head: RetrForSequentialRecommendation):
        check_exportable(head.eval())
        super().__init__()
        self.head = _without(head, "model", "item_bias", "output_table")
        self.head.model = _without(head.model, "embed_tokens", "item_adaptor")
        self.reads, self.longest = head.model.reads, longest_history(head.config)
        items = ItemTower(head)
        self.width = items(**items.example())["table"].shape[1]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs, in their order."""
        return ["queries"] + ["rows", "added"] * self.head.adds_scores

    def forward(self, input_ids, attention_mask, item_embeddings, times=None, marks=None) -> dict[str, torch.Tensor]:
        """See the class."""
        places = last_places(attention_mask)
        if self.head.config.direction == "bidirectional":
            input_ids, attention_mask, _, places = self.head.ask_for_next(input_ids, attention_mask)
        outputs = self.head.model(
            input_ids,
            attention_mask,
            item_embeddings=item_embeddings,
            sequence_ends=places,
            times=times,
            marks=marks,
        )
        recent = recent_rows(input_ids, outputs.position_ids, places, longest=input_ids.shape[1])
        queries = {"queries": self.head.query_vectors(outputs.last_hidden_state.squeeze(1), recent, item_embeddings)}
        if self.head.adds_scores:
            queries["rows"], queries["added"] = self.head.added_scores(recent)
        return queries

    def example(self) -> dict[str, torch.Tensor]:
        """Three histories of unlike length, padded on either side, of a table of eight rows."""
        length = min(4, self.longest)
        real = torch.ones(3, length, dtype=torch.long)
        real[1, 1:], real[2, : length // 2] = 0, 0
        inputs = {"input_ids": real * 5, "attention_mask": real, "item_embeddings": torch.ones(8, self.width)}
        return inputs | {name: torch.zeros_like(real) for name in self.reads}

    @property
    def dynamic_shapes(self) -> dict[str, dict[int, Dim]]:
        """B, N and M are free, N up to what the model reads."""
        free = {0: Dim("batch")}
        if self.longest > 1:
            free[1] = Dim("length", max=self.longest)
        rows = dict.fromkeys(("input_ids", "attention_mask", *self.reads), free)
        return rows | {"item_embeddings": {0: Dim("items")}}


class ItemTower(nn.Module):
    """Items -> table rows and candidates, in float32.

    Inputs
        item_ids: int64 [M], catalogue indices, for a model with an id table.
        text_embeddings: float32 [M, T], for a model of texts: as ``text_whitening.text_table`` gives them, whitened if
            the model's are.
    Outputs
        table: [M, W], rows of the item table the user tower reads.
        candidates: [M, D], what goes into an index.

    Args:
        head: put into evaluation mode.
    """

    outputs = ["table", "candidates"]

    def __init__(self, head: RetrForSequentialRecommendation):
        super().__init__()
        self.head = _without(head.eval(), "model")
        self.head.model = _without(head.model, "layers", "network", "embed_positions", "embed_mask", "input_norm")

    def forward(self, item_ids=None, text_embeddings=None) -> dict[str, torch.Tensor]:
        """See the class."""
        table = self.head.encode_items(item_ids, text_embeddings)
        # A copy: with score="dot" both are one tensor, and a program's outputs are not.
        return {"table": table, "candidates": self.head.candidate_vectors(table).clone()}

    def example(self) -> dict[str, torch.Tensor]:
        """Three items; ids stay below any table's end."""
        config = self.head.config
        ids = {"item_ids": torch.zeros(3, dtype=torch.long)} if config.uses_ids else {}
        return ids | ({"text_embeddings": torch.ones(3, config.text_size)} if config.uses_text else {})

    @property
    def dynamic_shapes(self) -> dict[str, dict[int, Dim]]:
        """M is free."""
        return dict.fromkeys(self.example(), {0: Dim("items")})


def check_exportable(head: RetrForSequentialRecommendation) -> None:
    """Raises ValueError for what cannot become a program that answers as the model does."""
    config = head.config
    if any(isinstance(module, nn.RNNBase) for module in head.modules()):
        raise ValueError(
            f"a {config.model_type} model is recurrent, and torch.export writes its steps out one by one, as many as "
            "one history has: serve it with Recommender, or export another model"
        )
    if config.router_sampling and config.router != "none":
        raise ValueError(
            "router_sampling=True draws the routes at random in evaluation too: a program cannot answer as the model "
            "does; export it with config.router_sampling=False"
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"the attention kernel {config._attn_implementation!r} is no part of a program: "
            'model.set_attn_implementation("sdpa") gives the same numbers'
        )


def _without(module: nn.Module, *children: str) -> nn.Module:
    """The module, its weights shared, without some children: a program keeps every weight of what it is made from."""
    bare = copy.copy(module)
    bare._modules = {name: child for name, child in module._modules.items() if name not in children}
    return bare
