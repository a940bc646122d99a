"""The training examples of one or several domains: which slice of which history an epoch reads."""

from collections.abc import Sequence

import numpy as np

from .ragged import RaggedBatch, gather_ragged

_HISTORIES_AT_ONCE = 2**16


class TrainingSequences:
    """Training sequences of several domains, end to end, with item ids made unique across domains.

    An example is a slice of a history; its last item is a target, and with ``every_step`` so is every item after the
    first. Without ``every_step`` every prefix of a history is an example of its own (UniSRec's rows).

    The arrays of the domains are kept as they are, memory maps where they are maps, and read where a batch asks: beside
    them stand two numbers a history, not one an item or a prefix.

    Attributes:
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
        self._parts = list(sequences)
        # Where each domain begins, the domains laid end to end: [D] of histories and of items.
        self._first_history = _starts([len(part.offsets) - 1 for part in self._parts])
        self._first_item = _starts([len(part.item_ids) for part in self._parts])
        lengths = np.concatenate([np.diff(part.offsets) for part in self._parts])
        (self._histories,) = np.nonzero(lengths >= 2)  # [H] those that have an example, over all domains
        placed = [part.offsets + first for part, first in zip(self._parts, self._first_item, strict=True)]
        self._begin = np.concatenate([offsets[:-1] for offsets in placed])[self._histories]
        examples = np.ones_like(self._begin) if every_step else lengths[self._histories] - 1  # of each history
        self._end = self._begin + lengths[self._histories]
        self._first_example = None if every_step else _starts(examples)  # [H]
        bounds = np.searchsorted(self._histories, [*self._first_history, len(lengths)])
        self.domain_sizes = np.diff(np.concatenate([[0], np.cumsum(examples)])[bounds])

    def __len__(self) -> int:
        """Number of examples."""
        return int(self.domain_sizes.sum())

    @property
    def item_ids(self) -> np.ndarray:
        """[total] int64 global ids: the catalogue index plus ``id_offsets`` of its domain (0 stays padding); a copy."""
        parts = zip(self._parts, self.id_offsets, strict=False)
        return np.concatenate([part.item_ids.astype(np.int64) + offset for part, offset in parts])

    @property
    def owners(self) -> np.ndarray:
        """[examples] the history that each example is a slice of, counted over all domains."""
        return self._histories[self._of(np.arange(len(self)))]

    def slices(self, examples: np.ndarray, rng: np.random.Generator) -> RaggedBatch:
        """The examples' items, times and owners, ``max_length`` + 1 items at most; ``rng`` places random windows.

        Times are None where a domain comes without.
        """
        history = self._of(examples)
        begin = self._begin[history]
        if self._first_example is None:
            end = self._end[history]
        else:
            end = begin + 2 + examples - self._first_example[history]
        surplus = np.maximum(end - begin - (self.max_length + 1), 0)
        shift = rng.integers(0, surplus + 1) if self.window == "random" else surplus
        begin = begin + shift
        lengths = np.minimum(end - begin, self.max_length + 1)
        times = [part.timestamps for part in self._parts]
        timed = not any(each is None for each in times)
        return RaggedBatch(
            self._gather([part.item_ids for part in self._parts], self.id_offsets, begin, lengths),
            lengths,
            self._gather(times, np.zeros_like(self.id_offsets), begin, lengths) if timed else None,
            self._histories[history],
        )

    def item_rates(self) -> np.ndarray:
        """[I] how often an item, global id 1 first, stands in an example of its domain, on average over the epochs;
        with ``every_step``, where an example is a history, of a long one the part that is read."""
        read, rates = self.max_length + 1, []
        for part, items, examples in zip(self._parts, np.diff(self.id_offsets), self.domain_sizes, strict=True):
            counts = np.zeros(items + 1)
            for first in range(0, len(part.offsets) - 1, _HISTORIES_AT_ONCE):
                offsets = np.asarray(part.offsets[first : first + _HISTORIES_AT_ONCE + 1], dtype=np.int64)
                lengths = np.diff(offsets)
                place = np.arange(offsets[-1] - offsets[0]) - np.repeat(offsets[:-1] - offsets[0], lengths)
                windows = np.repeat(np.maximum(lengths - read, 0) + 1, lengths)  # how many there are, the last one last
                if self.window == "last":
                    share = (place >= windows - 1).astype(float)
                else:
                    share = (np.minimum(place, windows - 1) - np.maximum(place - read, -1)) / windows
                share[np.repeat(lengths < 2, lengths)] = 0
                counts += np.bincount(part.item_ids[offsets[0] : offsets[-1]], share, minlength=items + 1)
            rates.append(counts[1:] / max(1, examples))
        return np.concatenate(rates)

    def seen(self) -> np.ndarray:
        """What each owner has in its whole history, however long: ascending owner * (items + 1) + item, each once."""
        lengths = np.concatenate([np.diff(part.offsets) for part in self._parts])
        owner = np.repeat(np.arange(len(lengths)), lengths)
        return np.unique(owner * (int(self.id_offsets[-1]) + 1) + self.item_ids)

    def _of(self, examples: np.ndarray) -> np.ndarray:
        """Which of the H histories each example is a slice of."""
        if self._first_example is None:
            return examples
        return np.searchsorted(self._first_example, examples, side="right") - 1

    def _gather(self, arrays: list, plus: np.ndarray, begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Slices of arrays that lie end to end, int64 [sum(lengths)]; to what is of domain k, ``plus[k]`` is added."""
        domain = np.searchsorted(self._first_item, begin, side="right") - 1
        values, of_value = np.empty(lengths.sum(), dtype=np.int64), np.repeat(domain, lengths)
        for number in np.unique(domain):
            mine = domain == number
            values[of_value == number] = plus[number] + gather_ragged(
                arrays[number], begin[mine] - self._first_item[number], lengths[mine]
            )
        return values


def _starts(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each of several runs begins that lie end to end."""
    return np.cumsum(counts) - counts
