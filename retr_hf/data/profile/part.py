"""How many of how many, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """``count`` of ``whole``; of nothing the share is 0."""

    count: int
    whole: int

    @property
    def share(self) -> float:
        """In 0 .. 1."""
        return self.count / self.whole if self.whole else 0.0

    @property
    def percent(self) -> str:
        """``12.3 %``; what is not nothing never reads as 0, nor what is not all as 100."""
        share = 100 * self.share
        return "< 0.1 %" if 0 < share < 0.05 else "> 99.9 %" if 99.95 <= share < 100 else f"{share:.1f} %"

    def __str__(self) -> str:
        """``1,234 of 5,678 (21.7 %)``."""
        return f"{self.count:,} of {self.whole:,} ({self.percent})"
