"""The table of objectives, and what each name asks for."""

from functools import partial

import pytest
import torch

from retr_hf.model.configuration_retr import OBJECTIVES, RetrConfig
from retr_hf.model.losses import bce_loss, bpr_loss, softmax_loss
from retr_hf.model.objectives import LOSSES, NEEDS_NEGATIVES, recommendation_loss
from retr_hf.model.pairwise_losses import bpr_max, pairwise_loss, top1, top1_max
from retr_hf.model.sampled_losses import draw_other_items, draw_shared_items, gbce_beta, gbce_loss, sampled_softmax_loss
from retr_hf.model.sce_loss import sce_buckets, sce_loss

TARGETS, ITEMS, WIDTH = 30, 12, 4
targets, negatives = torch.arange(TARGETS) % ITEMS, (torch.arange(TARGETS) + 5) % ITEMS
counts = torch.arange(ITEMS)


def batch():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, WIDTH, generator=generator).requires_grad_() for rows in (TARGETS, ITEMS)]


def config(objective, **fields):
    return RetrConfig(objective=objective, num_negatives=5, gbce_calibration=0.4, sce_bucket_size=3, **fields)


def test_every_choice_of_the_config_is_in_the_table():
    assert tuple(LOSSES) == OBJECTIVES and set(NEEDS_NEGATIVES) < set(OBJECTIVES)


# What a name stands for, with the fields of the config in their places: config, queries, items -> loss over 40 targets.
MEANING = [
    (config("softmax"), lambda q, e: softmax_loss(q, e, targets, 40)),
    (config("bpr"), lambda q, e: bpr_loss(q, e[targets], e[negatives], 40)),
    (config("bce"), lambda q, e: bce_loss(q, e[targets], e[negatives], 40)),
    (
        config("gbce"),
        lambda q, e: gbce_loss(q, e, targets, draw_other_items(targets, ITEMS, 5), gbce_beta(ITEMS, 5, 0.4), 40),
    ),
    (
        config("sampled_softmax"),
        lambda q, e: sampled_softmax_loss(q, e, targets, *draw_shared_items(ITEMS, 5), 40),
    ),
    (
        config("sampled_softmax", negative_sampling="popularity"),
        lambda q, e: sampled_softmax_loss(q, e, targets, *draw_shared_items(ITEMS, 5, counts), 40),
    ),
    (
        config("top1"),
        lambda q, e: pairwise_loss(q, e, targets, draw_shared_items(ITEMS, 5)[0], top1, 40),
    ),
    (
        config("top1_max", negative_sampling="popularity"),
        lambda q, e: pairwise_loss(q, e, targets, draw_shared_items(ITEMS, 5, counts)[0], top1_max, 40),
    ),
    (
        config(
            "bpr_max", negative_sampling="popularity", popularity_power=0.5, bpr_max_elu=0, bpr_max_regularisation=3
        ),
        lambda q, e: pairwise_loss(
            q, e, targets, draw_shared_items(ITEMS, 5, counts**0.5)[0], partial(bpr_max, weight=3, elu=0), 40
        ),
    ),
    (config("sce"), lambda q, e: sce_loss(q, e, targets, *sce_buckets(q, e, 3), 40)),
]


@pytest.mark.parametrize(
    ("config", "meaning"), MEANING, ids=[f"{c.objective}-{c.negative_sampling}" for c, _ in MEANING]
)
def test_a_name_computes_what_it_says(config, meaning):
    """And draws what is drawn from torch's default generator."""
    results = []
    for loss in (
        lambda q, e: recommendation_loss(config, q, e, targets, negatives, 40, counts),
        meaning,
    ):
        torch.manual_seed(0)
        queries, items = batch()
        value = loss(queries, items)
        results.append((value.detach(), *torch.autograd.grad(value, (queries, items))))
    assert results[0][0].shape == () and results[0][0] > 0
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("objective", NEEDS_NEGATIVES)
def test_missing_negatives_are_named(objective):
    with pytest.raises(ValueError, match=f"{objective}.*negatives"):
        recommendation_loss(config(objective), *batch(), targets)


@pytest.mark.parametrize(("item_counts", "came"), [(None, "none came"), (torch.ones(ITEMS + 1), "13 came")])
def test_missing_counts_are_named(item_counts, came):
    popular = config("sampled_softmax", negative_sampling="popularity")
    with pytest.raises(ValueError, match=rf"item_counts \[12\], {came}"):
        recommendation_loss(popular, *batch(), targets, item_counts=item_counts)


def test_config_tells_all_mistakes_at_once():
    with pytest.raises(Exception) as caught:
        RetrConfig(
            objective="gbce", negative_sampling="popularity", gbce_calibration=1.5, num_negatives=0, sce_bucket_size=0
        )
    for field in ("negative_sampling", "gbce_calibration", "num_negatives", "sce_bucket_size"):
        assert field in str(caught.value)
    with pytest.raises(Exception, match="objective='ce': expected one of 'softmax', 'sampled_softmax'"):
        RetrConfig(objective="ce")
