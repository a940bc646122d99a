"""A log prepared by an engine is the domain that the path in memory makes, byte for byte."""

import json
import random
import re
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from retr_hf.data.engine_steps import domain_by_engine
from retr_hf.data.engines import DUCKDB, SPARK, open_engine
from retr_hf.data.log_options import DUPLICATES, LogOptions, domain_of_log
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawLog
from retr_hf.data.readers.stored import read_stored
from retr_hf.errors import DataError, RetrError


@pytest.fixture(scope="module", params=[DUCKDB, SPARK])
def engine(request, tmp_path_factory):
    if request.param == SPARK:
        pytest.importorskip("pyspark", reason="pyspark is the extra `spark`, which scripts/test.sh does not install")
        if not shutil.which("java"):
            pytest.skip("Spark needs Java, and there is none")
        _start_spark()
    with open_engine(request.param, tmp_path_factory.mktemp(request.param)) as opened:
        yield opened


def _start_spark() -> None:
    """The active session, which `open_engine` takes: small, and silent."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "2",
        "spark.driver.host": "localhost",
    }  # fmt: skip
    SparkSession.builder.master("local[2]").config(map=settings).getOrCreate()


def some_log(seed: int) -> RawLog:
    """Few users, items and times, so that everything ties and repeats."""
    draw = random.Random(seed)
    rows = [
        (
            draw.choice("opqrstuvwxyz"),
            draw.choice("abcdefgh"),
            draw.choice([1, 2, 3.3, 5, float("-inf")]),
            draw.randint(0, 5) * 86400,
        )
        for _ in range(150)
    ]
    types = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    events = pl.DataFrame(rows, schema=types, orient="row")
    items = pl.DataFrame({"item_id": list("abczca"), "text": list("ABCZDE")})
    return RawLog(events.lazy(), items.lazy(), reader="test", options={"of": "test"}, dropped={"lines": 1})


def written(folder: Path) -> dict[str, object]:
    """All files of a domain; the date aside, and the card's mark, a hash of the date among others."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    about = json.loads(files["domain.json"])
    about["provenance"].pop("created")
    card = re.sub(rb"description: \w{16}", b"", files["README.md"])
    return files | {"domain.json": json.dumps(about), "README.md": card}


@pytest.mark.parametrize(
    ("options", "k_core"),
    [
        (LogOptions(), 3),
        *((LogOptions(duplicates=policy), 2) for policy in DUPLICATES if policy != "all"),
        (LogOptions(min_rating=3.3), 0),
        (LogOptions(min_rating=2, since="1970-01-02", until="1970-01-06", with_metadata=True, duplicates="last"), 1),
    ],
)
def test_the_same_domain_as_in_memory(engine, options, k_core, tmp_path):
    log = some_log(seed=k_core)
    made = {"memory": domain_of_log(log, options, k_core), "engine": domain_by_engine(engine, log, options, k_core)}
    for how, raw in made.items():
        write_domain(raw, tmp_path / how, name="shop", k_core=k_core, num_negatives=2)
    assert written(tmp_path / "memory") == written(tmp_path / "engine")


def test_without_times_file_order_is_the_order(engine):
    log = replace(some_log(7), events=some_log(7).events.drop("timestamp"), items=None, whole_catalogue=True)
    options = LogOptions(duplicates="consecutive")
    here, there = domain_of_log(log, options, 2), domain_by_engine(engine, log, options, 2)
    assert [rows_of(made) for made in (here, there)] == [rows_of(here)] * 2 and here.dropped == there.dropped


@pytest.mark.parametrize(
    ("options", "k_core"), [(LogOptions(min_rating=6), 0), (LogOptions(), 50), (LogOptions(duplicates="some"), 0)]
)
def test_the_same_mistakes(engine, options, k_core):
    messages = []
    for prepare in (domain_of_log, partial(domain_by_engine, engine)):
        with pytest.raises(DataError) as told:
            prepare(some_log(0), options, k_core)
        messages.append(str(told.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("options", [LogOptions(), LogOptions(with_metadata=True)])
def test_the_same_word_of_an_item_table_that_shares_nothing(engine, options):
    log = replace(some_log(0), items=pl.DataFrame({"item_id": ["A", "B"], "text": ["A", "B"]}).lazy())
    for prepare in (domain_of_log, partial(domain_by_engine, engine)):
        with pytest.raises(DataError, match="the log names items such as 'a', the table 'A'"):
            prepare(log, options, 0)


def rows_of(domain) -> list[tuple]:
    return domain.sequences.with_columns(pl.col("item_ids").cast(pl.List(pl.String))).rows()


def test_stored_files_are_read_in_the_order_of_their_names(engine, tmp_path):
    first = {"who": [7, 8, None, 7], "item_id": ["b", "a", "a", ""], "timestamp": [5, 5, 5, 5]}
    second = {"who": [8, 9, 7], "item_id": ["b", "a", "c"], "timestamp": [5, None, 5]}
    for name, rows in (("part-1", second), ("part-0", first)):
        pl.DataFrame(rows, schema_overrides={"timestamp": pl.Int32}).write_parquet(tmp_path / f"{name}.parquet")
    log = read_stored(str(tmp_path), engine, columns={"user_id": "who"})
    domain = domain_by_engine(engine, log)
    assert rows_of(domain) == [("7", ["b", "c"], [5, 5]), ("8", ["a", "b"], [5, 5])]
    assert {what: count for what, count in domain.dropped.items() if count} == {
        "interactions_without_user_id": 1,
        "interactions_without_item_id": 1,
        "interactions_without_timestamp": 1,
    }
    assert domain.options["columns"] == {"user_id": "who"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user_id": ["u"], "item": ["i"]}, "item_id missing, the files have user_id, item; see --columns"),
        ({"user_id": [1.5], "item_id": ["i"]}, "column 'user_id': expected strings or integers, got Float64"),
        ({"user_id": [1], "item_id": ["i"], "timestamp": ["2019"]}, "expected integers, seconds since 1970"),
    ],
)
def test_stored_files_that_do_not_fit(engine, tmp_path, rows, message):
    pl.DataFrame(rows).write_parquet(tmp_path / "part-0.parquet")
    with pytest.raises(DataError, match=message):
        read_stored(str(tmp_path / "part-0.parquet"), engine)


def test_stored_ratings_that_are_no_numbers(engine, tmp_path):
    rows = {"user_id": ["u"] * 4, "item_id": list("abcd"), "rating": [5.0, float("nan"), None, 2.0]}
    pl.DataFrame(rows).write_parquet(tmp_path / "part-0.parquet")
    log = read_stored(str(tmp_path), engine)
    assert rows_of(domain_by_engine(engine, log)) == [("u", list("abcd"))]
    domain = domain_by_engine(engine, log, LogOptions(min_rating=3))
    assert rows_of(domain) == [("u", ["a"])]
    assert domain.dropped["interactions_without_a_rating"] == 2 and domain.dropped["interactions_rated_below_3"] == 1


def test_stored_milliseconds_are_refused(engine, tmp_path):
    rows = {"user_id": ["u", None], "item_id": ["i", "i"], "timestamp": [1_577_877_988, 1_577_877_988_000]}
    pl.DataFrame(rows).write_parquet(tmp_path / "part-0.parquet")
    assert rows_of(domain_by_engine(engine, read_stored(str(tmp_path), engine))) == [("u", ["i"], [1_577_877_988])]
    pl.DataFrame(rows | {"user_id": ["u", "u"]}).write_parquet(tmp_path / "part-0.parquet")
    with pytest.raises(DataError, match="expected seconds since 1970, got 1577877988000.*milliseconds by 1000"):
        read_stored(str(tmp_path), engine)


def test_an_engine_that_gives_up_is_told(tmp_path):
    with (
        pytest.raises(RetrError, match="--engine duckdb gave up: .*No files found"),
        open_engine(DUCKDB, tmp_path) as it,
    ):
        read_stored(str(tmp_path / "nowhere"), it)


@pytest.mark.parametrize("name", [DUCKDB, SPARK])
def test_a_missing_engine_is_told_with_its_extra(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, {DUCKDB: "duckdb", SPARK: "pyspark.sql"}[name], None)
    with pytest.raises(RetrError, match=rf"pip install 'retr_hf\[{name}\]'"), open_engine(name, tmp_path):
        pass


@pytest.mark.parametrize(("name", "limit"), [(DUCKDB, "lots"), (SPARK, "1GB")])
def test_a_memory_limit_that_is_none(name, limit, tmp_path):
    with pytest.raises(DataError, match="memory_limit: expected"), open_engine(name, tmp_path, limit):
        pass
