"""Spool: text files -> parquet in a temporary folder, block by block, so that no raw file is ever held in memory.

One pass gives three things that a lazy scan of the text could not give at once: clean typed columns that later passes
read many times faster than text, the count of what was dropped, and the line number of the first of each kind.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import polars as pl
import pyarrow.parquet as pq

from ...errors import DataError
from .abandoned import held, remove_abandoned
from .blocks import Block, read_blocks
from .dirt import Dirt, shown

Parse = Callable[[bytes], pl.DataFrame]  # lines -> one row a line; raises ValueError or a PolarsError if any is dirty
_ROW_GROUP = 2**18  # rows
_ENOUGH = 10_000  # dirty lines after which a file that is mostly dirt is given up


class Spool:
    """A folder that readers write to, and the dirt they find on the way.

    Args:
        folder: an existing folder; whoever made it removes it, and with it the frames scanned from it.
        strict: refuse dirty lines.
        size: bytes of text in memory at once; for tests.
    """

    def __init__(self, folder: Path, strict: bool = False, size: int | None = None):
        self.folder = Path(folder)
        self.dirt = Dirt(strict)
        self._size = {} if size is None else {"size": size}

    def lines(
        self, name: str, paths: Sequence[Path], parse: Parse | Callable[[Path], Parse], *, what: str,
        encoding: str = "utf-8", per_file: bool = False, first_line: Callable[[Path, bytes], bool] | None = None,
        then: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame,
    ) -> pl.LazyFrame:  # fmt: skip
        """Parses text files into ``name``.parquet and scans it.

        A block that does not parse is halved until the dirty lines stand alone, so dirt is told by the same parser
        that reads clean blocks at full speed.

        Args:
            name: of the spooled table.
            paths: the files, read in this order.
            parse: bytes of whole lines -> one row a line, with the same columns always.
            what: what a line should be, for messages.
            encoding: of the files, see ``read_blocks``.
            per_file: ``parse`` is a function of the path that makes the parser, for parsers with a state.
            first_line: looks at the first line of a file; True if it is a header, to be skipped.
            then: what to keep of a parsed frame.

        Raises:
            DataError: a file that is missing, empty, truncated or mostly dirt; no room on the disk.
        """
        target = self.folder / f"{name}.parquet"
        frames = (
            then(frame)
            for path in paths
            for frame in self.frames(path, parse(path) if per_file else parse, what, encoding, first_line)
        )
        rows = self.write(target, frames)
        if not rows:
            raise DataError(
                f"{', '.join(map(str, paths[:3]))}: expected {what} on every line, but no line is left; "
                f"{next(iter(self.dirt.samples.values()), 'the files have none')}"
            )
        return pl.scan_parquet(target)

    def write(self, target: Path, frames: Iterator[pl.DataFrame]) -> int:
        """Writes frames of one schema, small ones together; ``target`` appears when it is whole. Returns the rows."""
        partial, writer, rows = target.with_suffix(".part"), None, 0
        try:
            try:
                for frame in _row_groups(frames):
                    table = frame.to_arrow()
                    writer = writer or pq.ParquetWriter(partial, table.schema, compression="lz4")
                    writer.write_table(table)
                    rows += table.num_rows
            finally:
                if writer:
                    writer.close()
            if writer:
                os.replace(partial, target)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DataError(
                f"{self.folder}: expected room for a compact copy of the interactions, but the disk is full after "
                f"{rows:,} rows; make room, or put --output on another disk. Nothing was written"
            ) from error
        return rows

    def frames(
        self, path: Path, parse: Parse, what: str, encoding: str = "utf-8",
        first_line: Callable[[Path, bytes], bool] | None = None,
    ) -> Iterator[pl.DataFrame]:  # fmt: skip
        """The parsed blocks of one file; see ``lines``."""
        kind, clean, dirty = f"unreadable_lines_of_{path.name}", 0, self.dirt.counts.get
        before = dirty(f"unreadable_lines_of_{path.name}", 0)

        def give_up_if_mostly_dirt(after: int) -> None:
            if dirty(kind, 0) - before > max(clean, after):
                raise DataError(
                    f"{path}: expected {what} on every line, but {dirty(kind) - before:,} lines are not, and only "
                    f"{clean:,} are; the first is {self.dirt.samples[kind]}; is this the right file for this reader?"
                )

        for block in read_blocks(path, encoding, **self._size):
            if block.number == 1 and first_line:
                end = block.lines.find(b"\n") + 1
                if first_line(path, block.lines[: end - 1]):
                    block = Block(block.lines[end:], 2)
            for frame in self._parsed(block, parse, path, kind):
                clean += frame.height
                yield frame
            give_up_if_mostly_dirt(_ENOUGH)
        give_up_if_mostly_dirt(0)

    def _parsed(self, block: Block, parse: Parse, path: Path, kind: str) -> Iterator[pl.DataFrame]:
        pending = [block]
        while pending:
            block = pending.pop()
            text, count = block.text()
            if not count:
                continue
            try:
                frame = parse(text)
                if frame.height == count:
                    yield frame
                    continue
                why = f"expected one record, got {frame.height}"
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError) as error:
                # OSError: polars unpacks what begins like an archive, be it a line
                why = str(error).partition("\n")[0]
            if count > 1:
                pending.extend(reversed(block.halves()))
            elif text.strip():
                line = text.rstrip(b"\n")
                number = block.number + block.lines[: block.lines.index(line)].count(b"\n")  # empty lines before it
                self.dirt.line(kind, path, number, line, why)


def _row_groups(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Frames of at least _ROW_GROUP rows, but for the last: thousands of files make no thousands of row groups."""
    waiting, rows = [], 0
    for frame in frames:
        waiting.append(frame)
        rows += frame.height
        if rows >= _ROW_GROUP:
            yield pl.concat(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pl.concat(waiting)


@contextmanager
def spool_beside(output: Path, strict: bool = False) -> Iterator[Spool]:
    """A spool in a hidden folder beside ``output``, on its disk; the folder vanishes whatever happens.

    A killed process (SIGKILL, power) leaves it behind; the next one with this ``output`` removes it.
    """
    output = output.resolve()
    missing = [folder for folder in (output.parent, *output.parent.parents) if not folder.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.spool-"
    remove_abandoned(output.parent, prefix)
    folder = Path(mkdtemp(prefix=prefix, dir=output.parent))
    try:
        with held(folder):
            yield Spool(folder, strict)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for made in missing:  # innermost first; as if nothing had been, where nothing was written
            try:
                made.rmdir()
            except OSError:
                break


def not_a(what: str, text: bytes) -> ValueError:
    """The error of a parser for lines that are not ``what``."""
    return ValueError(f"expected {what}, got {shown(text)}")
