"""Two ways of doing the same work, timed in turns, and what the machine can do at best."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

Repetition = Callable[[int], object]  # does the work number n


def alternate(
    sides: Sequence[Repetition], repeats: int, warmup: int = 1, before: Callable[[], object] = lambda: None
) -> np.ndarray:
    """Seconds [sides, repeats]: A B, B A, A B ..., so that what changes on the machine meets all sides alike.

    sides: each does the work number n, the same for all.
    warmup: rounds before, not counted (their numbers come first).
    before: called before each side's turn, its time not counted.
    """
    seconds = np.empty((len(sides), warmup + repeats))
    for n in range(warmup + repeats):
        for side in list(range(len(sides)))[:: 1 if n % 2 == 0 else -1]:
            before()
            start = time.perf_counter()
            sides[side](n)
            seconds[side, n] = time.perf_counter() - start
    return seconds[:, warmup:]


class Ratio(NamedTuple):
    """How many times faster the first side is: median, least and most of the rounds' own ratios."""

    median: float
    least: float
    most: float


def ratio(ours: np.ndarray, other: np.ndarray) -> Ratio:
    """Seconds [repeats] of both -> other / ours."""
    ratios = np.asarray(other) / np.asarray(ours)
    return Ratio(float(np.median(ratios)), float(ratios.min()), float(ratios.max()))


class ProductLimit:
    """GFLOP/s of a float32 product of two square matrices: what a step can reach on this machine, at this moment.

    2 n³ operations a product. Measured between the rounds, for the machine may be shared: a share of the limit is one
    of what could be had meanwhile.
    """

    def __init__(self, size: int = 2048):
        self.a, self.b, self.out = torch.rand(3, size, size).unbind()
        self.rates: list[float] = []
        torch.mm(self.a, self.b, out=self.out)

    def measure(self) -> None:
        """One product more."""
        start = time.perf_counter()
        torch.mm(self.a, self.b, out=self.out)
        self.rates.append(2 * len(self.a) ** 3 / (time.perf_counter() - start) / 1e9)

    @property
    def gflops(self) -> float:
        """Median so far."""
        return float(np.median(self.rates))
