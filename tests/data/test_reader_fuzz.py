"""A small fuzz: damaged files of every layout end in a clean result or in a DataError, and in nothing else."""

import gzip
import random

import polars as pl
import pytest

from retr_hf.data.log_options import domain_of_log
from retr_hf.data.readers.known import READERS
from retr_hf.data.readers.spool import Spool
from retr_hf.errors import DataError

ROUNDS = 40


def flip(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        damaged[rng.randrange(len(damaged))] = (
            rng.choice(b"\x00\xff\x80\"'\n\r,\t:{}[]\\0-9a") if rng.random() < 0.7 else rng.randrange(256)
        )
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:start] + content[end:]


def double_lines(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    return b"".join(lines[:place] + [lines[place]] * rng.randint(2, 3) + lines[place:])


def insert(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content) + 1)
    words = [
        b"",
        b"\xef\xbb\xbf",
        b"\r\n",
        b'"',
        b"1e999",
        b"-",
        b"nan",
        b"\xed\xa0\x80",
        b"{" * 300,
        b"(" * 300,
        b"\\ud800",
        b"9" * 30,
    ]
    return content[:place] + rng.choice(words) + content[place:]


def damage(content: bytes, rng: random.Random) -> bytes:
    """Inside of the gzip two times out of three, else the file itself."""
    how = rng.choice([flip, cut, double_lines, insert])
    if content.startswith(b"\x1f\x8b") and rng.random() < 0.67:
        return gzip.compress(how(gzip.decompress(content), rng))
    return how(content, rng)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(layout, tmp_path, request, capfd):
    rng = random.Random(request.node.name)
    outcomes = {"read": 0, "refused": 0}
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        (folder / "spool").mkdir(parents=True)
        inputs, options = layout.write(folder)
        name = rng.choice(sorted(layout.files))
        damaged = damage(layout.files[name], rng)
        (folder / name).write_bytes(damaged)
        spool = Spool(folder / "spool", strict=rng.random() < 0.3, size=rng.choice([None, 30]))
        try:
            domain = domain_of_log(READERS[layout.reader](inputs, spool, **options))
            assert sum(domain.sequences.null_count().row(0)) == sum(domain.items.null_count().row(0)) == 0
            assert domain.sequences["item_ids"].list.len().min() >= 1
            assert domain.items["item_id"].is_unique().all() and domain.sequences.schema["user_id"] == pl.String
            outcomes["read"] += 1
        except DataError as error:
            assert str(error)
            outcomes["refused"] += 1
        except BaseException as error:
            pytest.fail(f"turn {turn}: {name} damaged to {damaged[:2000]!r}: {type(error).__name__}: {error}")
    assert min(outcomes.values()) > 0, outcomes  # the damage is neither harmless nor hopeless
