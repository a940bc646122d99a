"""Blocks, dirt and the spool: bounded memory, line numbers, and what a bad file or disk does."""

import errno
import gzip
import os
import random
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from retr_hf.data.readers.blocks import EITHER, LATIN_1, Block, read_blocks
from retr_hf.data.readers.line_formats import delimited, json_objects
from retr_hf.data.readers.spool import Spool, spool_beside
from retr_hf.errors import DataError

PAIR = delimited({"user_id": pl.String, "n": pl.Int64}, ["user_id", "n"])


def spooled(tmp_path: Path, content: bytes, size: int | None = None, strict: bool = False, parse=PAIR):
    (tmp_path / "log.csv").write_bytes(content)
    spool = Spool(tmp_path, strict, size)
    frame = spool.lines("events", [tmp_path / "log.csv"], parse, what="user,n")
    return frame.collect().rows(), spool.dirt


def joined(path: Path, size: int, encoding: str = "utf-8") -> list[tuple[int, bytes]]:
    """(line number, line) of the whole file, empty lines left out."""
    found = []
    for block in read_blocks(path, encoding, size):
        numbered = enumerate(block.lines.split(b"\n")[:-1], block.number)
        found += [(number, line) for number, line in numbered if line]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_are_whole_lines_whatever_their_ends(tmp_path, size, end):
    lines = [b"one", b"", b"three and more", b"4"]
    for content in (end.join(lines), end.join(lines) + end, b"\xef\xbb\xbf" + end.join(lines)):
        (tmp_path / "f").write_bytes(content)
        (tmp_path / "g").write_bytes(gzip.compress(content))
        if size < 3 and content.startswith(b"\xef"):
            continue  # the mark is looked for in the first chunk, which is never that small
        found = joined(tmp_path / "f", size)
        assert [line for _, line in found] == [b"one", b"three and more", b"4"]
        if not (end == b"\r\n" and size == 1):
            assert found == [(1, b"one"), (3, b"three and more"), (4, b"4")]
        assert joined(tmp_path / "g", size) == found


def test_encodings(tmp_path):
    (tmp_path / "f").write_bytes("é£\n".encode("latin-1"))
    assert joined(tmp_path / "f", 100, LATIN_1) == joined(tmp_path / "f", 100, EITHER) == [(1, "é£".encode())]
    (tmp_path / "f").write_bytes("é£\n".encode())
    assert joined(tmp_path / "f", 100, EITHER) == [(1, "é£".encode())]


def test_halves_cover_a_block_without_loss():
    rng = random.Random(0)
    for _ in range(200):
        lines = [b"x" * rng.choice([0, 1, 5, 60]) for _ in range(rng.randint(2, 9))]
        block = Block(b"".join(line + b"\n" for line in lines), 10)
        first, second = block.halves()
        assert first.lines + second.lines == block.lines and first.lines and second.lines
        assert (first.number, second.number) == (10, 10 + len(first)) and len(first) + len(second) == len(block)


@pytest.mark.parametrize("size", [None, 20])
def test_dirt_is_counted_with_its_first_line(tmp_path, size):
    content = b"a,1\r\n\r\nb\nc,2\n\xff\xfe,3\nd,x\n,5\ne,6,7\n   \nf,8\ng,99999999999999999999\nh,9\ni,10\nj,11\nk,12"
    rows, dirt = spooled(tmp_path, content, size)
    assert rows == [("a", 1), ("c", 2), ("f", 8), ("h", 9), ("i", 10), ("j", 11), ("k", 12)]
    assert dirt.counts == {"unreadable_lines_of_log.csv": 6}
    assert dirt.samples["unreadable_lines_of_log.csv"] == "log.csv:3: 'b' (expected 2 fields separated by ',')"


def test_strict_refuses_the_first_dirty_line(tmp_path):
    with pytest.raises(DataError, match=r"log.csv:2: 'b,x' \(could not parse `x`.*--strict"):
        spooled(tmp_path, b"a,1\nb,x\n", strict=True)
    assert spooled(tmp_path, b"a,1\nb,2\n\n", strict=True)[0] == [("a", 1), ("b", 2)]


def test_mostly_dirt_is_another_file(tmp_path):
    with pytest.raises(DataError, match="2 lines are not, and only 1 are.*log.csv:1: 'x'"):
        spooled(tmp_path, b"x\na,1\ny\n")


def test_dirty_lines_are_found_by_the_parser_of_clean_ones(tmp_path):
    # Brute force: a line is dirty exactly if it does not parse alone.
    rng = random.Random(1)
    words = [b'{"a": "x", "t": 1}', b'{"a": "y"}', b"{", b'{"a": 5, "t": 2}', b'{"a": "z", "t": "3"}', b"[1]", b'"s"']
    parse = json_objects({"item_id": ("a", pl.String), "n": ("t", pl.Int64)}, ["item_id", "n"])
    for size in (None, 50):
        lines = [rng.choice(words[:1] * 12 + words) for _ in range(120)]
        expected = []
        for line in lines:
            try:
                expected += parse(line + b"\n").rows()
            except (ValueError, pl.exceptions.PolarsError):
                pass
        rows, dirt = spooled(tmp_path, b"\n".join(lines), size, parse=parse)
        assert rows == expected and sum(dirt.counts.values()) == len(lines) - len(expected) > 0


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage"])
def test_broken_gzip_is_an_error_that_says_what_to_do(tmp_path, damage):
    whole = gzip.compress(b"".join(f"user{i},{i}\n".encode() for i in range(5000)))
    broken = {
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:2000] + bytes([whole[2000] ^ 255]) + whole[2001:],
        "garbage": b"\x1f\x8bgarbage",
    }[damage]
    with pytest.raises(DataError, match="truncated or broken.*download it again"):
        spooled(tmp_path, broken)
    assert not (tmp_path / "events.parquet").exists()


def test_a_line_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("retr_hf.data.readers.blocks.LONGEST_LINE", 100)
    with pytest.raises(DataError, match="log.csv:2: expected lines of at most 100 bytes"):
        spooled(tmp_path, b"a,1\n" + b"x" * 300, size=50)


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path, monkeypatch):
    class Full(pq.ParquetWriter):
        def write_table(self, *arguments, **options):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("retr_hf.data.readers.spool.pq.ParquetWriter", Full)
    (tmp_path / "log.csv").write_bytes(b"a,1\n")
    with pytest.raises(DataError, match="the disk is full.*Nothing was written"), spool_beside(
        tmp_path / "made" / "domain"
    ) as spool:  # fmt: skip
        spool.lines("events", [tmp_path / "log.csv"], PAIR, what="user,n")
    assert os.listdir(tmp_path) == ["log.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_a_full_disk_raises_is_what_is_caught(tmp_path):
    # The writer itself on a device without room, not a stand-in: the error has the number that is looked for.
    (tmp_path / "events.part").symlink_to("/dev/full")
    frame = pl.DataFrame({"n": range(200_000)})
    with pytest.raises(DataError, match="the disk is full"):
        Spool(tmp_path).write(tmp_path / "events.parquet", iter([frame]))


def test_interrupted_spooling_leaves_nothing_that_passes_for_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("retr_hf.data.readers.spool._ROW_GROUP", 100)
    (tmp_path / "log.csv").write_bytes(b"".join(b"a,%d\n" % i for i in range(1000)))
    calls = []

    def interrupted(lines: bytes) -> pl.DataFrame:
        calls.append(len(lines))
        if len(calls) == 50:
            assert list(spool.folder.glob("*.part"))  # something is half written by now
            raise KeyboardInterrupt
        return PAIR(lines)

    with pytest.raises(KeyboardInterrupt):
        with spool_beside(tmp_path / "domain") as spool:
            spool._size = {"size": 100}
            try:
                spool.lines("events", [tmp_path / "log.csv"], interrupted, what="user,n")
            finally:
                assert not (spool.folder / "events.parquet").exists()
    assert os.listdir(tmp_path) == ["log.csv"]


def test_a_line_that_begins_like_an_archive_is_a_dirty_line(tmp_path):
    rows, dirt = spooled(tmp_path, b"a,1\n\x1f\x8b\x08\x00,2\nb,3\nc,4\nx^,5\nx\x01,6\n")
    assert rows[:4] == [("a", 1), ("b", 3), ("c", 4), ("x^", 5)] and sum(dirt.counts.values()) == 6 - len(rows)


def test_small_files_share_a_row_group(tmp_path):
    paths = [tmp_path / f"{n}.csv" for n in range(20)]
    for n, path in enumerate(paths):
        path.write_text(f"u,{n}\n")
    frame = Spool(tmp_path).lines("events", paths, PAIR, what="user,n")
    assert frame.collect()["n"].to_list() == list(range(20))
    assert pq.ParquetFile(tmp_path / "events.parquet").num_row_groups == 1


def test_memory_is_bounded_by_the_block(tmp_path):
    # Blocks of 1 kB of a file of 200 kB: no parser call sees more than a block and a line.
    (tmp_path / "log.csv").write_bytes(b"".join(b"user%d,%d\n" % (i, i) for i in range(15_000)))
    seen = []
    Spool(tmp_path, size=1000).lines(
        "events", [tmp_path / "log.csv"], lambda lines: seen.append(len(lines)) or PAIR(lines), what="user,n"
    )
    assert max(seen) < 1100 and sum(seen) == (tmp_path / "log.csv").stat().st_size
