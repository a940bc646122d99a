"""Raw text files as blocks of whole lines, in bounded memory: gzipped or not, any line ends, with line numbers.

What is evened out without counting, because no information is lost: a byte order mark, CR LF and CR line ends, a
missing last line end, empty lines.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError

BLOCK = 2**24  # bytes read at once: some 300,000 ratings
LONGEST_LINE = 2**26  # bytes; Amazon's longest metadata lines have a few million
LATIN_1 = "latin-1"
EITHER = "utf-8 or latin-1"  # files that went through a spreadsheet


@dataclass(frozen=True)
class Block:
    """Some lines of a file.

    Attributes:
        lines: bytes in UTF-8 (if the file is), each line ending in LF.
        number: of the first line, from 1.
    """

    lines: bytes
    number: int

    def __len__(self) -> int:
        """Lines, the empty ones too."""
        return self.lines.count(b"\n")

    def text(self) -> tuple[bytes, int]:
        """The lines without the empty ones, and how many they are."""
        if b"\n\n" in self.lines or self.lines.startswith(b"\n"):
            full = [line for line in self.lines.split(b"\n") if line]
            return b"".join(line + b"\n" for line in full), len(full)
        return self.lines, len(self)

    def halves(self) -> tuple["Block", "Block"]:
        """Two blocks of about equal size; the block has at least two lines."""
        middle = self.lines.rfind(b"\n", 0, max(len(self.lines) // 2, 1)) + 1
        middle = middle or self.lines.find(b"\n") + 1  # the first line is longer than the rest
        first, second = self.lines[:middle], self.lines[middle:]
        if not second:  # the last line is
            middle = first.rfind(b"\n", 0, -1) + 1
            first, second = first[:middle], first[middle:]
        return Block(first, self.number), Block(second, self.number + first.count(b"\n"))


def read_blocks(path: Path, encoding: str = "utf-8", size: int = BLOCK) -> Iterator[Block]:
    """The file as blocks of about ``size`` bytes, unpacked if it is gzipped (told by its first bytes, not its name).

    Args:
        path: the file.
        encoding: "utf-8" leaves the bytes as they are; LATIN_1 recodes them; EITHER recodes blocks that are no UTF-8.

    Raises:
        DataError: no such file, an empty one, a broken or truncated gzip, a line that never ends.
    """
    rest, number = b"", 1
    for chunk in _chunks(path, size):
        rest += chunk
        end = rest.rfind(b"\n") + 1 or rest.rfind(b"\r", 0, -1) + 1  # a CR at the end may be half of a CR LF
        if end:
            block = Block(_even(rest[:end], encoding), number)
            yield block
            number, rest = number + len(block), rest[end:]
        elif len(rest) > LONGEST_LINE:
            raise DataError(
                f"{path}:{number:,}: expected lines of at most {LONGEST_LINE:,} bytes, got a longer one; is this a "
                "text file with one record a line?"
            )
    if rest:
        yield Block(_even(rest + b"\n", encoding), number)
    elif number == 1:
        raise DataError(f"{path}: expected lines, but the file is empty; take it from its source again")


def _chunks(path: Path, size: int) -> Iterator[bytes]:
    if not path.is_file():
        raise DataError(f"{path}: expected a file, but {'that is a folder' if path.is_dir() else 'there is none'}")
    with path.open("rb") as raw:
        gzipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file = gzip.GzipFile(fileobj=raw) if gzipped else raw
        first, done = True, 0
        while True:
            try:
                chunk = file.read(size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DataError(
                    f"{path}: expected a whole gzip file, but it is truncated or broken after {done:,} unpacked bytes "
                    f"({error}); download it again and compare its size or checksum with the publisher's"
                ) from error
            if not chunk:
                return
            yield chunk.removeprefix(b"\xef\xbb\xbf") if first else chunk
            first, done = False, done + len(chunk)


def _even(lines: bytes, encoding: str) -> bytes:
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if encoding == EITHER:
        try:
            lines.decode("utf-8")
        except UnicodeDecodeError:
            encoding = LATIN_1
    return lines.decode(LATIN_1).encode() if encoding == LATIN_1 and not lines.isascii() else lines
