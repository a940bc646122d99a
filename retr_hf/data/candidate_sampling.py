"""Candidates beside the items of a batch in pre-training, and the chance of each item to be among them."""

import numpy as np

from .training_sequences import TrainingSequences


class CandidateSampling:
    """Draws items of all domains, all alike, and knows how likely each item is in a batch.

        q_j = 1 - (1 - E / I) e^(-λ_j),    λ_j = B Σ_k share_k · rate_kj

    I items of all domains, E of them drawn, without replacement; B histories a batch, of which share_k are of domain k;
    rate_kj how often j stands in one of those. λ_j is the expected number of places of j in the histories of a batch,
    and e^(-λ_j) the chance of none, as if places were independent (Poisson).

    A softmax over a batch's own items takes popular items for negatives again and again and rare ones never, so a model
    of texts learns to avoid what popular items look like. Dividing each candidate by its chance makes the sum over them
    an estimate of the sum over all items (Bengio & Senécal, *Adaptive Importance Sampling to Accelerate Training of a
    Neural Probabilistic Language Model*, IEEE Trans. Neural Networks 19(4), 2008; as logQ correction: Yi et al.,
    *Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations*, RecSys 2019).

    Attributes:
        log_chances: [I + 1] float32, log q_j under global ids; 0 for padding.

    Args:
        sequences: the training sequences, every step a target.
        quotas: [D] examples of each domain an epoch (``Mixture.quotas``).
        batch_size: B, histories of a micro-batch, over all processes.
        number: E; more than there are items draws all.
    """

    def __init__(self, sequences: TrainingSequences, quotas: np.ndarray, batch_size: int, number: int):
        self.num_items = int(sequences.id_offsets[-1])
        self.number = min(number, self.num_items)
        of_domain = np.repeat(batch_size * quotas / quotas.sum(), np.diff(sequences.id_offsets))  # [I]
        absent = np.exp(-of_domain * sequences.item_rates()) * (1 - self.number / self.num_items)
        self.log_chances = np.zeros(self.num_items + 1, dtype=np.float32)
        with np.errstate(divide="ignore"):  # an item that is never drawn and never read has no chance, and no row
            self.log_chances[1:] = np.log1p(-absent)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """[E] global ids, each once."""
        return 1 + rng.choice(self.num_items, self.number, replace=False, shuffle=False)
