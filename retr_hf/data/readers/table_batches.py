"""A table in a file (parquet, csv, tsv, jsonl), some columns of it, batch by batch; gzipped or not, but for parquet.

csv and tsv, which must be UTF-8, are read by pyarrow: fields in double quotes (csv) may hold line ends, every field is
text, and a record with too few or too many fields is dirt. Commas separate csv and tabs tsv, unless they leave the
header whole and ";", a tab, "|" or "," splits it, as where decimals have commas (``other_separators``). Numbers of
dirty records count records, the header being the first; in jsonl they count lines. A csv with more lines than records,
blank ones apart, is read once more, all its columns: a quote that is never closed takes the records after it into its
text, be that one that nobody asked for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from ...errors import DataError
from .blocks import BLOCK, read_blocks
from .dirt import shown
from .line_formats import json_objects
from .open_quotes import note_whole_records
from .spool import Spool
from .utf8 import Utf8

_ROWS = 2**18  # of a batch of parquet
_SWALLOWED = 20  # lines in one dirty record: more than one is lost by a quote, these are a part of the log
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_KINDS = (".parquet", *_SEPARATORS, ".jsonl")


def columns_of(path: Path) -> dict[str, pl.DataType]:
    """Names and types of a file's columns; of jsonl, of the fields that its beginning (16 MB) has.

    Object is a field of jsonl that is no text, number or list of such, or not always the same of them.

    Raises:
        DataError: no such file, another kind of file, an empty or a broken one, a column that is there twice, another
            encoding.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected a table (parquet, csv, tsv or jsonl), but there is no such file")
    kind = _kind(path)
    if kind == ".jsonl":
        return _json_fields(path)
    with _told(path):
        if kind == ".parquet":
            return dict(pl.read_parquet_schema(path))
        _, names = _header(path)
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: expected every column once, but {', '.join(doubled)} is there twice")
    return dict.fromkeys(names, pl.String())


def batches(path: Path, columns: Mapping[str, pl.DataType], spool: Spool) -> Iterator[pl.DataFrame]:
    """Some columns of a file, as ``columns_of`` found them, in file order; dirty lines go to ``spool.dirt``.

    Raises:
        DataError: a file that is broken further on, or mostly dirt; a column of Objects; where dirt is refused, a csv
            with texts that hold whole records.
    """
    kind = _kind(path)
    if kind == ".jsonl":
        if other := [name for name, dtype in columns.items() if dtype == pl.Object]:
            raise DataError(f"{path}: {', '.join(other)}: expected text, numbers or lists of such, and always the same")
        # Whole numbers as text: ids of later lines may be none.
        text = {pl.Int64(): pl.String(), pl.List(pl.Int64): pl.List(pl.String)}
        parse = json_objects({name: (name, text.get(dtype, dtype)) for name, dtype in columns.items()}, [])
        yield from spool.frames(path, parse, "a JSON object")
        return
    with _told(path):
        if kind == ".parquet":
            with pq.ParquetFile(path, memory_map=True) as file:
                for batch in file.iter_batches(_ROWS, columns=list(columns)):
                    yield pl.DataFrame(pl.from_arrow(batch))
        else:
            yield from _csv_batches(path, list(columns), spool)


def _kind(path: Path) -> str:
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix != ".gz"), "").lower()
    if kind not in _KINDS:
        raise DataError(f"{path}: expected a file ending in {', '.join(_KINDS)} (or .gz after it), got {path.name!r}")
    return kind


def other_separators(paths: Sequence[Path]) -> dict[str, str]:
    """Name of a file -> what separates its fields, of csv and tsv where it is not what their ending says."""
    found = {path.name: (_header(path)[0], _SEPARATORS[kind]) for path in paths if (kind := _kind(path)) in _SEPARATORS}
    return {name: separator for name, (separator, usual) in found.items() if separator != usual}


def _header(path: Path, separator: str | None = None) -> tuple[str, list[str]]:
    """What separates a csv or tsv, and its columns."""
    tried = separator or _SEPARATORS[_kind(path)]
    with _open_csv(path, _utf8(path), tried, invalid_row_handler=_skip) as reader:  # its thread ends with it
        names = reader.schema.names
    other = next((one for one in ";\t|," if separator is None and len(names) == 1 and one in names[0]), None)
    return _header(path, other) if other else (tried, names)


def _quoted(path: Path, separator: str) -> bool:
    return (_kind(path), separator) != (".tsv", "\t")


def _json_fields(path: Path) -> dict[str, pl.DataType]:
    kinds: dict[str, set[tuple[bool, type]]] = {}  # (in a list, of what)
    for line in next(read_blocks(path)).lines.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        for name, value in record.items() if isinstance(record, dict) else ():
            listed = isinstance(value, list)
            found = {(listed, type(one)) for one in (value if listed else [value])} or {(True, str)}
            kinds.setdefault(name, set()).update(found)
    if not kinds:
        raise DataError(f"{path}: expected a JSON object on every line, but it cannot be read as that")
    return {name: _json_type({one for one in found if one != (False, type(None))}) for name, found in kinds.items()}


def _json_type(kinds: set[tuple[bool, type]]) -> pl.DataType:
    of = {kind for _, kind in kinds} - {type(None)}
    if len({listed for listed, _ in kinds}) > 1 or of & {dict, list}:
        return pl.Object()
    numbers = pl.Float64() if float in of else pl.Int64()
    inner = numbers if of and of <= {float, int} else pl.String()
    return pl.List(inner) if (True in {listed for listed, _ in kinds}) else inner


def _utf8(path: Path) -> Utf8:
    file = pa.OSFile(str(path))
    gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return Utf8(path, pa.CompressedInputStream(file, "gzip") if gzipped else file)


def _open_csv(
    path: Path, text: Utf8, separator: str, columns: list[str] | None = None, **options
) -> pc.CSVStreamingReader:
    quoted = _quoted(path, separator)
    types = {} if columns is None else {"column_types": dict.fromkeys(columns, pa.string()), "include_columns": columns}
    return pc.open_csv(
        text,
        read_options=pc.ReadOptions(block_size=BLOCK, use_threads=False),  # threads: records would have no numbers
        parse_options=pc.ParseOptions(
            delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted, **options
        ),
        convert_options=pc.ConvertOptions(null_values=[""], strings_can_be_null=True, **types),
    )  # fmt: skip


def _csv_batches(path: Path, columns: list[str], spool: Spool) -> Iterator[pl.DataFrame]:
    kind, clean, dirty, refused = f"unreadable_lines_of_{path.name}", 0, 0, []
    text, (separator, _) = _utf8(path), _header(path)

    def drop(row) -> str:
        nonlocal dirty
        dirty += 1
        try:
            why, more = f"expected {row.expected_columns} fields, got {row.actual_columns}", row.text.count("\n")
            if more >= _SWALLOWED:
                raise DataError(
                    f"{path}: record {row.number or 0:,} is {more + 1:,} lines long, {shown(row.text.encode())}: "
                    "a quote in it is never closed and takes the lines after it; close it, or double it in a text"
                )
            spool.dirt.line(kind, path, row.number or 0, row.text.encode(), why)
            spool.dirt.add(kind, more)  # of one record, but lines are what is counted
        except DataError as error:
            refused.append(error)  # pyarrow would not let it through
            return "error"
        return "skip"

    try:
        with _open_csv(path, text, separator, columns, invalid_row_handler=drop) as reader:
            for batch in reader:
                clean += batch.num_rows
                yield pl.DataFrame(pl.from_arrow(batch))
    except pa.ArrowInvalid as error:
        raise refused[0] if refused else error from None
    if dirty > clean:
        raise DataError(
            f"{path}: expected records of one number of fields, but {dirty:,} have another, and only {clean:,} that of "
            f"the header; the first is {spool.dirt.samples[kind]}; are all fields separated by {separator!r}?"
        )
    if text.line_ends - text.blank_lines > 1 + clean + dirty and _quoted(path, separator):
        with _open_csv(path, _utf8(path), separator, list(columns_of(path)), invalid_row_handler=_skip) as reader:
            for batch in reader:
                note_whole_records(path, pl.DataFrame(pl.from_arrow(batch)), spool.dirt)


def _skip(_) -> str:
    return "skip"


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What pyarrow and polars raise as a DataError that names the file."""
    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        why = str(error).partition("\n")[0]
        raise DataError(f"{path}: expected {_kind(path)[1:]}, but it cannot be read as that: {why}") from error
