"""A column of lists: list columns as they are, lists written as text split at blanks.

Text that lists its values in another way (``['3', '0']`` of a data frame, ``2,9,1``) would give wrong ids without a
word. It is refused: at once where a value begins with a bracket; at the end of the file where ``,``, ``;`` or ``|``
stand in it and no row has two values with nothing but blanks between them.
"""

from pathlib import Path

import polars as pl

from ...errors import DataError
from .dirt import shown

_BRACKET = r"^\s*[\[({]"
_BLANKS = r"[^\s,;|]\s+[^\s,;|]"  # between two values, and nothing else
_OTHER = r"[,;|]"


class ListColumn:
    """One column, read in batches.

    Args:
        path: of the file, for messages.
        name: of the column in it.
    """

    def __init__(self, path: Path, name: str):
        self._path, self._name = path, name
        self._blanks, self._other = False, None  # a row with blanks alone was seen; the first with another separator

    def lists(self, column: pl.Series) -> pl.Series:
        """[rows] List, of one batch.

        Raises:
            DataError: a text that begins with a bracket.
        """
        if column.dtype != pl.String:
            return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        if (bracketed := column.filter(column.str.contains(_BRACKET))).len():
            raise self._refusal(bracketed[0])
        self._blanks = self._blanks or bool(column.str.contains(_BLANKS).any())
        if not self._blanks and self._other is None:
            self._other = next(iter(column.filter(column.str.contains(_OTHER)).head(1)), None)
        return column.str.extract_all(r"\S+")

    def check(self) -> None:
        """To be called after the last batch.

        Raises:
            DataError: values are separated by something else than blanks.
        """
        if self._other is not None and not self._blanks:
            raise self._refusal(self._other)

    def _refusal(self, value: str) -> DataError:
        return DataError(
            f"{self._path}: column {self._name!r}: expected values separated by blanks, got {shown(value.encode())}; "
            "lists in csv and tsv are separated by blanks: write them so, or write parquet or jsonl, which have lists"
        )
