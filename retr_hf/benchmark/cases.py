"""The cases: what is done twice. A case builds, of a workload, two functions of the number of a repetition."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from ..data.collators import NextItemCollator, PreTrainingCollator, TextTables
from ..data.mixture import Batches, Mixture
from ..data.ragged import group_by_length
from ..data.training_sequences import TrainingSequences
from ..evaluation.histories import rank_histories
from ..model.behavior_cache import BehaviorCache
from ..model.configuration_retr import RetrConfig
from ..model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation
from .arithmetic import TRAINED, TRAINED_INPUT, adaptor_operations, body_operations, score_operations
from .plain import PlainPreTraining, PlainRecommendation, pad_to, plain_ranks
from .timing import Repetition
from .workload import Workload

USERS_AT_ONCE = 512  # histories that are encoded at a time in ranking, on both sides
BEHAVIOURS = 16  # that arrive one by one in a repetition of serving
TOP = 10


@dataclass(frozen=True)
class Setting:
    """The network that all cases share: width, blocks, heads, inner width, dropout, and its router."""

    hidden_size: int = 256
    layers: int = 2
    heads: int = 4
    inner: int = 256
    dropout: float = 0.2
    router: str = "pathway"

    def config(self, workload: Workload, **fields) -> RetrConfig:
        """The configuration for a workload."""
        return RetrConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.inner,
            hidden_dropout=self.dropout,
            attention_dropout=self.dropout,
            max_position_embeddings=workload.max_length,
            **{"router": self.router, "vocab_size": workload.num_items + 1} | fields,
        )


@dataclass(frozen=True)
class Work:
    """What a repetition does, padding excluded.

    tokens: items that the encoder reads (both views of a history).
    targets: terms of the loss. users: histories that are ranked.
    operations: of the matrix products it needs (arithmetic.py). calls: steps it consists of.
    """

    tokens: int = 0
    targets: int = 0
    users: int = 0
    operations: float = 0.0
    calls: int = 1


@dataclass(frozen=True)
class Pair:
    """Two ways and what they do: ``ours`` and ``other`` do the work number n, which ``work`` tells.

    before: called before each, its time not counted.
    """

    ours: Repetition
    other: Repetition
    work: Callable[[int], Work]
    before: Callable[[], object] = lambda: None


def arrays(batches: Batches, n: int) -> dict:
    """Batch number n, as the heads read it."""
    (batch,) = next(batches.epoch(*divmod(n, batches.steps_per_epoch)))
    return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in batch.items()}


class _Training:
    """Optimiser steps: batch n is collated, read, and learned from."""

    def __init__(self, loss, batches: Batches, fused: bool, constants: dict[str, torch.Tensor]):
        self.loss, self.batches, self.constants = loss.train(), batches, constants
        self.optimizer = torch.optim.AdamW(loss.parameters(), lr=1e-3, fused=fused)

    def __call__(self, n: int) -> None:
        batch = arrays(self.batches, n)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(**batch, **self.constants)
        getattr(loss, "loss", loss).backward()
        self.optimizer.step()


def _layouts(workload: Workload, collator: Callable) -> list[Batches]:
    """The same batches twice: in groups of like length, and padded."""
    sequences = TrainingSequences([workload.train], [workload.num_items], workload.max_length)
    return [
        Batches(sequences, Mixture(sequences.domain_sizes), collator(lay_out=lay_out), workload.batch_size)
        for lay_out in (group_by_length, partial(pad_to, width=workload.max_length))
    ]


def _training(workload: Workload, setting: Setting, against_router: bool = False, **fields) -> Pair:
    """Steps of the recommendation head: grouped rows against padded ones, or a router against none."""
    config = setting.config(workload, **fields)
    constants = {}
    if config.uses_text:
        constants["text_embeddings"] = torch.from_numpy(workload.text_vectors(None))
        config.text_size = constants["text_embeddings"].shape[1]
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(config)
    collator = partial(NextItemCollator, workload.num_items, negatives=config.objective == "bpr")
    grouped, padded = _layouts(workload, collator)
    if against_router:
        routerless = RetrForSequentialRecommendation(setting.config(workload, **fields | {"router": "none"}))
        other = _Training(routerless, grouped, True, constants)
    else:
        other = _Training(PlainRecommendation(deepcopy(model)), padded, False, constants)

    def work(n: int) -> Work:
        batch = arrays(padded, n)
        lengths, targets = batch["attention_mask"].sum(1).numpy(), batch["num_items_in_batch"]
        operations = TRAINED * body_operations(config, lengths)
        operations += TRAINED_INPUT * adaptor_operations(config, workload.num_items)
        if config.objective == "softmax":
            operations += TRAINED * score_operations(config, targets, workload.num_items)
        return Work(int(lengths.sum()), targets, operations=operations)

    return Pair(_Training(model, grouped, True, constants), other, work)


def _pretraining(workload: Workload, setting: Setting, text_size: int) -> Pair:
    """Steps of the pre-training head, histories and views that drop items."""
    config = setting.config(workload, item_features="text", text_size=text_size, vocab_size=1)
    tables = TextTables([workload.text_vectors(text_size)])
    torch.manual_seed(0)
    model = RetrForPreTraining(config)
    collator = partial(PreTrainingCollator, tables)
    grouped, padded = _layouts(workload, collator)
    other = _Training(PlainPreTraining(deepcopy(model)), padded, False, {})

    def work(n: int) -> Work:
        batch = arrays(padded, n)
        lengths, views = (batch[f"{name}attention_mask"].sum(1).numpy() for name in ("", "view_"))
        targets, items = batch["num_items_in_batch"], int((batch["table_item_ids"] > 0).sum())
        operations = body_operations(config, lengths) + body_operations(config, views, last_only=True)
        operations += score_operations(config, targets, items) + score_operations(config, len(views), len(views))
        operations = TRAINED * operations + TRAINED_INPUT * adaptor_operations(config, items)
        return Work(int(lengths.sum() + views.sum()), targets, operations=operations)

    return Pair(_Training(model, grouped, True, {}), other, work)


def _recommender(workload: Workload, setting: Setting) -> tuple[RetrForSequentialRecommendation, torch.Tensor]:
    torch.manual_seed(0)
    model = RetrForSequentialRecommendation(setting.config(workload, item_features="id", score="dot")).eval()
    return model, model.encode_catalog()


def _ranking(workload: Workload, setting: Setting) -> Pair:
    """All users' targets among all items, both protocols."""
    model, items = _recommender(workload, setting)
    plain, test, length = PlainRecommendation(model), workload.test, workload.max_length
    lengths = np.minimum(test.lengths - 1, length)
    operations = body_operations(model.config, lengths, last_only=True)
    operations += score_operations(model.config, len(test), workload.num_items)
    done = Work(int(lengths.sum()), users=len(test), operations=operations)
    return Pair(
        lambda n: rank_histories(model, items, test, None, length, USERS_AT_ONCE),
        lambda n: plain_ranks(plain, items, test, length, USERS_AT_ONCE),
        lambda n: done,
    )


def _serving(workload: Workload, setting: Setting, users: int) -> Pair:
    """Some users, behaviours that come one by one, the best ten items after each: the cache against full passes.

    The histories before them are as long as the workload's on average, the whole within what the model reads. All users
    have the same length, so that full passes need no padding.
    """
    model, items = _recommender(workload, setting)
    lengths = np.minimum(workload.test.lengths - 1, workload.max_length)
    before = max(1, min(int(lengths.mean()), workload.max_length - BEHAVIOURS))
    after = range(before, min(before + BEHAVIOURS, workload.max_length))
    rows = np.random.default_rng(2).integers(1, workload.num_items + 1, (users, workload.max_length))
    rows, ones = torch.from_numpy(rows), torch.ones(users, workload.max_length, dtype=torch.long)
    cache, candidates = BehaviorCache(model.model, items, users), model.candidate_vectors(items)

    def best(query: torch.Tensor) -> torch.Tensor:
        return (query @ candidates.T)[:, 1:].topk(min(TOP, workload.num_items)).indices

    @torch.no_grad()
    def cached(n: int) -> None:
        for step in after:
            cache.append(rows[:, step])
            best(model.query_vectors(cache.states()))

    @torch.no_grad()
    def whole(n: int) -> None:
        for step in after:
            best(model.encode_users(rows[:, : step + 1], ones[:, : step + 1], item_embeddings=items))

    return Pair(
        cached,
        whole,
        lambda n: Work(users=users * len(after), calls=len(after)),
        before=lambda: cache.start(rows[:, :before], ones[:, :before]),
    )


@dataclass(frozen=True)
class Case:
    """Something that is done in two ways.

    build: (workload, setting) -> Pair.
    other: what ours is held against.
    text_size: width of the text vectors it reads, 0 for any, None for no texts.
    """

    build: Callable[[Workload, Setting], Pair]
    about: str
    other: str = "plain"
    text_size: int | None = None

    def check(self, workload: Workload) -> None:
        """Raises DataError for a workload without the texts that the case reads."""
        if self.text_size is not None:
            workload.text_vectors(self.text_size or None)


_ID = {"item_features": "id", "score": "dot"}
CASES = {
    "training-bpr": Case(partial(_training, objective="bpr", **_ID), "steps, one negative a target, items by id"),
    "training-softmax": Case(partial(_training, objective="softmax", **_ID), "steps, softmax over all items, by id"),
    "finetuning": Case(
        partial(_training, objective="softmax", item_features="text+id"),
        "steps, softmax over all items, by text (384 wide, or a domain's width) and id",
        text_size=0,
    ),
    **{
        f"pretraining-{size}": Case(
            partial(_pretraining, text_size=size), f"steps, contrast with views, text {size} wide", text_size=size
        )
        for size in (384, 768)
    },
    "router": Case(
        partial(_training, objective="softmax", against_router=True, **_ID | {"router": "pathway"}),
        "training-softmax with the pathway router",
        other="no router",
    ),
    "ranking": Case(_ranking, "all users' targets among all items, encoding included"),
    **{
        f"serving-{users}": Case(
            partial(_serving, users=users),
            f"one more behaviour of each of {users} at once, the ten best items after it",
            other="full pass",
        )
        for users in (1, 64)
    },
}
