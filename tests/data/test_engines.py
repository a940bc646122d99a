"""A log prepared by an engine is the domain that the path in memory makes, byte for byte."""

import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from retr_hf.data.engines import DUCKDB, SPARK, open_engine
from retr_hf.data.log_options import DUPLICATES, LogOptions, domain_of_log
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawLog
from retr_hf.errors import DataError, RetrError

pytest.importorskip("narwhals")


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
        (draw.choice("uvwxyz"), draw.choice("abcdefg"), draw.choice([1.0, 2.0, 3.3, 5.0]), draw.randint(0, 5) * 86400)
        for _ in range(90)
    ]
    types = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    events = pl.DataFrame(rows, schema=types, orient="row")
    items = pl.DataFrame({"item_id": list("abczca"), "text": list("ABCZDE")})
    return RawLog(events.lazy(), items.lazy(), reader="test", options={"of": "test"}, dropped={"lines": 1})


def written(folder: Path) -> dict[str, object]:
    """All files of a domain; the time of the writing aside, which the card bears as a mark too."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    about = json.loads(files.pop("domain.json"))
    about["provenance"].pop("created")
    card = files.pop("README.md").decode().splitlines()
    return files | {"domain.json": json.dumps(about), "card": [line for line in card if "2" != line[:1]]}


OPTIONS = [
    *((LogOptions(duplicates=policy), 2) for policy in DUPLICATES),
    (LogOptions(min_rating=3.3), 0),
    (LogOptions(min_rating=2, since="1970-01-02", until="1970-01-05", with_metadata=True, duplicates="last"), 3),
    (LogOptions(with_metadata=True), 4),
]


@pytest.mark.parametrize(("options", "k_core"), OPTIONS)
def test_the_same_domain_as_in_memory(engine, options, k_core, tmp_path):
    log = some_log(seed=k_core)
    for name, made in (("memory", domain_of_log(log, options, k_core)), ("engine", by(engine, log, options, k_core))):
        write_domain(made, tmp_path / name / "shop", k_core=k_core, num_negatives=2)
    assert written(tmp_path / "memory") == written(tmp_path / "engine")
