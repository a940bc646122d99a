"""Engines that prepare a log larger than memory, or than one machine: DuckDB and Spark, both behind narwhals.

The steps stand in `engine_steps`, once, as narwhals expressions. An engine knows the little that narwhals has no words
for: how it opens a table, how it keeps a result so that the plan before it is not run again, and where files number
their rows. narwhals, because it is one small wheel without dependencies (which scikit-learn brings anyway) and covers
DuckDB, Spark and Spark Connect alike; Ibis covers more engines, of which we need none, and brings sqlglot and more.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from ..errors import DataError, RetrError

ROW = "row"  # int64: place of an interaction in the log
FILE, PLACE = "file", "place"  # string: address of a file; int64: row in it, from 0
POLARS, DUCKDB, SPARK = "polars", "duckdb", "spark"
ENGINES = {
    POLARS: "ids as integers in memory, the fastest where they fit",
    DUCKDB: "out of core on this machine: what does not fit in --memory-limit goes to disk beside the output",
    SPARK: "on a cluster, whose driver gets what is kept, 24 bytes an interaction; the session is the active one, or "
    "what spark-submit, SPARK_REMOTE or spark-defaults say",
}


class Engine(Protocol):
    """What the steps ask of an engine; frames are narwhals' LazyFrames.

    Attributes:
        folder: where to put files that ``scan`` shall see.
    """

    folder: Path

    def scan(self, path: Path) -> Any:
        """One parquet file that ``polars`` wrote."""

    def files(self, address: str) -> Any:
        """Parquet files as they are stored (a folder, a pattern), and of each row ``file`` and ``place``."""

    def table(self, frame: pl.DataFrame) -> Any:
        """A small table that is here in memory."""

    def keep(self, frame: Any, name: str) -> Any:
        """The rows of ``frame``, computed now and held by the engine; what was kept under this name may go."""


@contextmanager
def open_engine(name: str, folder: Path, memory_limit: str | None = None) -> Iterator[Engine]:
    """An engine to hand to ``engine_steps.domain_by_engine``.

    Args:
        name: DUCKDB or SPARK.
        folder: an existing folder for what the engine cannot hold in memory; its maker removes it. For Spark on
            several machines all of them must see it under this path.
        memory_limit: of DuckDB, such as "4GB"; by default 80 % of the machine's memory.

    Raises:
        RetrError: the engine is not installed, does not start, or gives up inside.
        DataError: a memory limit that is none, or one for Spark.
    """
    if name != DUCKDB and memory_limit:
        raise DataError("memory_limit: expected with duckdb only; Spark's is spark.executor.memory in its own settings")
    opened = (_DuckDB if name == DUCKDB else _Spark)(folder, memory_limit)
    try:
        yield opened
    except opened.errors as error:
        raise RetrError(f"--engine {name} gave up: {error}") from error
    finally:
        opened.close()


class _DuckDB:
    def __init__(self, folder: Path, memory_limit: str | None):
        try:
            import duckdb
            import narwhals
        except ImportError as error:
            raise RetrError("--engine duckdb needs the extra `duckdb`: pip install 'retr_hf[duckdb]'") from error
        self._wrap, self.folder, self.errors = narwhals.from_native, Path(folder), duckdb.Error
        settings = {"temp_directory": str(self.folder / "duckdb"), "preserve_insertion_order": False}
        try:
            self._connection = duckdb.connect(
                config=settings | ({"memory_limit": memory_limit} if memory_limit else {})
            )
        except duckdb.Error as error:
            raise DataError(f"memory_limit: expected a size such as 4GB, got {memory_limit!r} ({error})") from error

    def scan(self, path: Path):
        return self._wrap(self._connection.read_parquet(str(path)))

    def files(self, address: str):
        pattern = address if "*" in address or address.endswith(".parquet") else f"{address.rstrip('/')}/*.parquet"
        rows = self._connection.read_parquet(pattern, filename=True, file_row_number=True)
        return self._wrap(rows).rename({"filename": FILE, "file_row_number": PLACE})

    def table(self, frame: pl.DataFrame):
        return self._wrap(self._connection.from_arrow(frame.to_arrow()))

    def keep(self, frame, name: str):
        path, partial = (self.folder / f"{name}.{suffix}" for suffix in ("parquet", "part"))
        frame.sink_parquet(partial)  # reads what was kept before, perhaps
        os.replace(partial, path)
        return self.scan(path)

    def close(self) -> None:
        self._connection.close()


class _Spark:
    def __init__(self, folder: Path, _memory_limit: None):
        try:
            import narwhals
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError as error:
            raise RetrError("--engine spark needs the extra `spark`: pip install 'retr_hf[spark]'") from error
        self._wrap, self.folder, self.errors = narwhals.from_native, Path(folder), PySparkException
        try:
            self._session = SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()
        except PySparkException as error:
            raise RetrError(
                f"--engine spark: expected a Spark session, but none starts (is Java there?): {error}"
            ) from error

    def scan(self, path: Path):
        return self._wrap(self._session.read.parquet(path.resolve().as_uri()))

    def files(self, address: str):
        rows = self._session.read.parquet(address)
        return self._wrap(rows.selectExpr("*", f"_metadata.file_path AS {FILE}", f"_metadata.row_index AS {PLACE}"))

    def table(self, frame: pl.DataFrame):
        return self._wrap(self._session.createDataFrame(frame.to_arrow()))

    def keep(self, frame, name: str):
        # A local checkpoint lives in the executors and cuts the plan; it needs no disk that all machines share.
        return self._wrap(frame.to_native().localCheckpoint())

    def close(self) -> None:
        """The session stays: it is the user's, or ends with the process."""
