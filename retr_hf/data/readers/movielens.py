"""MovieLens: 100K (u.data), 1M (ratings.dat), 10M (ratings.dat), 20M, 25M and 32M (ratings.csv).

From https://grouplens.org/datasets/movielens/ (Harper and Konstan, 2015), unpacked. For research, with
acknowledgement; redistribution and commercial use need the permission of GroupLens (see README of each release).

    ml-100k   u.data       user TAB item TAB rating TAB time       u.item      id|title|date|...|19 genre flags, latin-1
    ml-1m     ratings.dat  user::item::rating::time                movies.dat  id::title::genre|genre, latin-1
    ml-20m    ratings.csv  userId,movieId,rating,timestamp         movies.csv  movieId,title,genres, quoted where needed

The dirt, and what becomes of it: a film may stand under two ids, and one of 100K is called "unknown": kept. "(no
genres listed)" is no genre. Users rate whole lists in one sitting, so that many of their times are equal: these keep
file order, which is by user in 1M, 20M and 32M, and by nothing in 100K.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, RATING, TIMESTAMP, USER_ID
from .blocks import LATIN_1
from .item_text import text_as_unisrec
from .line_formats import EVENT, delimited
from .raw import RawLog
from .spool import Spool

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_EVENT = {name: EVENT[name] for name in (USER_ID, ITEM_ID, RATING, TIMESTAMP)}
_ITEM = {ITEM_ID: pl.String, "title": pl.String, "genres": pl.String}
_U_ITEM = {
    ITEM_ID: pl.String, "title": pl.String, "date": pl.String, "video": pl.String, "address": pl.String,
    **dict.fromkeys(GENRES, pl.String),
}  # fmt: skip
_HEADERS = {"ratings.csv": b"userId,movieId,rating,timestamp", "movies.csv": b"movieId,title,genres"}


def read_movielens(inputs: Sequence[Path], spool: Spool) -> RawLog:
    """Reads a release, told by the names of its files.

    Args:
        inputs: the unpacked folder (ml-100k, ml-1m, ml-20m, ml-32m, ...)
        spool: where the compact copy goes.

    Raises:
        DataError: the folder holds no release, or see ``Spool.lines``.
    """
    folder = inputs[0]
    separators = {"u.data": "\t", "ratings.dat": "::", "ratings.csv": ","}
    ratings = next((folder / name for name in separators if (folder / name).is_file()), None)
    if len(inputs) != 1 or ratings is None:
        raise DataError(
            f"{folder}: expected one unpacked folder of MovieLens with {', '.join(separators)}; unpack the zip and "
            "pass the folder in it, such as --input ml-1m"
        )
    parse = delimited(_EVENT, list(EVENT), separators[ratings.name], quoted=False)
    events = spool.lines("events", [ratings], parse, what="user, item, rating, time", first_line=_is_header)
    movies = folder / {"u.data": "u.item", "ratings.dat": "movies.dat", "ratings.csv": "movies.csv"}[ratings.name]
    items = None
    if movies.is_file():
        items = spool.lines(
            "items", [movies], {"u.item": _u_item, "movies.dat": _movies_dat, "movies.csv": _movies_csv}[movies.name],
            what="id, title, genres", encoding="utf-8" if movies.suffix == ".csv" else LATIN_1, first_line=_is_header,
            then=text_as_unisrec(["title", "genres"], spool.dirt),
        )  # fmt: skip
    return RawLog(
        events=events,
        items=items,
        reader="movielens",
        inputs=[ratings, *([movies] if items is not None else [])],
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
    )


def _is_header(path: Path, line: bytes) -> bool:
    expected = _HEADERS.get(path.name)
    if expected and line != expected:
        raise DataError(
            f"{path}: expected the header {expected.decode()}, got {line[:100]!r}; take the file as released"
        )
    return expected is not None


def _u_item(lines: bytes) -> pl.DataFrame:
    read = delimited(_U_ITEM, [ITEM_ID, "title"], "|", quoted=False)(lines)
    flags = pl.read_csv(io.BytesIO(lines), has_header=False, schema=_U_ITEM, separator="|", quote_char=None)
    genres = pl.concat_list(pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES[1:]).list.drop_nulls()
    return read.with_columns(flags.select(genres.alias("genres")))


def _movies_dat(lines: bytes) -> pl.DataFrame:
    return _with_genres(delimited(_ITEM, [*_ITEM], "::", quoted=False)(lines))


def _movies_csv(lines: bytes) -> pl.DataFrame:
    return _with_genres(delimited(_ITEM, [*_ITEM])(lines))


def _with_genres(films: pl.DataFrame) -> pl.DataFrame:
    return films.with_columns(pl.col("genres").replace("(no genres listed)", "").str.split("|"))
