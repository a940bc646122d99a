#!/usr/bin/env python
"""Prepare: raw interactions and item texts -> a prepared domain, the folder that all later stages open.

    # a log of user_id, item_id, timestamp and a table of item texts: parquet, csv, tsv or jsonl
    python scripts/prepare.py tables --interactions clicks.csv --items products.csv --output data/shop

    # other column names, a text made of several columns, times in milliseconds, a catalogue with untouched items
    python scripts/prepare.py tables --interactions reviews.jsonl --items meta.jsonl --output data/arts \\
        --columns user_id=reviewerID item_id=asin timestamp=unixReviewTime \\
        --text-columns title category brand --timestamp-unit ms --whole-catalogue

    # ready sequences (one row a user, item_ids a list), as they are
    python scripts/prepare.py tables --interactions sequences.parquet --items items.parquet --output data/games \\
        --k-core 0

    # the raw files of the papers as published, a reader for each (see below, and READER --help)
    python scripts/prepare.py amazon2018 --input Industrial_and_Scientific.csv --output data/scientific \\
        --items meta_Industrial_and_Scientific.json.gz --with-metadata --duplicates identical

    # downloaded first, where there is a public address
    python scripts/prepare.py movielens --download raw --release 1m --output data/movielens-1m

    # UniSRec / RecBole atomic files, with the authors' own split; and a prepared domain back to atomic files
    python scripts/prepare.py atomic downloads/Scientific --output data/scientific
    python scripts/prepare.py to-atomic data/scientific --output unisrec/Scientific

    # a log larger than memory, out of core; and one that a cluster stores, on its Spark (spark-submit sets the master)
    python scripts/prepare.py amazon2018 --input Books.csv --output data/books --engine duckdb --memory-limit 8GB
    spark-submit --master yarn scripts/prepare.py stored --interactions s3://shop/clicks --output data/shop \\
        --engine spark

    # ten small synthetic domains with a known answer, no download: five to pre-train on, five to transfer to
    python scripts/prepare.py synthetic --output data/synthetic

Leaves interactions/, negatives/, items.parquet, catalog.json, domain.json and a dataset card README.md in the folder
(`datasets.load_dataset` opens it). The folder appears whole or not at all. The same command again finds it up to date.
Next: scripts/embed.py.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from retr_hf.data.atomic_export import STYLES, UNISREC, write_atomic
from retr_hf.data.domain import load_domain
from retr_hf.data.domain_folder import is_up_to_date, recipe_of
from retr_hf.data.download import SOURCES, download
from retr_hf.data.engines import DUCKDB, ENGINES, POLARS, SPARK, open_engine
from retr_hf.data.log_options import DUPLICATES, LogOptions, domain_of_log
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers import known
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.data.readers.epochs import UNITS
from retr_hf.data.readers.raw import UNTIMED, RawDomain, RawLog
from retr_hf.data.readers.spool import Spool, spool_beside
from retr_hf.data.readers.tables import read_tables
from retr_hf.data.splits import FRACTIONS, LEAVE_ONE_OUT, WAYS
from retr_hf.data.synthetic import write_world
from retr_hf.entry import run
from retr_hf.report.dataset_statistics import statistics_table

WORLD_SIZES = {
    "tiny": {"source_users": 150, "source_items": 60, "target_users": 60, "target_items": 60},  # a smoke test
    "small": {},  # the defaults of retr_hf.data.synthetic: the quickstart
    "medium": {"source_users": 5000, "source_items": 1500, "target_users": 1500, "target_items": 600},
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE", title="sources")

    tables = sources.add_parser("tables", help="one table of interactions (or sequences) and one of items")
    tables.add_argument(
        "--interactions",
        required=True,
        type=Path,
        metavar="FILE",
        help="user_id, item_id[, timestamp][, rating] or user_id, item_ids[, timestamps]",
    )
    tables.add_argument("--items", type=Path, metavar="FILE", help="item_id, text; without it a domain of ids only")
    tables.add_argument("--items-id", metavar="COLUMN", help="of the ids in the item table (default: as in the log)")
    tables.add_argument(
        "--columns", nargs="+", default=[], type=_pair, metavar="OURS=THEIRS", help="other column names in the files"
    )
    tables.add_argument(
        "--text-columns", nargs="+", default=["text"], metavar="COLUMN",
        help="of the item table; one is taken as it is, several are cleaned and joined, long ones too (default: text)",
    )  # fmt: skip
    tables.add_argument("--timestamp-unit", choices=UNITS, default="s", help="since 1970 (default: s)")
    tables.add_argument(
        "--whole-catalogue", action="store_true", help="keep items nobody touched, in the table's order"
    )

    atomic = sources.add_parser("atomic", help="UniSRec / RecBole atomic files, their split kept")
    atomic.add_argument("folder", type=Path, help="holds X.train.inter, X.valid.inter, X.test.inter, X.text, ...")
    atomic.add_argument("--dataset", metavar="X", help="where the folder holds several")

    synthetic = sources.add_parser("synthetic", help="ten domains of a world with a known answer")
    synthetic.add_argument("--size", choices=WORLD_SIZES, default="small", help="(default: small)")

    readers = {
        name: sources.add_parser(
            name, help=known.title(name), description=known.about(name), formatter_class=as_written
        )
        for name in known.READERS
    }
    for name, reader in readers.items():
        _add_inputs(reader, name)
        known.add_options(reader, name)
    for source in (tables, *readers.values()):
        _add_log_options(source)
        _add_engine(source, list(ENGINES))

    stored = sources.add_parser("stored", help="a log in parquet files that an engine scans where they are stored")
    stored.add_argument(
        "--interactions", required=True, metavar="ADDRESS",
        help="a folder of parquet files, a file or a pattern, as the engine takes it (a path, s3://, hdfs://); columns "
        "user_id, item_id[, timestamp in seconds][, rating]; ordered by the files' addresses, then by their rows",
    )  # fmt: skip
    stored.add_argument("--items", metavar="ADDRESS", help="parquet: item_id, text; without it a domain of ids only")
    stored.add_argument(
        "--columns", nargs="+", default=[], type=_pair, metavar="OURS=THEIRS", help="other column names in the files"
    )
    _add_log_options(stored, strict=False)
    _add_engine(stored, [DUCKDB, SPARK])

    for source in (tables, atomic, synthetic, stored, *readers.values()):
        what = "folder to make the ten domains in" if source is synthetic else "folder to make"
        source.add_argument("--output", required=True, type=Path, metavar="DIR", help=what)
        source.add_argument("--seed", type=_count, default=0, help="of everything random (default: 0)")
        source.add_argument("--overwrite", action="store_true", help="replace a prepared domain, its embeddings too")
    for source in (tables, atomic, stored, *readers.values()):
        source.add_argument("--name", help="of the domain (default: the name of the output folder)")
        source.add_argument(
            "--num-negatives", type=_count, default=100, metavar="N", help="sampled candidates a user (default: 100)"
        )
    for source in (tables, stored, *readers.values()):
        source.add_argument(
            "--k-core", type=_count, default=5, metavar="K",
            help="drop users and items with fewer interactions until stable; 0 keeps all (default: 5)",
        )  # fmt: skip
        source.add_argument(
            "--split", choices=WAYS, default=LEAVE_ONE_OUT,
            help="; ".join(f"{way}: {told}" for way, told in WAYS.items()) + f" (default: {LEAVE_ONE_OUT})",
        )  # fmt: skip
        source.add_argument(
            "--fractions", nargs=3, type=float, default=FRACTIONS, metavar="F",
            help="of train, validation, test, for the other splits (default: 0.8 0.1 0.1)",
        )  # fmt: skip

    back = sources.add_parser("to-atomic", help="a prepared domain as atomic files of UniSRec or RecBole")
    back.add_argument("domain", type=Path, help="the folder of a prepared domain")
    back.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    back.add_argument("--dataset", metavar="X", help="what the files begin with (default: the name of the folder)")
    back.add_argument("--style", choices=STYLES, default=UNISREC, help=f"{STYLES} (default: {UNISREC})")
    return parser.parse_args(argv)


def prepare(arguments: argparse.Namespace) -> list[Path]:
    """Writes what was asked for; returns the folders of the domains."""
    if arguments.source == "synthetic":
        sizes = WORLD_SIZES[arguments.size]
        return write_world(arguments.output, arguments.seed, overwrite=arguments.overwrite, **sizes)
    if arguments.source == "atomic":
        return _write(read_atomic(arguments.folder, arguments.dataset), arguments)
    if arguments.source == "stored":
        with spool_beside(arguments.output) as spool:
            return _write(_by_engine(arguments, spool.folder), arguments)
    inputs, read = _log_reader(arguments)
    recipe = _recipe(arguments, inputs)
    if not arguments.overwrite and is_up_to_date(arguments.output, _name(arguments), {"recipe": recipe}):
        return _up_to_date(arguments)
    with spool_beside(arguments.output, arguments.strict) as spool:
        log = read(spool)
        for kind, sample in log.samples.items():
            print(f"{kind.replace('_', ' ')}, for example: {sample}", file=sys.stderr)
        if arguments.engine == POLARS and not arguments.memory_limit:
            return _write(domain_of_log(log, _options(arguments), arguments.k_core), arguments, recipe)
        return _write(_by_engine(arguments, spool.folder, log), arguments, recipe)


def _by_engine(arguments: argparse.Namespace, folder: Path, log: RawLog | None = None) -> RawDomain:
    """A reader's log, or the one that is stored, reduced by an engine; its packages are imported only here."""
    with open_engine(arguments.engine, folder, arguments.memory_limit) as engine:
        from retr_hf.data.engine_steps import domain_by_engine

        if log is None:
            from retr_hf.data.readers.stored import read_stored

            columns = dict(arguments.columns)
            log = read_stored(arguments.interactions, engine, items=arguments.items, columns=columns)
        return domain_by_engine(engine, log, _options(arguments), arguments.k_core)


def _options(arguments: argparse.Namespace) -> LogOptions:
    return LogOptions(
        arguments.min_rating, arguments.since, arguments.until, arguments.with_metadata, arguments.duplicates
    )


def _log_reader(arguments: argparse.Namespace) -> tuple[list[Path], Callable[[Spool], RawLog]]:
    """The files that are no option, downloaded where asked for, and what reads the log to a spool."""
    if arguments.source == "tables":
        options = ("items", "items_id", "text_columns", "timestamp_unit", "whole_catalogue")
        options = {name: getattr(arguments, name) for name in options} | {"columns": dict(arguments.columns)}
        return [], lambda spool: read_tables(arguments.interactions, spool, **options)
    inputs = arguments.input
    if arguments.download:
        fetched, items = download(arguments.source, arguments.download, arguments.release)
        inputs = inputs or [fetched]
        if items and not arguments.items:
            arguments.items = items
    return inputs, lambda spool: known.read_log(arguments.source, inputs, spool, arguments)


def _recipe(arguments: argparse.Namespace, inputs: list[Path]) -> str:
    """Of a reader's run: every argument that its domain depends on, and the files."""
    no_matter = ("input", "download", "output", "overwrite", "strict", "engine", "memory_limit")
    request = {key: value for key, value in vars(arguments).items() if key not in no_matter}
    named = [value for value in request.values() if isinstance(value, Path)]
    request = {key: value.name if isinstance(value, Path) else value for key, value in request.items()}
    return recipe_of(request, [*inputs, *named])


def _name(arguments: argparse.Namespace) -> str:
    return arguments.name or arguments.output.resolve().name


def _up_to_date(arguments: argparse.Namespace) -> list[Path]:
    print(f"{arguments.output}: up to date, nothing to do")
    return [arguments.output]


def _write(raw, arguments: argparse.Namespace, recipe: str | None = None) -> list[Path]:
    written = write_domain(
        raw,
        arguments.output,
        name=arguments.name,
        k_core=getattr(arguments, "k_core", 0),
        seed=arguments.seed,
        num_negatives=arguments.num_negatives,
        split=getattr(arguments, "split", LEAVE_ONE_OUT),
        fractions=getattr(arguments, "fractions", FRACTIONS),
        overwrite=arguments.overwrite,
        recipe=recipe,
    )
    return [arguments.output] if written else _up_to_date(arguments)


def report(folders: list[Path]) -> str:
    """The statistics of the domains as a table, published ones beside them, then what was dropped."""
    domains = [load_domain(folder) for folder in folders]
    lines = [statistics_table({domain.name: domain.statistics for domain in domains})]
    for domain in domains:
        examples = domain.provenance.get("examples", {})
        lines += [
            f"{domain.name}: {count:,} {what.replace('_', ' ')}"
            + (f", such as {', '.join(map(repr, examples[what]))}" if what in examples else "")
            for what, count in domain.provenance["dropped"].items()
        ]
        if domain.provenance["options"].get("ordered") == UNTIMED:
            named = " (--columns timestamp=NAME names their column)" * (domain.provenance["reader"] == "tables")
            lines.append(f"{domain.name}: no times, histories are in the order of the file{named}")
        if leaking := domain.statistics.get("leaking_train_events"):
            lines.append(f"{domain.name}: {leaking:,} training interactions are not before the first target")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.source != "to-atomic":
        print(report(prepare(arguments)))
        return
    dataset = arguments.dataset or arguments.output.resolve().name
    write_atomic(load_domain(arguments.domain), arguments.output, dataset, arguments.style)
    print(f"{arguments.output}: {', '.join(sorted(path.name for path in arguments.output.iterdir()))}")


def _add_inputs(parser: argparse.ArgumentParser, name: str) -> None:
    downloadable = name in SOURCES
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--input", nargs="+", type=Path, metavar="PATH", help=known.inputs_help(name))
    parser.set_defaults(download=None, release=None)
    if downloadable:
        source = SOURCES[name]
        either.add_argument("--download", type=Path, metavar="DIR", help=f"fetch the files to DIR from {source.inputs}")
        releases = ", ".join(source.releases) or "a category, such as Industrial_and_Scientific"
        parser.add_argument("--release", metavar="NAME", help=f"what to download: {releases}")


def _add_engine(parser: argparse.ArgumentParser, engines: list[str]) -> None:
    told = "; ".join(f"{engine}: {ENGINES[engine]}" for engine in engines)
    default = POLARS if POLARS in engines else SPARK
    parser.add_argument("--engine", choices=engines, default=default, help=f"{told} (default: {default})")
    parser.add_argument("--memory-limit", metavar="SIZE", help="of duckdb, such as 4GB (default: 80%% of the memory)")


def _add_log_options(parser: argparse.ArgumentParser, strict: bool = True) -> None:
    parser.add_argument(
        "--min-rating", type=float, metavar="R", help="drop lower ratings (default: every rating is an interaction)"
    )
    parser.add_argument("--since", metavar="DATE", help="drop what is earlier than YYYY-MM-DD (UTC)")
    parser.add_argument("--until", metavar="DATE", help="drop what is not earlier than YYYY-MM-DD (UTC)")
    parser.add_argument("--with-metadata", action="store_true", help="drop items that are not in the item table")
    parser.add_argument(
        "--duplicates", choices=DUPLICATES, default="all",
        help="; ".join(f"{policy}: {told}" for policy, told in DUPLICATES.items()) + " (default: all)",
    )  # fmt: skip
    if strict:
        parser.add_argument(
            "--strict", action="store_true", help="refuse the first line, time or rating that cannot be read"
        )


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise argparse.ArgumentTypeError(f"expected OURS=THEIRS, such as user_id=reviewerID, got {text!r}")
    return ours, theirs


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    run(main, "nothing was written")
