"""Histories as memory maps: no copy of the file, the batches of arrays in memory, and never an old or a half one."""

import os
import time
from fnmatch import fnmatch

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retr_hf.data.collators import PreTrainingCollator, TextTables
from retr_hf.data.domain import PreparedDomain, Sequences, load_domain
from retr_hf.data.domain_hub import PUBLIC_FILES
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.data.training_sequences import TrainingSequences

LENGTH, BATCH = 6, 14
NOTHING = pl.DataFrame(schema={"item_id": pl.String, "text": pl.String})


def written(folder, users: int, items: int) -> PreparedDomain:
    rng = np.random.default_rng(users)
    lengths = rng.integers(3, 20, users)
    sequences = {
        "user_id": [f"u{user}" for user in range(users)],
        "item_ids": [[f"{folder.name}{item}" for item in rng.integers(0, items, length)] for length in lengths],
        "timestamps": [np.sort(rng.integers(0, 10**9, length)).tolist() for length in lengths],
    }
    write_domain(RawDomain(pl.DataFrame(sequences), NOTHING, "test"), folder, k_core=0, num_negatives=3)
    texts = pl.read_parquet(folder / "items.parquet").with_columns(text=pl.col("item_id"))
    write_domain(RawDomain(pl.DataFrame(sequences), texts, "test"), folder, k_core=0, num_negatives=3, overwrite=True)
    for word_drop in (0.0, 0.3):
        embed_catalog(folder, "hashing:8", word_drop=word_drop, progress=False)
    return load_domain(folder)


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> list[PreparedDomain]:
    folder = tmp_path_factory.mktemp("prepared")
    return [written(folder / "lamps", 23, 12), written(folder / "tables", 17, 9)]


def hidden(domain: PreparedDomain) -> list[str]:
    return sorted(path.name for path in (domain.path / "interactions").iterdir() if path.name.startswith("."))


def loaded(domain: PreparedDomain, split: str) -> Sequences:
    """A split by the plainest way there is."""
    rows = pq.read_table(domain.path / "interactions" / f"{split}.parquet").to_pylist()
    flat = {name: np.array([value for row in rows for value in row[name]]) for name in ("item_ids", "timestamps")}
    return Sequences(flat["item_ids"], np.cumsum([0, *(len(row["item_ids"]) for row in rows)]), flat["timestamps"])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_split_is_its_file(domains, split):
    first = domains[0].split(split)  # makes the file
    before = pa.total_allocated_bytes()
    again = load_domain(domains[0].path).split(split)
    assert pa.total_allocated_bytes() <= before, "nothing was decoded or copied"  # less: what came before is freed
    assert not again.item_ids.flags.owndata and not again.item_ids.flags.writeable
    for found in (first, again):
        expected = loaded(domains[0], split)
        for name in ("item_ids", "offsets", "timestamps"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert (found.item_ids.dtype, found.offsets.dtype, found.timestamps.dtype) == (np.int32, np.int64, np.int64)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system does not list memory maps")
def test_the_system_says_so_too(domains):
    item_ids = domains[0].split("train").item_ids  # unmapped with the last array that shows it
    address = item_ids.ctypes.data
    with open("/proc/self/maps", encoding="utf-8") as file:
        regions = [line.split() for line in file]
    (under,) = (
        line[-1] for line in regions if int(line[0].split("-")[0], 16) <= address < int(line[0].split("-")[1], 16)
    )
    assert under.endswith("/interactions/.train.arrow")


def test_it_is_made_anew_for_another_parquet_file_and_where_it_is_damaged(tmp_path):
    domain = written(tmp_path / "shop", 5, 4)
    length = len(domain.split("train").item_ids)
    arrow, parquet = (domain.path / "interactions" / name for name in (".train.arrow", "train.parquet"))
    for content in (b"", arrow.read_bytes()[:-9], arrow.read_bytes()[:40], b"no arrow file"):
        arrow.write_bytes(content)
        assert len(domain.split("train").item_ids) == length
        assert len(arrow.read_bytes()) > 100
    made = arrow.stat().st_mtime_ns
    domain.split("train")
    assert arrow.stat().st_mtime_ns == made, "and not for the same"
    time.sleep(0.02)  # longer than the clock of the file system ticks
    pq.write_table(pq.read_table(parquet).slice(1), parquet)
    assert len(domain.split("train")) == 4
    assert hidden(domain) == [".train.arrow"]


def test_where_nothing_can_be_written_it_is_read_into_memory(tmp_path, monkeypatch, caplog):
    domain = written(tmp_path / "shop", 5, 4)
    calls = []

    def full(*args):
        calls.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    np.testing.assert_array_equal(domain.split("train").item_ids, loaded(domain, "train").item_ids)
    assert calls and hidden(domain) == [] and "read into memory" in caplog.text


def test_the_file_is_no_part_of_the_domain(domains):
    domains[0].split("train")
    assert not any(fnmatch(f"interactions/{name}", pattern) for name in hidden(domains[0]) for pattern in PUBLIC_FILES)


def batches(domains, parts, process: int = 0, processes: int = 1, every_step: bool = True, tables=TextTables):
    sequences = TrainingSequences(
        parts, [domain.num_items for domain in domains], LENGTH, every_step, "random" if every_step else "last"
    )
    catalogs = [domain.catalog() for domain in domains]
    plain, dropped = ([catalog.item_table(augmented) for catalog in catalogs] for augmented in (False, True))
    collate = PreTrainingCollator(tables(plain), TextTables(dropped), every_step, item_drop_batches=0.5)
    mixture = Mixture(sequences.domain_sizes, temperature=2.0, seed=4)
    return Batches(sequences, mixture, collate, BATCH, 1, process, processes)


def assert_same(one: list, other: list) -> None:
    assert len(one) == len(other) > 0
    for (micro,), (expected,) in zip(one, other, strict=True):
        assert micro.keys() == expected.keys()
        for name in micro:
            np.testing.assert_array_equal(micro[name], expected[name])


@pytest.mark.parametrize("every_step", [True, False])
def test_batches_are_those_of_arrays_in_memory(domains, every_step):
    mapped, memory = (
        batches(domains, [read(domain) for domain in domains], every_step=every_step)
        for read in (lambda domain: domain.split("train"), lambda domain: loaded(domain, "train"))
    )
    for epoch in range(2):
        assert_same(list(mapped.epoch(epoch)), list(memory.epoch(epoch)))


def test_a_run_goes_on_in_the_middle_of_an_epoch_with_the_same_batches(domains):
    whole = list(batches(domains, [domain.split("train") for domain in domains]).epoch(1))
    opened = [load_domain(domain.path) for domain in domains]
    for start in range(len(whole)):
        rest = batches(opened, [domain.split("train") for domain in opened]).epoch(1, start)
        assert_same(list(rest), whole[start:])


class Watched(TextTables):
    """Tables that remember the ids whose vectors were read."""

    def rows(self, ids):
        self.read = getattr(self, "read", set()) | set(ids[ids > 0].tolist())
        return super().rows(ids)


@pytest.mark.parametrize("processes", [2, 3])
def test_each_process_reads_the_vectors_of_its_own_sequences_alone(domains, processes):
    """That these are every sequence once is in test_mixture.py."""
    parts = [domain.split("train") for domain in domains]
    sides = [batches(domains, parts, process, processes, tables=Watched) for process in range(processes)]
    whole = batches(domains, parts, tables=Watched)
    for side in [whole, *sides]:
        (micro,) = next(side.epoch(0))
        items = set(micro["table_item_ids"].tolist()) - {0}
        assert side.collate.tables.read == items
    read = [side.collate.tables.read for side in sides]
    assert set.union(*read) == whole.collate.tables.read
    assert all(each < whole.collate.tables.read for each in read)
