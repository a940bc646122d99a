"""RETR: one body (body_retr.py), two heads.

Yao et al., *Recommender Transformers with Behavior Pathways*, WWW 2024; pre-training as in UniSRec (Hou et al., KDD
2022).
Axis letters: B rows of a batch, N length, d width, L blocks, M rows of an item table, T text width, S histories.
What ``input_ids``, the item table and packed rows are is told at the top of body_retr.py.
"""

from collections.abc import Sequence

import torch
from transformers import AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForSequenceClassification
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .antithetic import antithetic
from .body_retr import RetrModel, RetrPreTrainedModel, last_places
from .configuration_retr import RetrConfig
from .domain_candidates import softmax_within_domains
from .head_retr import RetrHead
from .hub import installed
from .losses import in_batch_contrastive_loss, softmax_loss
from .negatives_across_processes import gather_rows, unique_across_processes
from .objectives import raw_text_columns, recommendation_loss
from .outputs import RetrOutput
from .own_items import hide_own_items, undo_chances

__all__ = ["RetrForPreTraining", "RetrForSequentialRecommendation", "RetrModel", "RetrOutput", "RetrPreTrainedModel"]


class RetrForSequentialRecommendation(RetrHead):
    """RETR with next-item scores: ``config.score`` of the state and each row of the item table."""

    @can_return_tuple
    @antithetic
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
        labels: torch.LongTensor | None = None,
        negative_ids: torch.LongTensor | None = None,
        item_counts: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        new_text_embeddings: torch.FloatTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> RetrOutput:
        """Scores the item table, or with ``labels`` computes the loss.

        input_ids ... length_groups: as for ``RetrModel.forward``. The table is what the loss takes its candidates
            from: pass the whole catalogue.
        labels: [B, N] row of the next item at each step, -100 where there is no target; for a bidirectional body of the
            item that is hidden there (``cloze``). Without labels it is asked for what follows: see ``cloze.Asked``.
        negative_ids: [B, N] row of one negative at each step, for the objectives "bpr" and "bce".
        item_counts: [M] how often each row of the table occurs in training, for ``negative_sampling="popularity"``.
        num_items_in_batch: number of targets in the global batch; None means those of this call.
        new_text_embeddings: [X, T] items that histories hold and the table does not, as rows M ... M + X - 1 of
            ``input_ids``: read, not recommended (``RetrProcessor`` with ``unknown_items="text"``).

        Raises:
            ValueError: negatives or counts that the objective needs are missing; new items together with labels, or for
                a model of ids alone; what ``RetrModel.forward`` refuses.
        """
        if table_item_ids is not None and self.transition_memory is not None:
            raise ValueError("transition_memory knows the whole catalogue: pass all of it, without table_item_ids")
        if item_embeddings is None:
            item_embeddings = self.encode_items(table_item_ids, text_embeddings)
        num_rows = len(item_embeddings)
        if self.config.direction == "bidirectional" and labels is None:
            if input_ids is None or position_ids is not None:
                raise ValueError(
                    "a bidirectional model answers rows of input_ids, one history each or in length_groups"
                )
            asked = self.ask_for_next(input_ids, attention_mask, length_groups)
            input_ids, attention_mask, length_groups = asked.input_ids, asked.attention_mask, asked.length_groups
        if new_text_embeddings is not None:
            if labels is not None:
                raise ValueError("new_text_embeddings: a loss needs all items in the table; extend the catalogue")
            item_embeddings = torch.cat([item_embeddings, self.encode_new_items(new_text_embeddings)])
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            inputs_embeds,
            item_embeddings=item_embeddings,
            length_groups=length_groups,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        loss = data_loss = logits = None
        if labels is not None:
            queries, targets, places, added = self._steps_and_targets(input_ids, outputs, labels, item_embeddings)
            candidates = self.candidate_vectors(item_embeddings)
            negatives = None if negative_ids is None else negative_ids.flatten()[places] - 1
            counts = None if item_counts is None else item_counts[1:]
            added = None if added is None else (added[0] - 1, added[1])
            data_loss = recommendation_loss(
                self.config, queries, candidates[1:], targets - 1, negatives, num_items_in_batch, counts, added
            )
            loss = data_loss + _own_share(outputs.auxiliary_loss, len(targets), num_items_in_batch)
        one_history_a_row = length_groups is None and position_ids is None
        if one_history_a_row and (labels is None or not self.training):
            real = torch.ones(hidden_states.shape[:2], device=hidden_states.device)
            ends = last_places(real if attention_mask is None else attention_mask)
            states = hidden_states.flatten(0, 1).index_select(0, ends)
            logits = self.scores(states, self._recent(input_ids, outputs, ends), item_embeddings)[:, :num_rows]
        return RetrOutput(
            loss=loss,
            data_loss=data_loss,
            logits=logits,
            last_hidden_state=hidden_states,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routes=outputs.routes,
            keep_probabilities=outputs.keep_probabilities,
            omegas=outputs.omegas,
            item_embeddings=item_embeddings,
        )


class RetrForPreTraining(RetrHead):
    """RETR with UniSRec's two contrastive objectives over a mixture of domains (Hou et al., KDD 2022, section 2.4).

    sequence-item: the state against the next item, negatives from the whole batch, all domains and all processes.
    sequence-sequence (weight ``sequence_loss_weight``): the last state against that of an augmented view.

    NOTE: with ``every_step`` each step of a history has its own sequence-item term, and the candidates are all unique
    items of the global batch, histories included, or those of the target's own domain among them (``domain_offsets``),
    weighted by their chance (``table_log_chances``); the authors use one target a row and the targets alone. The other
    items of a step's own history are no candidates (``own_items``), as they hardly ever are with the authors.
    """

    def __init__(self, config: RetrConfig):
        if config.uses_ids:
            raise ValueError(
                f'item_features="{config.item_features}": pre-training mixes catalogues, whose ids have nothing in '
                'common; use item_features="text"'
            )
        if config.direction != "causal":
            raise ValueError(
                f'direction="{config.direction}": in pre-training the target of every step is the next item, which a '
                'bidirectional body would read; use direction="causal"'
            )
        if config.repeat_term and not config.every_step:
            raise ValueError("repeat_term=True in pre-training is learned at every step: set every_step=True")
        super().__init__(config)

    @can_return_tuple
    @antithetic
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        text_embeddings: torch.FloatTensor | None = None,
        table_item_ids: torch.LongTensor | None = None,
        length_groups: Sequence[tuple[int, int]] | None = None,
        times: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        sequence_ends: torch.LongTensor | None = None,
        view_input_ids: torch.LongTensor | None = None,
        view_attention_mask: torch.Tensor | None = None,
        view_position_ids: torch.LongTensor | None = None,
        view_length_groups: Sequence[tuple[int, int]] | None = None,
        view_sequence_ends: torch.LongTensor | None = None,
        view_times: torch.LongTensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        num_sequences_in_batch: int | torch.Tensor | None = None,
        table_log_chances: torch.FloatTensor | None = None,
        domain_offsets: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> RetrOutput:
        """Contrastive loss of a batch of histories.

        input_ids, attention_mask, position_ids, length_groups: histories, as for ``RetrModel.forward``.
        text_embeddings: [M, T] the batch's items, row 0 padding; rows of word-dropped texts may follow for the view.
        table_item_ids: [M] an id of each row that is unique over all domains (0: padding or a view's row).
        labels: [B, N] row of the next item at each step, -100 where there is no target.
        sequence_ends: [S] flat position (row * N + column) of the last item of each of the S histories.
        times: [B, N] seconds, for attentions that read them.
        view_*: the same histories, augmented; [B', N'], and view_sequence_ends [S] in the same order.
        num_items_in_batch, num_sequences_in_batch: targets and histories of the global batch (None: of this call). With
            the first alone the sequence-sequence term is this call's mean, weighted by its share of the targets.
        table_log_chances: [M] log of the chance that each item is in a batch (``data.CandidateSampling``), by which
            candidates other than the target are divided; needs ``every_step``, as the next one does.
        domain_offsets: [D + 1] of domains whose items have the ids domain_offsets[k] + 1 .. domain_offsets[k + 1]: the
            candidates of a target are those of its own domain. None: those of all.

        Raises:
            ValueError: labels or table_item_ids are missing; chances or domains without ``every_step``.
        """
        if labels is None or table_item_ids is None:
            raise ValueError("pre-training needs labels [B, N] and table_item_ids [M] (data.collators makes both)")
        if not (self.config.every_step or (table_log_chances is None and domain_offsets is None)):
            raise ValueError("table_log_chances and domain_offsets are read with every_step=True: leave them out")
        item_embeddings = self.encode_items(None, text_embeddings)
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            item_embeddings=item_embeddings,
            length_groups=length_groups,
            times=times,
            **kwargs,
        )
        queries, targets, places, added = self._steps_and_targets(input_ids, outputs, labels, item_embeddings)
        candidates = self.candidate_vectors(item_embeddings)
        if self.config.every_step:
            everyone, ids, row, log_chances = unique_across_processes(candidates, table_item_ids, table_log_chances)
            steps = (input_ids, labels, outputs.position_ids, places)
            terms = [] if added is None else [added]
            if not self.config.own_negatives:
                terms = [hide_own_items(added, *steps)]
            if log_chances is not None and (self.config.own_negatives or added is not None):
                terms.append(undo_chances(table_log_chances, *steps))
            added = None
            if terms:
                rows, values = (torch.cat(parts, dim=1) for parts in zip(*terms, strict=True))
                added = torch.where(rows > 0, row[rows], -1), values
            about = {"added": added, "constant_columns": raw_text_columns(self.config), "log_chances": log_chances}
            if domain_offsets is None:
                loss = softmax_loss(queries, everyone, row[targets], num_items_in_batch, **about)
            else:
                loss = softmax_within_domains(
                    queries, everyone, ids, row[targets], domain_offsets, num_items_in_batch, **about
                )
        else:
            loss = self._contrast(queries, candidates[targets], table_item_ids[targets], num_items_in_batch)

        if self.config.sequence_loss_weight and view_input_ids is not None:
            view = self.model(
                view_input_ids,
                view_attention_mask,
                view_position_ids,
                item_embeddings=item_embeddings,
                length_groups=view_length_groups,
                sequence_ends=view_sequence_ends,
                times=view_times,
                **kwargs,
            )
            # The cosine of two states: the temperature divides one side only.
            states = self.body_queries(outputs.last_hidden_state.flatten(0, 1).index_select(0, sequence_ends))
            views = self.candidate_vectors(view.last_hidden_state.squeeze(1))
            next_items = labels.flatten()[sequence_ends]
            next_ids = torch.where(next_items < 0, 0, table_item_ids[next_items.clamp(min=0)])
            term = self._contrast(states, views, next_ids, num_sequences_in_batch)
            if num_sequences_in_batch is None:  # Trainer counts targets alone
                term = _own_share(term, len(targets), num_items_in_batch)
            loss = loss + self.config.sequence_loss_weight * term
        # The attentions' terms of the view are left out: the view is there for the contrast, and those are of weights.
        return RetrOutput(
            loss=loss + _own_share(outputs.auxiliary_loss, len(targets), num_items_in_batch),
            data_loss=loss,
            last_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            routes=outputs.routes,
            keep_probabilities=outputs.keep_probabilities,
            omegas=outputs.omegas,
            item_embeddings=item_embeddings,
        )

    def _contrast(self, queries, keys, ids, count):
        """In-batch contrast of rows [S, d] with keys [S, d], negatives from every process."""
        all_keys, offset = gather_rows(keys)
        all_ids, _ = gather_rows(ids)
        positives = offset + torch.arange(len(queries), device=queries.device)
        return in_batch_contrastive_loss(queries, all_keys, ids, all_ids, positives, count, self.config.unisrec_compat)


def _own_share(term, targets: int, num_items_in_batch) -> torch.Tensor | float:
    """A term that is a mean over a call (the attentions' own), weighted by its share of the global batch's targets."""
    if term is None or num_items_in_batch is None:
        return 0.0 if term is None else term
    return term * (targets / num_items_in_batch)


# Names the classes for transformers' Auto classes; a copy of this file on the Hub is named by its config instead.
if installed():
    AutoConfig.register(RetrConfig.model_type, RetrConfig, exist_ok=True)
    AutoModel.register(RetrConfig, RetrModel, exist_ok=True)
    AutoModelForPreTraining.register(RetrConfig, RetrForPreTraining, exist_ok=True)
    AutoModelForSequenceClassification.register(RetrConfig, RetrForSequentialRecommendation, exist_ok=True)
