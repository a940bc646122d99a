"""Several domains -> one stream of batches, a pure function of seed, epoch and step: resuming is starting there."""

from collections.abc import Iterator

import numpy as np

from .collators import NextItemCollator, PreTrainingCollator
from .training_sequences import TrainingSequences


class Mixture:
    """How often each domain is read in an epoch, and in which order.

        n'_k = min(n_k, cap)        share_k ∝ n'_k^(1 / temperature)        Σ_k n'_k examples an epoch

    temperature 1 is proportional, a large one uniform (Raffel et al., JMLR 2020, section 3.5.2: examples-proportional
    mixing with an artificial limit, and temperature scaling). A domain's examples are drawn without replacement; what
    one epoch leaves the next one reads, and a domain read more than once an epoch is shuffled anew each time.

    Args:
        domain_sizes: [D] examples of each domain.
    """

    def __init__(self, domain_sizes: np.ndarray, temperature: float = 1.0, cap: int | None = None, seed: int = 0):
        self.domain_sizes, self.seed = np.asarray(domain_sizes, dtype=np.int64), seed
        counted = np.minimum(self.domain_sizes, cap) if cap else self.domain_sizes
        share = np.where(counted > 0, counted.astype(float), 0.0) ** (1 / temperature) * (counted > 0)
        self.quotas = np.rint(counted.sum() * share / share.sum()).astype(np.int64)
        self.quotas = np.where(counted > 0, np.maximum(self.quotas, 1), 0)

    def epoch(self, epoch: int) -> np.ndarray:
        """Examples of an epoch in their order: [Σ quotas] indices into the domains laid end to end."""
        begin = np.cumsum(self.domain_sizes) - self.domain_sizes
        drawn = [
            begin[domain] + self._draw(domain, epoch * quota, (epoch + 1) * quota)
            for domain, quota in enumerate(self.quotas)
            if quota
        ]
        return np.random.default_rng([self.seed, 1, epoch]).permutation(np.concatenate(drawn))

    def _draw(self, domain: int, start: int, stop: int) -> np.ndarray:
        """Places start..stop of the endless row of this domain's shuffles."""
        size = self.domain_sizes[domain]
        cycles = [
            np.random.default_rng([self.seed, 2, domain, cycle]).permutation(size)
            for cycle in range(start // size, -(-stop // size))
        ]
        return np.concatenate(cycles)[start % size :][: stop - start]


class Batches:
    """The batches of a run, and what each process reads of them.

    A global batch holds ``batch_size`` sequences whatever the number of processes and micro-batches; process p of P
    reads its sequences p, p + P, ... Random choices are drawn for the global batch, so the union over processes is the
    same. The rest of an epoch that cannot give every process a sequence in every micro-batch is left out.

    Args:
        collate: makes the arrays of a micro-batch; its ``counts`` of the global batch are added to each.
        accumulation: micro-batches a global batch is cut into.
        process, num_processes: p and P.

    Raises:
        ValueError: batches too small to give every process a sequence in every micro-batch.
    """

    def __init__(
        self,
        sequences: TrainingSequences,
        mixture: Mixture,
        collate: NextItemCollator | PreTrainingCollator,
        batch_size: int,
        accumulation: int = 1,
        process: int = 0,
        num_processes: int = 1,
    ):
        self.sequences, self.mixture, self.collate = sequences, mixture, collate
        self.batch_size, self.accumulation = batch_size, accumulation
        self.mine = slice(process, None, num_processes)
        # Every process must have a sequence in every micro-batch, or a collective operation would wait for ever.
        total, needed = int(mixture.quotas.sum()), num_processes * accumulation
        if min(total, batch_size) < needed:
            raise ValueError(
                f"expected batches of at least {needed} sequences, for {num_processes} processes x {accumulation} "
                f"micro-batches, came batch_size {batch_size} and {total} training sequences an epoch: use fewer "
                "processes and micro-batches, or larger batches"
            )
        rest = total % batch_size
        self.dropped = rest if rest < needed else 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        return -(-(int(self.mixture.quotas.sum()) - self.dropped) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[dict[str, np.ndarray | int]]]:
        """The batches of an epoch from step ``start`` on, each a list of micro-batches for this process."""
        order = self.mixture.epoch(epoch)
        for step in range(start, self.steps_per_epoch):
            examples = order[step * self.batch_size : (step + 1) * self.batch_size]
            rng = np.random.default_rng([self.mixture.seed, 3, epoch, step])
            whole = self.sequences.slices(examples, rng)
            counts = self.collate.counts(whole)
            yield [
                self.collate(whole.select(part), rng, self.mine) | counts
                for part in np.array_split(np.arange(len(examples)), self.accumulation)
            ]
