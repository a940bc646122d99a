"""MRR as a module of `evaluate`."""

import retr_hf.evaluation.metrics as metrics
import retr_hf.evaluation.ranked_lists as ranked_lists


class Mrr(ranked_lists.RankedListMetric):
    """MRR = mean_u 1 / r_u over the whole list."""

    description = "Mean reciprocal rank of the relevant item, over lists as long as they are."

    def scores(self, ranks, num_users):
        """``MRR``."""
        return {"MRR": ranked_lists.mean_of_found(metrics.mrr, ranks, num_users)}
