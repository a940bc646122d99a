"""Dirt: what a reader drops from a publisher's file, counted by kind, one sample each; or refused."""

from pathlib import Path

from ...errors import DataError

_SHOWN = 120  # characters of a line in a message


class Dirt:
    """Counts what is dropped.

    Args:
        strict: refuse the first dirty line instead.

    Attributes:
        counts: kind -> how many; a kind reads as words when its underscores are blanks.
        samples: kind -> the first of them: "file:line: 'text' (why)".
    """

    def __init__(self, strict: bool = False):
        self.strict = strict
        self.counts: dict[str, int] = {}
        self.samples: dict[str, str] = {}

    def line(self, kind: str, path: Path, number: int, text: bytes, why: str) -> None:
        """One line of a file that is dropped.

        Raises:
            DataError: if strict.
        """
        sample = f"{path.name}:{number:,}: {shown(text)} ({why})"
        if self.strict:
            raise DataError(
                f"{path.parent / sample}; mend or remove the line, or drop and count such lines by leaving out --strict"
            )
        self.add(kind, 1, sample)

    def cells(self, kind: str, path: Path, count: int, first: str) -> None:
        """Cells of a table that cannot be read; ``first`` says which is the first of them, what it holds and why.

        Raises:
            DataError: if strict.
        """
        if count and self.strict:
            raise DataError(f"{path}, {first}; mend or remove such rows, or have them counted by leaving out --strict")
        self.add(kind, count, f"{path.name}, {first}")

    def add(self, kind: str, count: int, sample: str = "") -> None:
        """What is counted, but never refused: known traits of a source, such as behaviours that are not asked for."""
        if count:
            self.counts[kind] = self.counts.get(kind, 0) + count
            if sample:
                self.samples.setdefault(kind, sample)


def shown(text: bytes) -> str:
    """A line as it is shown in a message: quoted, decoded, cut."""
    decoded = text[: 4 * _SHOWN].decode("utf-8", errors="backslashreplace")
    return repr(decoded if len(decoded) <= _SHOWN else decoded[:_SHOWN] + "...")
