"""Quotes of a csv that are never closed: the records after one become part of its text, so texts are searched."""

from pathlib import Path

import polars as pl

from ...errors import DataError
from .dirt import Dirt, shown


def check_ids_in_one_line(path: Path, ids: pl.DataFrame) -> None:
    """Refuses ids that hold a line end.

    Raises:
        DataError: there is one.
    """
    if any(ids.select(pl.all().str.contains("\n", literal=True).any()).row(0)):
        raise DataError(
            f"{path}: expected ids in one line, but one holds a line end: a quote that is never closed? mend it"
        )


def note_whole_records(path: Path, texts: pl.DataFrame, dirt: Dirt) -> None:
    """Counts texts that have a line with as many fields as the header, none beginning with a blank as the words of
    prose do after a comma; as a finding, for prose may look so all the same.

    Args:
        path: of the csv.
        texts: [rows] String, some records with all their columns.
        dirt: what counts.

    Raises:
        DataError: there is one, and ``dirt`` is strict.
    """
    record = rf"(?m)\n(?:[^,\s][^,\n]*)?(?:,(?:[^,\s][^,\n]*)?){{{texts.width - 1}}}\r?$"
    for column in texts.iter_columns():
        over_lines = column.filter(column.str.contains("\n", literal=True))
        if not (holding := over_lines.filter(over_lines.str.contains(record))).len():
            continue
        sample = f"{path.name}: {shown(holding[0].encode())} (in column {column.name!r}; a quote that is never closed?)"
        if dirt.strict:
            raise DataError(
                f"{path.parent / sample}: expected texts, but {holding.len():,} or more hold whole records; close the "
                "quote, or count such texts by leaving out --strict"
            )
        dirt.add(f"texts_of_{path.name}_that_hold_whole_records", holding.len(), sample)
