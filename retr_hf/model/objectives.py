"""The objectives of the recommendation head by name: a table from ``RetrConfig.objective`` to what computes it.

Letters as in losses.py: T targets, M items of the catalogue without its padding row, d width.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from .configuration_retr import RetrConfig
from .losses import bce_loss, bpr_loss, softmax_loss
from .pairwise_losses import bpr_max, pairwise_loss, top1, top1_max
from .sampled_losses import draw_other_items, draw_shared_items, gbce_beta, gbce_loss, sampled_softmax_loss
from .sce_loss import sce_buckets, sce_loss

# Their negatives are chosen where histories are known, by the collator; the others draw their own or need none.
NEEDS_NEGATIVES = ("bpr", "bce")


def recommendation_loss(
    config: RetrConfig,
    queries: torch.Tensor,
    items: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor | None = None,
    num_targets: int | torch.Tensor | None = None,
    item_counts: torch.Tensor | None = None,
    added: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """The loss that ``config.objective`` names, a scalar.

    Args:
        config: its ``objective`` and the fields that belong to it.
        queries: [T, d], scaled so that score = query · item.
        items: [M, d], without the padding row.
        targets: [T] rows of ``items``, 0 … M - 1.
        negatives: [T] rows of ``items``, for the objectives in ``NEEDS_NEGATIVES``.
        num_targets: number of targets in the global batch; None means those of this call.
        item_counts: [M] how often each item occurs in training, for ``negative_sampling="popularity"``.
        added: what some items of each target are given beside the product (``softmax_loss``, and no other objective).

    What is drawn here comes from torch's default generator, on the device of ``queries``.

    Raises:
        ValueError: negatives or item_counts are missing where the configuration needs them.
    """
    if config.objective in NEEDS_NEGATIVES and negatives is None:
        raise ValueError(
            f'objective="{config.objective}" compares each target with one negative, and none came: pass negatives, '
            "one row of items a target"
        )
    return LOSSES[config.objective](config, queries, items, targets, negatives, num_targets, item_counts, added)


def raw_text_columns(config: RetrConfig) -> int:
    """How many of an item's last columns are its raw text (``history_terms``): data, which has no gradient."""
    return config.text_size if config.text_path else 0


def _softmax(config, queries, items, targets, negatives, num_targets, item_counts, added):
    constants = raw_text_columns(config)
    return softmax_loss(queries, items, targets, num_targets, added=added, constant_columns=constants)


def _shared_negatives(config, items, item_counts):
    """``draw_shared_items`` as the config wants it."""
    if config.negative_sampling == "uniform":
        item_counts = None
    elif item_counts is None or len(item_counts) != len(items):
        came = "none" if item_counts is None else len(item_counts)
        raise ValueError(
            f'negative_sampling="popularity" draws by how often each of the {len(items)} items occurs in training: '
            f"expected item_counts [{len(items)}], {came} came"
        )
    else:
        item_counts = item_counts.double() ** config.popularity_power
    return draw_shared_items(len(items), config.num_negatives, item_counts, items.device)


def _sampled_softmax(config, queries, items, targets, negatives, num_targets, item_counts, added):
    drawn, log_expected = _shared_negatives(config, items, item_counts)
    return sampled_softmax_loss(queries, items, targets, drawn, log_expected, num_targets)


def _pairwise(config, queries, items, targets, negatives, num_targets, item_counts, added):
    weight, elu = config.bpr_max_regularisation, config.bpr_max_elu
    loss = {"top1": top1, "top1_max": top1_max, "bpr_max": partial(bpr_max, weight=weight, elu=elu)}[config.objective]
    drawn, _ = _shared_negatives(config, items, item_counts)
    return pairwise_loss(queries, items, targets, drawn, loss, num_targets)


def _gbce(config, queries, items, targets, negatives, num_targets, item_counts, added):
    drawn = draw_other_items(targets, len(items), config.num_negatives)
    beta = gbce_beta(len(items), config.num_negatives, config.gbce_calibration)
    return gbce_loss(queries, items, targets, drawn, beta, num_targets)


def _sce(config, queries, items, targets, negatives, num_targets, item_counts, added):
    states, candidates = sce_buckets(queries, items, config.sce_bucket_size)
    return sce_loss(queries, items, targets, states, candidates, num_targets)


def _with_one_negative(loss: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A loss of vectors (queries, positives, negatives) as one of rows of the items."""

    def loss_of_rows(config, queries, items, targets, negatives, num_targets, item_counts, added):
        positives, others = (nn.functional.embedding(rows, items) for rows in (targets, negatives))
        return loss(queries, positives, others, num_targets)

    return loss_of_rows


LOSSES = {
    "softmax": _softmax,
    "sampled_softmax": _sampled_softmax,
    "bpr": _with_one_negative(bpr_loss),
    "bce": _with_one_negative(bce_loss),
    "gbce": _gbce,
    "sce": _sce,
    "top1": _pairwise,
    "top1_max": _pairwise,
    "bpr_max": _pairwise,
}
