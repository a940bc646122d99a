"""Bytes that must be UTF-8, looked at on their way to pyarrow, which tells of others late or past any `except`."""

import codecs
import re
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from .dirt import shown

_BEFORE_A_BLANK_LINE = re.compile(rb"\n(?=\r?\n)")


class Utf8:
    """A readable stream, for pyarrow, that raises where another one is no UTF-8.

    Args:
        path: of the file, for messages.
        stream: its bytes, unpacked.

    Attributes:
        line_ends: that have been read.
        blank_lines: that have been read, but for those that begin a chunk.
    """

    closed = False

    def __init__(self, path: Path, stream: BinaryIO):
        self._path, self._stream, self.line_ends, self.blank_lines = path, stream, 0, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            DataError: they are no UTF-8.
        """
        chunk = self._stream.read(size)
        try:
            self._decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise self._refusal(error.object, error.start) from None
        self.line_ends += chunk.count(b"\n")
        self.blank_lines += len(_BEFORE_A_BLANK_LINE.findall(chunk))
        return chunk

    def close(self) -> None:
        """Of the stream below too."""
        self.closed = True
        self._stream.close()

    def _refusal(self, chunk: bytes, at: int) -> DataError:
        wide = self.line_ends == 0 and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        number = 1 + self.line_ends + chunk[:at].count(b"\n")
        line = chunk[chunk.rfind(b"\n", 0, at) + 1 :].partition(b"\n")[0]
        return DataError(
            f"{self._path}:{number:,}: expected UTF-8, but this file is not: {shown(line)}; convert it, e.g. by "
            f"iconv -f {'utf-16' if wide else 'latin1'} -t utf-8"
        )
