"""The plain path: the same model, written as a paper would print it, for the fast path to be measured against.

One history a row, padded on the right to N items, the longest the model reads (as RecBole, RePlay and SASRec.pytorch
pad); every product runs over the padding too; attention with its whole matrix of weights; torch's own dropout; items
read through text go through the adaptor once an occurrence (as UniSRec's do); all logits of a batch at once. The
weights are those of one of our models and so are the losses, to rounding: tests hold them and their gradients together.

Where a choice was free it is the one that is kinder to this side: logits are made for real targets alone, batches are
laid out by the same vectorised collators, one dropout mask serves all experts, ranks are counted and not sorted.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..data.ragged import Layout
from ..evaluation.histories import histories_of


def pad_to(lengths: np.ndarray, width: int) -> Layout:
    """Each sequence in a row of its own, padded on the right to ``width``."""
    rows = np.arange(len(lengths))
    return Layout(rows, np.zeros_like(rows), (len(lengths), width))


class PlainModel(nn.Module):
    """A head of ours on the plain path, sharing its weights.

    Letters: B histories, N columns, d width, M rows of the item table, T text width.

    Args:
        model: ``RetrForSequentialRecommendation`` (softmax or BPR) or ``RetrForPreTraining``; full attention, a pathway
            router with causal context or none, input norm, GELU.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.config = model, model.config

    def vectors(self, rows: torch.Tensor, text_embeddings: torch.Tensor | None = None) -> torch.Tensor:
        """Item vectors of each occurrence: rows [...] of the table, text [M, T] -> [..., d]."""
        body, vectors = self.model.model, 0
        if self.config.uses_text:
            vectors = self._adapt(body.item_adaptor, F.embedding(rows, text_embeddings))
        if self.config.uses_ids:
            vectors = vectors + F.embedding(rows, body.embed_tokens.weight)
        return vectors

    def states(self, vectors: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """vectors [B, N, d], attention_mask [B, N] -> states [B, N, d]."""
        body, drop = self.model.model, self._dropout
        length, valid = vectors.shape[1], attention_mask.to(vectors.dtype)
        x = drop(body.input_norm(vectors + body.embed_positions.weight[:length]))
        visible = attention_mask.bool()[:, None, None] & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(x.dtype).min)  # [B, 1, N, N]
        route = None
        for layer in body.layers:
            if layer.router is not None:
                route = self._route(layer.router, x, valid if route is None else route, valid)
            x = layer.attention_norm(drop(self._attend(layer.self_attn, x, route, mask)) + x)
            x = layer.ffn_norm(drop(layer.down_proj(layer.act_fn(layer.up_proj(x)))) + x)
        return x

    def _dropout(self, x):
        return F.dropout(x, self.config.hidden_dropout, self.training)

    def _adapt(self, adaptor, text):
        """[..., T] -> [..., d], expert by expert."""
        if self.config.text_scale is not None:
            text = self.config.text_scale * F.normalize(text, dim=-1)
        logits = adaptor.gate(text)
        if self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus(adaptor.gate_noise(text)) + 0.01)
        gates = logits.softmax(-1)
        dropped = F.dropout(text, self.config.adaptor_dropout, self.training)
        experts = adaptor.experts.weight.view(adaptor.num_experts, adaptor.hidden_size, -1)
        outputs = [F.linear(dropped - center, weight) for center, weight in zip(adaptor.centers, experts, strict=True)]
        return (gates.unsqueeze(-1) * torch.stack(outputs, dim=-2)).sum(-2)

    def _route(self, router, x, route, valid):
        """Equations (2) to (6), the running mean by cumulative sums."""
        kept = (route * valid).unsqueeze(-1)
        number, total = kept.cumsum(1), (kept * x).cumsum(1)
        real = valid.unsqueeze(-1)
        mean_all = (real * x).cumsum(1) / real.cumsum(1).clamp(min=1.0)
        mean = torch.where(number.detach() > 0.5, total / number.clamp(min=1.0), mean_all)
        return router.decide(x, mean, route).route * valid

    def _attend(self, attention, x, route, mask):
        heads, size = self.config.num_attention_heads, attention.head_dim
        query = attention.q_proj(x) if route is None else attention.q_proj(x) * route.unsqueeze(-1)  # (7)
        query, key, value = (
            states.unflatten(-1, (heads, size)).transpose(1, 2)
            for states in (query, attention.k_proj(x), attention.v_proj(x))
        )
        weights = (query @ key.transpose(-1, -2) / size**0.5 + mask).softmax(-1)  # [B, h, N, N]
        weights = F.dropout(weights, self.config.attention_dropout, self.training)
        return attention.o_proj((weights @ value).transpose(1, 2).flatten(2))


class PlainRecommendation(PlainModel):
    """Loss of ``RetrForSequentialRecommendation`` on one catalogue."""

    def forward(
        self, input_ids, attention_mask, labels, negative_ids=None, text_embeddings=None, num_items_in_batch=None
    ):
        """input_ids, attention_mask, labels, negative_ids [B, N], text_embeddings [M, T] -> the loss."""
        model, real = self.model, labels != -100
        count = num_items_in_batch or int(real.sum())
        states = model.query_vectors(self.states(self.vectors(input_ids, text_embeddings), attention_mask))
        if self.config.objective == "bpr":
            targets, negatives = (
                model.candidate_vectors(self.vectors(rows, text_embeddings))
                for rows in (labels.clamp(min=0), negative_ids)
            )
            margin = (states * targets).sum(-1) - (states * negatives).sum(-1)
            return -(F.logsigmoid(margin) * real).sum() / count
        every = torch.arange(1, self.config.vocab_size if text_embeddings is None else len(text_embeddings))
        items = model.candidate_vectors(self.vectors(every, text_embeddings))
        return F.cross_entropy(states[real] @ items.T, labels[real] - 1, reduction="sum") / count


class PlainPreTraining(PlainModel):
    """Loss of ``RetrForPreTraining`` with ``every_step`` on one process."""

    def forward(
        self,
        input_ids,
        attention_mask,
        labels,
        text_embeddings,
        table_item_ids,
        sequence_ends,
        view_input_ids=None,
        view_attention_mask=None,
        view_sequence_ends=None,
        num_items_in_batch=None,
        num_sequences_in_batch=None,
    ):
        """[B, N] arrays of ``PreTrainingCollator``, the batch's items [M, T] -> the loss."""
        model, real = self.model, labels != -100
        states = self.states(self.vectors(input_ids, text_embeddings), attention_mask)
        candidates = table_item_ids.nonzero().squeeze(1)  # the batch's items, each once; rows of a view have no id
        row = torch.full_like(table_item_ids, -1).scatter(0, candidates, torch.arange(len(candidates)))
        items = model.candidate_vectors(self.vectors(candidates, text_embeddings))
        logits = model.query_vectors(states)[real] @ items.T
        count, targets = num_items_in_batch or int(real.sum()), row[labels[real]]
        if not self.config.own_negatives:
            own = torch.zeros(len(labels), len(table_item_ids), dtype=torch.bool)
            own = own.scatter(1, torch.cat([input_ids, labels.clamp(min=0)], dim=1), True)[:, candidates]
            own = own[real.nonzero()[:, 0]].scatter(1, targets[:, None], False)
            logits = logits.masked_fill(own, float("-inf"))
        loss = F.cross_entropy(logits, targets, reduction="sum") / count
        if view_input_ids is None or not self.config.sequence_loss_weight:
            return loss

        views = self.states(self.vectors(view_input_ids, text_embeddings), view_attention_mask)
        ends, last = states.flatten(0, 1)[sequence_ends], views.flatten(0, 1)[view_sequence_ends]
        logits = model.query_vectors(ends) @ model.candidate_vectors(last).T  # [B, B]
        next_items = table_item_ids[labels.flatten()[sequence_ends]]
        same = (next_items[:, None] == next_items).fill_diagonal_(False)
        term = F.cross_entropy(logits.masked_fill(same, float("-inf")), torch.arange(len(ends)), reduction="sum")
        return loss + self.config.sequence_loss_weight * term / (num_sequences_in_batch or len(ends))


@torch.no_grad()
def plain_ranks(
    model: PlainModel, item_embeddings: torch.Tensor, sequences, max_length: int, batch_size: int
) -> dict[str, np.ndarray]:
    """As ``evaluation.histories.rank_histories`` without negatives: ``full`` and ``full-unseen``, int64 [U] each.

    All positions go through all blocks, and all scores [U, M] are held at once, in float32.
    """
    model.eval()
    width = max_length
    lengths = np.minimum(np.diff(sequences.offsets) - 1, width)
    targets = sequences.offsets[1:] - 1
    column = np.arange(width)
    queries = []
    for start in range(0, len(lengths), batch_size):
        users = slice(start, start + batch_size)
        real = column < lengths[users, None]
        places = np.where(real, (targets[users] - lengths[users])[:, None] + column, 0)
        rows = torch.from_numpy(np.where(real, sequences.item_ids[places], 0).astype(np.int64))  # [B, N]
        states = model.states(F.embedding(rows, item_embeddings), torch.from_numpy(real))
        queries.append(states[torch.arange(len(rows)), torch.from_numpy(lengths[users] - 1)])
    scores = model.model.query_vectors(torch.cat(queries)) @ model.model.candidate_vectors(item_embeddings).T  # [U, M]
    scores[:, 0] = float("-inf")
    own = torch.from_numpy(sequences.item_ids[targets].astype(np.int64)).unsqueeze(1)
    score = scores.gather(1, own)
    full = (scores >= score).sum(1)
    seen, offsets = histories_of(sequences, np.arange(len(lengths)))
    scores[torch.from_numpy(np.repeat(np.arange(len(lengths)), np.diff(offsets))), torch.from_numpy(seen)] = -torch.inf
    scores.scatter_(1, own, score)
    return {"full": full.numpy(), "full-unseen": (scores >= score).sum(1).numpy()}
