"""Plain tables: logs (`user_id, item_id[, timestamp, rating]`) or sequences (`user_id, item_ids[, timestamps]`), items.

Parquet, csv, tsv or jsonl (one JSON object a line), the last three also gzipped; read batch by batch (`table_batches`).
The dirt, and what becomes of it:

- ids are read as strings always (007 stays "007" in a csv); a float id column is refused, for "5.0" is not "5";
- a log is sorted by time within each user; equal timestamps keep file order (stable), and without a timestamp column
  file order is the order; users stay in order of first appearance;
- rows without a user, an item or (where the column exists) a timestamp are dropped and counted, or refused by
  ``--strict``; so are records of csv and tsv with too few or too many fields, and lines of jsonl that are no object;
- times may be numbers or dates, as text too (see ``epochs``). Rows whose time cannot be read are dropped and counted,
  or refused by ``--strict``; refused too where most cannot be read, or another unit makes dates of them. Times before
  1990 or after 2099 are kept and counted;
- text that lists values otherwise than separated by blanks is refused (see ``text_lists``), as is csv that is not
  UTF-8;
- an id that holds a line end is refused; texts of a csv that hold whole records, as behind a quote that is never
  closed, are counted and one is shown, or refused by ``--strict``;
- a rating that is no number is counted, or refused by ``--strict``; like a missing one it does not reach any
  ``--min-rating`` (nor is it counted as lower than that);
- repeated interactions of a user with an item are kept: they are behaviour (see ``--duplicates``);
- items without a row in the item table get the text "" and are counted by `prepare`, which refuses a table that has
  none of them; rows of the item table without an id are dropped and counted, two rows with one id are an error;
- one text column is taken as it is. Several are cleaned and joined by blanks, however long (see ``join_text``).
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

import polars as pl

from ...errors import DataError
from ..schema import ITEM_ID, ITEM_IDS, RATING, TEXT, TIMESTAMP, TIMESTAMPS, USER_ID
from .dirt import shown
from .epochs import EARLIEST, LATEST, UNITS, TimeColumn
from .item_text import join_text
from .open_quotes import check_ids_in_one_line
from .raw import UNTIMED, RawLog
from .spool import Spool
from .table_batches import batches, columns_of, other_separators
from .text_lists import ListColumn

_ROW = "row"  # of those that can be read, the first being 1; for messages
_ENOUGH = 10_000  # unreadable times after which a column that has mostly such is given up
_NAME_COLUMNS = "name them with --columns, such as --columns user_id=reviewerID item_id=asin"


def read_tables(
    interactions: str | Path,
    spool: Spool,
    *,
    items: str | Path | None = None,
    items_id: str | None = None,
    columns: Mapping[str, str] | None = None,
    text_columns: Sequence[str] = (TEXT,),
    timestamp_unit: str = "s",
    whole_catalogue: bool = False,
) -> RawLog:
    """Reads one table of interactions and, where there is one, a table of items.

    Args:
        interactions: one row an interaction or one row a user; told apart by the columns. Lists are list columns in
            parquet and jsonl, and separated by blanks in csv and tsv.
        spool: where the compact copy goes.
        items: table with ``item_id`` and the text columns. None: ids only, every text is "".
        items_id: column of the item table that holds the ids. None: as in the log.
        columns: our name -> the name in the files, of ``user_id``, ``item_id``, ``timestamp``, ``rating``,
            ``item_ids``, ``timestamps``; for example ``{"user_id": "reviewerID", "item_id": "asin"}``.
        text_columns: columns of the item table that make the text.
        timestamp_unit: "s", "ms", "us" or "ns" since 1970; dates need no unit. Stored as seconds.
        whole_catalogue: keep all rows of the item table, also items nobody touched.

    Raises:
        DataError: a file that does not exist or cannot be read, missing columns, wrong types, no rows, doubled items
            or users, times that mostly cannot be read or are in another unit; what is dirt, where that is refused.
    """
    names = {key: key for key in (USER_ID, ITEM_ID, TIMESTAMP, RATING, ITEM_IDS, TIMESTAMPS)}
    if unknown := set(columns or {}) - set(names):
        raise DataError(f"columns: expected the names {', '.join(names)}; got {', '.join(sorted(unknown))}")
    if timestamp_unit not in UNITS:
        raise DataError(f"timestamp_unit: expected one of {', '.join(UNITS)}; got {timestamp_unit!r}")
    if items_id and not items:
        raise DataError("items_id: expected with a table of items only; pass --items, or leave out --items-id")
    given, names = set(columns or {}), names | (columns or {})
    interactions, items = Path(interactions), Path(items) if items else None
    events = _events(interactions, spool, names, given, timestamp_unit)
    catalogue = _items(items, spool, items_id or names[ITEM_ID], text_columns) if items else None
    inputs = [interactions, *([items] if items else [])]
    timed = TIMESTAMP in events.collect_schema().names()
    untimed = "by place in the list; no times" if names[ITEM_IDS] in columns_of(interactions) else UNTIMED
    return RawLog(
        events=events,
        items=catalogue,
        reader="tables",
        inputs=inputs,
        options={
            "columns": {key: value for key, value in names.items() if key != value},
            **({"items_id": items_id} if items_id else {}),
            "text_columns": list(text_columns) if items else [],
            "timestamp_unit": timestamp_unit,
            "whole_catalogue": whole_catalogue,
            **({"separators": found} if (found := other_separators(inputs)) else {}),
        },
        dropped=spool.dirt.counts,
        samples=spool.dirt.samples,
        ordered="by time; equal times keep file order" if timed else untimed,
        whole_catalogue=whole_catalogue,
    )


def _events(path: Path, spool: Spool, names: Mapping[str, str], given: Set[str], unit: str) -> pl.LazyFrame:
    there = columns_of(path)
    listed = names[ITEM_IDS] in there
    required, optional = ([USER_ID, ITEM_IDS], [TIMESTAMPS]) if listed else ([USER_ID, ITEM_ID], [TIMESTAMP, RATING])
    asked = [key for key in optional if key in given]  # named by the user, so not to be left out without a word
    _require(path, there, [names[key] for key in (*required, *asked)], _NAME_COLUMNS)
    for key in required:
        (_check_lists if key == ITEM_IDS else _check_ids)(path, names[key], there[names[key]])
    taken = {key: names[key] for key in (*required, *optional) if names[key] in there}
    if RATING in taken and (there[taken[RATING]].is_nested() or there[taken[RATING]] in (pl.Object, pl.Binary)):
        raise DataError(f"{path}: column {taken[RATING]!r}: expected numbers, got {there[taken[RATING]]}")
    wanted = {name: there[name] for name in taken.values()}
    users = []  # of every row of sequences
    lists = {key: ListColumn(path, name) for key, name in taken.items() if key in (ITEM_IDS, TIMESTAMPS)}
    times = TimeColumn(path, unit)

    def frames() -> Iterator[pl.DataFrame]:
        rows = 0
        for batch in _filled(path, batches(path, wanted, spool)):
            frame = pl.DataFrame([batch[theirs].alias(ours) for ours, theirs in taken.items()])
            frame = frame.with_columns(pl.int_range(rows + 1, rows + 1 + frame.height).alias(_ROW))
            rows += frame.height
            if listed:
                users.append(_ids(frame[USER_ID]))
                frame = _exploded(path, frame, spool, lists)
            frame = frame.with_columns(_ids(frame[name]) for name in (USER_ID, ITEM_ID))
            check_ids_in_one_line(path, frame.select(USER_ID, ITEM_ID))
            for column in (USER_ID, ITEM_ID):
                frame = _with(path, frame, column, f"interactions_without_{column}", spool)
            if TIMESTAMP in frame.columns:
                frame = _timed(path, frame, times, spool)
                times.check(_ENOUGH)
                frame = _with(path, frame, TIMESTAMP, f"interactions_without_{TIMESTAMP}", spool)
            if RATING in frame.columns:
                frame = _rated(path, frame, spool)
            yield frame.drop(_ROW)
        times.check()
        for column in lists.values():
            column.check()
        if listed:
            _once(
                path, pl.concat(users), "a user", "join their rows, or write one row an interaction (user_id, item_id)"
            )

    return _spooled(path, spool, "events", frames(), "interactions", "a user, an item and (if given) a timestamp")


def _items(path: Path, spool: Spool, id_column: str, text_columns: Sequence[str]) -> pl.LazyFrame:
    there = columns_of(path)
    _require(path, there, [id_column], "name the column of the item ids with --items-id, such as --items-id product_id")
    _check_ids(path, id_column, there[id_column])
    _require(path, there, text_columns, "name the text columns with --text-columns, such as --text-columns title brand")
    for column in text_columns:
        dtype = there[column]
        inner = dtype.inner if isinstance(dtype, pl.List) else dtype
        if isinstance(inner, (pl.Struct, pl.List, pl.Object)) or inner == pl.Binary:
            raise DataError(f"{path}: text column {column!r}: expected text or lists of text, got {dtype}")
    taken = {name: there[name] for name in (id_column, *text_columns)}
    single = len(text_columns) == 1 and not isinstance(there[text_columns[0]], pl.List)

    def frames() -> Iterator[pl.DataFrame]:
        for batch in _filled(path, batches(path, taken, spool)):
            text = batch[text_columns[0]].cast(pl.String).fill_null("") if single else join_text(batch, text_columns)
            frame = pl.DataFrame([_ids(batch[id_column]).alias(ITEM_ID), text.alias(TEXT)])
            check_ids_in_one_line(path, frame.select(ITEM_ID))
            yield _with(path, frame, ITEM_ID, "item_rows_without_item_id", spool)

    table = _spooled(path, spool, "items", frames(), "items", "an id")
    _once(path, table.select(ITEM_ID).collect(engine="streaming")[ITEM_ID], "an item", "keep one row each")
    return table


def _spooled(path: Path, spool: Spool, name: str, frames: Iterator[pl.DataFrame], what: str, lacks: str):
    target = spool.folder / f"{name}.parquet"
    if not spool.write(target, (frame for frame in frames if frame.height)):
        raise DataError(f"{path}: expected {what}, but no row has {lacks}")
    return pl.scan_parquet(target)


def _filled(path: Path, frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The frames; an error where they have no row."""
    rows = 0
    for frame in frames:
        rows += frame.height
        yield frame
    if not rows:
        raise DataError(f"{path}: expected rows, but the table has none")


def _with(path: Path, frame: pl.DataFrame, column: str, kind: str, spool: Spool) -> pl.DataFrame:
    """The rows that have a value in ``column``; the others are dirt."""
    if (lacking := frame[column].null_count()) and spool.dirt.strict:
        raise DataError(
            f"{path}: expected a {column} in every row, but some have none; mend or remove them, or drop and count "
            "them by leaving out --strict"
        )
    spool.dirt.add(kind, lacking)
    return frame.filter(pl.col(column).is_not_null()) if lacking else frame


def _once(path: Path, ids: pl.Series, what: str, remedy: str) -> None:
    if (doubled := ids.filter(ids.is_duplicated() & ids.is_not_null()).unique(maintain_order=True)).len():
        raise DataError(
            f"{path}: expected one row {what}, but {doubled.len():,} ids have several, such as "
            f"{doubled.head(3).to_list()}; {remedy}"
        )


def _require(path: Path, there: Mapping[str, pl.DataType], wanted: Sequence[str], remedy: str) -> None:
    if missing := [column for column in wanted if column not in there]:
        raise DataError(
            f"{path}: expected columns {', '.join(wanted)}; {', '.join(missing)} missing, the file has "
            f"{', '.join(there)}; {remedy}"
        )


def _check_ids(path: Path, name: str, dtype: pl.DataType) -> None:
    if not (dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null) or dtype.is_integer()):
        raise DataError(
            f"{path}: column {name!r}: expected ids as strings or integers, got {dtype}; "
            "write them as strings (floats come from integer columns with gaps)"
        )


def _check_lists(path: Path, name: str, dtype: pl.DataType) -> None:
    if dtype != pl.String and not isinstance(dtype, (pl.List, pl.Array)):
        raise DataError(f"{path}: column {name!r}: expected lists (in csv separated by blanks), got {dtype}")
    if isinstance(dtype, (pl.List, pl.Array)):
        _check_ids(path, name, dtype.inner)


def _ids(column: pl.Series) -> pl.Series:
    """An id column as String; "" counts as missing."""
    column = column.cast(pl.String)
    return column.set(column == "", None)


def _exploded(path: Path, rows: pl.DataFrame, spool: Spool, columns: Mapping[str, ListColumn]) -> pl.DataFrame:
    """One row a user -> one row an interaction."""
    names = {ITEM_IDS: ITEM_ID, TIMESTAMPS: TIMESTAMP}
    lists = {names[key]: column.lists(rows[key]) for key, column in columns.items()}
    frame = rows.select(_ROW, USER_ID).with_columns(values.alias(name) for name, values in lists.items())
    lengths = frame.select(pl.col(*lists).list.len().fill_null(0))
    if lengths.width == 2 and (unequal := int((lengths[ITEM_ID] != lengths[TIMESTAMP]).sum())):
        raise DataError(
            f"{path}: expected one timestamp an item, but {unequal:,} rows have lists of different lengths; mend them "
            "(lists as text are separated by blanks)"
        )
    filled = lengths[ITEM_ID] > 0
    spool.dirt.add("users_without_items", int((~filled).sum()))
    return frame.filter(filled).explode(*lists)


def _timed(path: Path, frame: pl.DataFrame, times: TimeColumn, spool: Spool) -> pl.DataFrame:
    """``frame`` with its times in seconds, without the rows whose time cannot be read."""
    made, unread = times.seconds(frame[TIMESTAMP])
    if unread.any():
        kind, first = f"unreadable_timestamps_of_{path.name}", _shown(frame, TIMESTAMP, unread)
        spool.dirt.cells(kind, path, int(unread.sum()), f"{first} (expected a time)")
    if (odd := ~made.is_between(EARLIEST, LATEST, closed="left").fill_null(True)).any():
        spool.dirt.add(
            "timestamps_before_1990_or_after_2099", int(odd.sum()), f"{path.name}, {_shown(frame, TIMESTAMP, odd)}"
        )
    return frame.with_columns(made.alias(TIMESTAMP)).filter(~unread)


def _rated(path: Path, frame: pl.DataFrame, spool: Spool) -> pl.DataFrame:
    """``frame`` with its ratings as Float32, -inf where there is none or what is no number."""
    ratings = frame[RATING]
    if not (ratings.dtype.is_numeric() or ratings.dtype == pl.Boolean):
        ratings = ratings.cast(pl.String).str.strip_chars().replace("", None)
    numbers = ratings.cast(pl.Float32, strict=False)
    if (unread := numbers.is_null() & ratings.is_not_null()).any():
        kind, first = f"unreadable_ratings_of_{path.name}", _shown(frame, RATING, unread)
        spool.dirt.cells(kind, path, int(unread.sum()), f"{first} (expected a number)")
    return frame.with_columns(numbers.fill_nan(None).fill_null(float("-inf")).alias(RATING))


def _shown(frame: pl.DataFrame, column: str, where: pl.Series) -> str:
    """The first cell of a column ``where`` it is told."""
    row, user, item, value = frame.select(_ROW, USER_ID, ITEM_ID, pl.col(column).cast(pl.String)).row(where.arg_max())
    return f"row {row:,}: {column} {shown(value.encode())} of user {user!r}, item {item!r}"
