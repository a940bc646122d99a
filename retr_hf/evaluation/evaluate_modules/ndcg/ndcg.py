"""NDCG@k as a module of `evaluate`."""

import retr_hf.evaluation.metrics as metrics
import retr_hf.evaluation.ranked_lists as ranked_lists


class Ndcg(ranked_lists.RankedListMetric):
    """NDCG@k = mean_u [r_u <= k] / log2(r_u + 1)."""

    description = "Normalised discounted cumulative gain of the first k places, with one relevant item of gain 1."

    def scores(self, ranks, num_users, k=(10, 50)):
        """``NDCG@k`` for one k or several."""
        return {
            f"NDCG@{cutoff}": ranked_lists.mean_of_found(metrics.ndcg, ranks, num_users, cutoff)
            for cutoff in ranked_lists.cutoffs_of(k)
        }
