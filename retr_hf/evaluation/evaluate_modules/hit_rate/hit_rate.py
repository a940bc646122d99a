"""HR@k as a module of `evaluate`."""

import retr_hf.evaluation.metrics as metrics
import retr_hf.evaluation.ranked_lists as ranked_lists


class HitRate(ranked_lists.RankedListMetric):
    """HR@k = mean_u [r_u <= k], with one relevant item the same as recall@k."""

    description = "Hit rate: the share of users whose relevant item is among the first k of their ranked list."

    def scores(self, ranks, num_users, k=(10, 50)):
        """``HR@k`` for one k or several."""
        return {
            f"HR@{cutoff}": ranked_lists.mean_of_found(metrics.hit_rate, ranks, num_users, cutoff)
            for cutoff in ranked_lists.cutoffs_of(k)
        }
