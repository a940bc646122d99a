"""The Netflix Prize: ratings per movie (`mv_*.txt`) or combined (`combined_data_*.txt`), and `movie_titles.csv`.

From https://www.kaggle.com/datasets/netflix-inc/netflix-prize-data (combined) or the original archive (per movie).
Withdrawn by Netflix in 2010; its terms allowed research and forbade redistribution and finding out who somebody is.

    1:                             the movie of the lines that follow
    1488844,3,2005-09-06           user,rating,day
    movie_titles.csv               1,2003,Dinosaur Planet: id,year,title in Latin-1; titles have commas, unquoted

The dirt, and what becomes of it: times are days, and the file is ordered by movie: the ratings of a user's day keep
that order, by movie number. The year of a few movies is NULL: not read. Lines before any movie line, or after one
that cannot be read, have no movie: dropped and counted.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, RATING, USER_ID
from .blocks import LATIN_1
from .item_text import text_as_unisrec
from .line_formats import EVENT, delimited, seconds
from .raw import RawLog
from .spool import Spool

_MOVIE = re.compile(rb"^([0-9]+):$", re.MULTILINE)
_RATING = delimited(
    {USER_ID: pl.String, RATING: pl.Float32, "date": pl.String}, [USER_ID, RATING, "date"], quoted=False
)


def read_netflix(inputs: Sequence[Path], spool: Spool, *, items: Path | None = None) -> RawLog:
    """Reads the ratings.

    Args:
        inputs: combined_data_*.txt, mv_*.txt, or one folder that holds either (training_set)
        spool: where the compact copy goes.
        items: movie_titles.csv; without it a domain of ids only

    Raises:
        DataError: a folder without such files; see ``Spool.lines``.
    """
    files = [file for path in inputs for file in (_files_of(path) if path.is_dir() else [path])]
    events = spool.lines(
        "events", files, lambda path: _Ratings(), what="a movie (1:) or user,rating,day", per_file=True,
        then=lambda frame: frame.filter(pl.col(USER_ID).is_not_null()),
    )  # fmt: skip
    texts = None
    if items:
        then = text_as_unisrec(["title"], spool.dirt)
        texts = spool.lines("items", [items], _titles, what="id,year,title", encoding=LATIN_1, then=then)
    return RawLog(
        events=events,
        items=texts,
        reader="netflix",
        inputs=[*files, *([items] if items else [])],
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by day; ratings of one day by movie number, as in the files",
    )


def _files_of(folder: Path) -> list[Path]:
    files = sorted(folder.glob("mv_*.txt")) or sorted(folder.glob("combined_data_*.txt"))
    if not files:
        raise DataError(f"{folder}: expected mv_*.txt or combined_data_*.txt, but the folder has neither")
    return files


class _Ratings:
    """The parser of one file, which remembers the movie from block to block."""

    def __init__(self):
        self._movie: str | None = None

    def __call__(self, lines: bytes) -> pl.DataFrame:
        if lines.startswith(b"#") or b"\n#" in lines:
            raise ValueError("expected a movie (1:) or user,rating,day")
        if lines.count(b"\n") == 1 and lines.endswith(b":\n") and not _MOVIE.match(lines):
            self._movie = None  # its ratings are nobody's
        frame = _rows(_MOVIE.sub(rb"#\1,0,1970-01-01", lines)).with_columns(
            pl.coalesce(pl.col(ITEM_ID).forward_fill(), pl.lit(self._movie, pl.String))
        )
        if frame[ITEM_ID].null_count():
            raise ValueError("expected a movie (1:) before the ratings")
        self._movie = frame[ITEM_ID][-1]
        return frame


def _rows(lines: bytes) -> pl.DataFrame:
    """One row a line; the row of a movie has no user."""
    movie = pl.col(USER_ID).str.starts_with("#")
    frame = _RATING(lines).with_columns(
        pl.when(movie).then(pl.col(USER_ID).str.slice(1)).alias(ITEM_ID), seconds("date", "%Y-%m-%d")
    )
    return frame.with_columns(pl.when(~movie).then(USER_ID).alias(USER_ID)).select(*EVENT)


def _titles(lines: bytes) -> pl.DataFrame:
    parts = pl.DataFrame({"line": lines.decode().split("\n")[:-1]}).select(
        pl.col("line").str.extract_groups(r"^([0-9]+),([0-9]{4}|NULL),(.+)$").struct.unnest()
    )
    parts.columns = [ITEM_ID, "year", "title"]
    if parts[ITEM_ID].null_count():
        raise ValueError("expected id,year,title")
    return parts
