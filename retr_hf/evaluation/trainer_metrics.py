"""HR@k, NDCG@k and MRR in ``transformers.Trainer``: one rank a user is kept, never users x items.

Trainer(..., preprocess_logits_for_metrics=ranks_of_targets, compute_metrics=RankingMetrics([10, 50]))
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..errors import DataError
from .comparison import not_below
from .metrics import metrics_from_ranks


@torch.no_grad()
def ranks_of_targets(logits: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Rank of each row's target among all items, int64 [B]: the protocol ``full`` of ranking.py, ties and all.

    Args:
        logits: [B, M] scores of the item table, padding row 0 at -inf; of several outputs, the first.
        labels: [B, N], -100 where there is no target; the last target of a row is ranked.

    Raises:
        DataError: rows without a target, scores that are not finite.

    NOTE: the scores are the logits as the model gives them, in its precision and autocast; ranking.py sums products in
    float64. Ranks can differ where two scores are as close as that.
    """
    scores = logits[0] if isinstance(logits, tuple) else logits
    real = labels != -100
    if not real.any(dim=1).all():
        raise DataError("expected one target a row in evaluation: eval_dataset=last_as_label(rows['validation'])")
    if not torch.stack(scores[:, 1:].aminmax()).isfinite().all():
        raise DataError("the model gives scores that are not finite, which have no rank: see the log of its training")
    places = torch.arange(labels.shape[1], device=labels.device)
    last = torch.where(real, places, -1).amax(dim=1, keepdim=True)  # [B, 1]
    target = labels.gather(1, last).to(scores.device)
    return not_below(scores, scores.gather(1, target)).sum(dim=1)  # the target counts itself: 1 is the best rank


class RankingMetrics:
    """``compute_metrics`` from the ranks of ``ranks_of_targets``, under their printed names (``eval_NDCG@10`` ...).

    Works with ``batch_eval_metrics=True`` too, which keeps nothing but the ranks.

    Args:
        cutoffs: k of HR@k and NDCG@k.
    """

    def __init__(self, cutoffs: Sequence[int] = (10, 50)):
        self.cutoffs, self._ranks = tuple(cutoffs), []

    def __call__(self, prediction, compute_result: bool | None = None) -> dict[str, float]:
        """prediction: ``EvalPrediction`` of a whole evaluation, or with ``compute_result`` of one batch, the last one's
        being True. Raises DataError where predictions are no ranks."""
        ranks = np.asarray(torch.as_tensor(prediction.predictions).cpu())
        if ranks.ndim != 1:
            raise DataError(
                f"expected one rank a user, came predictions of shape {list(ranks.shape)}: "
                "Trainer(preprocess_logits_for_metrics=ranks_of_targets)"
            )
        if compute_result is None:
            return metrics_from_ranks(ranks, self.cutoffs)
        self._ranks.append(ranks)
        if not compute_result:
            return {}
        ranks, self._ranks = np.concatenate(self._ranks), []
        return metrics_from_ranks(ranks, self.cutoffs)
