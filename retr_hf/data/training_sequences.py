"""The training examples of one or several domains: which slice of which history an epoch reads."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from .ragged import RaggedBatch, gather_ragged


class TrainingSequences:
    """Training sequences of several domains, end to end, with item ids made unique across domains.

    An example is a slice of a history; its last item is a target, and with ``every_step`` so is every item after the
    first. Without ``every_step`` every prefix of a history is an example of its own (UniSRec's rows).

    Attributes:
        item_ids: [total] global ids: the catalogue index plus ``id_offsets`` of its domain (0 stays padding).
        times: [total] int64, or None where a domain comes without timestamps.
        owners: [examples] the history that each example is a slice of, counted over all domains.
        domain_sizes: [D] examples of each domain; examples of a domain are consecutive.
        id_offsets: [D + 1] so that domain k owns the ids id_offsets[k] + 1 .. id_offsets[k + 1].
        max_length: history items N the model reads; a slice holds at most N + 1.

    Args:
        sequences: ``data.domain.Sequences`` of each domain (``PreparedDomain.split``).
        num_items: per domain the number of items of its catalogue.
        window: ``"last"`` keeps the most recent part of a longer history; ``"random"`` draws another part each epoch,
            only with ``every_step``: a prefix moved is another prefix.

    Raises:
        ValueError: random windows without ``every_step``.
    """

    def __init__(
        self,
        sequences: Sequence,
        num_items: Sequence[int],
        max_length: int,
        every_step: bool = True,
        window: str = "last",
    ):
        if window == "random" and not every_step:
            raise ValueError('window="random" needs every_step=True: without it every prefix is an example already')
        self.max_length, self.window = max_length, window
        self.id_offsets = np.concatenate([[0], np.cumsum(num_items)]).astype(np.int64)
        item_ids, begins, ends, owners, sizes, position, histories = [], [], [], [], [], 0, 0
        for part in sequences:
            begin, end = part.offsets[:-1] + position, part.offsets[1:] + position
            owner = np.arange(histories, histories + len(begin))
            histories += len(begin)
            if not every_step:
                prefixes = np.maximum(end - begin - 1, 0)
                begin, owner = np.repeat(begin, prefixes), np.repeat(owner, prefixes)
                nth = np.arange(prefixes.sum()) - np.repeat(np.cumsum(prefixes) - prefixes, prefixes)
                end = begin + nth + 2
            real = end - begin >= 2
            begins.append(begin[real])
            ends.append(end[real])
            owners.append(owner[real])
            sizes.append(int(real.sum()))
            item_ids.append(part.item_ids)
            position += len(part.item_ids)
        self.item_ids = np.concatenate(
            [ids.astype(np.int64) + offset for ids, offset in zip(item_ids, self.id_offsets, strict=False)]
        )
        times = [part.timestamps for part in sequences]
        self.times = None if any(each is None for each in times) else np.concatenate(times)
        self.begin, self.end = np.concatenate(begins), np.concatenate(ends)
        self.owners, self.domain_sizes = np.concatenate(owners), np.array(sizes)
        self._lengths = np.concatenate([np.diff(part.offsets) for part in sequences])

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.begin)

    def slices(self, examples: np.ndarray, rng: np.random.Generator) -> RaggedBatch:
        """The examples' items (at most ``max_length`` + 1), times and owners; ``rng`` places random windows."""
        begin, end = self.begin[examples], self.end[examples]
        surplus = np.maximum(end - begin - (self.max_length + 1), 0)
        shift = rng.integers(0, surplus + 1) if self.window == "random" else surplus
        begin = begin + shift
        lengths = np.minimum(end - begin, self.max_length + 1)
        taken = partial(gather_ragged, first=begin, lengths=lengths)
        times = None if self.times is None else taken(self.times)
        return RaggedBatch(taken(self.item_ids), lengths, times, self.owners[examples])

    def seen(self) -> np.ndarray:
        """What each owner has in its whole history, however long: ascending owner * (items + 1) + item, each once."""
        owner = np.repeat(np.arange(len(self._lengths)), self._lengths)
        return np.unique(owner * (int(self.id_offsets[-1]) + 1) + self.item_ids)
