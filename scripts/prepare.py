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

    # UniSRec / RecBole atomic files, with the authors' own split
    python scripts/prepare.py atomic downloads/Scientific --output data/scientific

    # ten small synthetic domains with a known answer, no download: five to pre-train on, five to transfer to
    python scripts/prepare.py synthetic --output data/synthetic

Leaves interactions/, negatives/, items.parquet, catalog.json, domain.json and a dataset card README.md in the folder
(`datasets.load_dataset` opens it). The folder appears whole or not at all. The same command again finds it up to date.
Next: scripts/embed.py.
"""

import argparse
import signal
import sys
from pathlib import Path

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.data.readers.tables import UNITS, read_tables
from retr_hf.data.synthetic import write_world
from retr_hf.errors import RetrError

WORLD_SIZES = {
    "tiny": {"source_users": 150, "source_items": 60, "target_users": 60, "target_items": 60},  # a smoke test
    "small": {},  # the defaults of retr_hf.data.synthetic: the quickstart
    "medium": {"source_users": 5000, "source_items": 1500, "target_users": 1500, "target_items": 600},
}
TABLE = ("users", "items", "interactions", "mean_length", "median_length", "density", "train_rows", "test_rows")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    sources = parser.add_subparsers(dest="source", required=True, metavar="{tables,atomic,synthetic}")

    tables = sources.add_parser("tables", help="one table of interactions (or sequences) and one of items")
    tables.add_argument(
        "--interactions",
        required=True,
        type=Path,
        metavar="FILE",
        help="user_id, item_id[, timestamp] or user_id, item_ids",
    )
    tables.add_argument("--items", type=Path, metavar="FILE", help="item_id, text; without it a domain of ids only")
    tables.add_argument(
        "--columns", nargs="+", default=[], type=_pair, metavar="OURS=THEIRS", help="other column names in the files"
    )
    tables.add_argument(
        "--text-columns", nargs="+", default=["text"], metavar="COLUMN",
        help="of the item table; one is taken as it is, several are cleaned and joined (default: text)",
    )  # fmt: skip
    tables.add_argument("--timestamp-unit", choices=UNITS, default="s", help="since 1970 (default: s)")
    tables.add_argument(
        "--whole-catalogue", action="store_true", help="keep items nobody touched, in the table's order"
    )
    tables.add_argument(
        "--k-core", type=_count, default=5, metavar="K",
        help="drop users and items with fewer interactions until stable; 0 keeps all (default: 5)",
    )  # fmt: skip

    atomic = sources.add_parser("atomic", help="UniSRec / RecBole atomic files, their split kept")
    atomic.add_argument("folder", type=Path, help="holds X.train.inter, X.valid.inter, X.test.inter, X.text, ...")
    atomic.add_argument("--dataset", metavar="X", help="where the folder holds several")

    synthetic = sources.add_parser("synthetic", help="ten domains of a world with a known answer")
    synthetic.add_argument("--size", choices=WORLD_SIZES, default="small", help="(default: small)")

    for source in (tables, atomic, synthetic):
        what = "folder to make the ten domains in" if source is synthetic else "folder to make"
        source.add_argument("--output", required=True, type=Path, metavar="DIR", help=what)
        source.add_argument("--seed", type=_count, default=0, help="of everything random (default: 0)")
        source.add_argument("--overwrite", action="store_true", help="replace a prepared domain, its embeddings too")
    for source in (tables, atomic):
        source.add_argument("--name", help="of the domain (default: the name of the output folder)")
        source.add_argument(
            "--num-negatives", type=_count, default=100, metavar="N", help="sampled candidates a user (default: 100)"
        )
    return parser.parse_args(argv)


def prepare(arguments: argparse.Namespace) -> list[Path]:
    """Writes what was asked for; returns the folders of the domains."""
    if arguments.source == "synthetic":
        sizes = WORLD_SIZES[arguments.size]
        return write_world(arguments.output, arguments.seed, overwrite=arguments.overwrite, **sizes)
    if arguments.source == "tables":
        raw = read_tables(
            arguments.interactions,
            arguments.items,
            columns=dict(arguments.columns),
            text_columns=arguments.text_columns,
            timestamp_unit=arguments.timestamp_unit,
            whole_catalogue=arguments.whole_catalogue,
        )
    else:
        raw = read_atomic(arguments.folder, arguments.dataset)
    written = write_domain(
        raw,
        arguments.output,
        name=arguments.name,
        k_core=getattr(arguments, "k_core", 0),
        seed=arguments.seed,
        num_negatives=arguments.num_negatives,
        overwrite=arguments.overwrite,
    )
    if not written:
        print(f"{arguments.output}: up to date, nothing to do")
    return [arguments.output]


def report(folders: list[Path]) -> str:
    """The statistics of the domains as a table, then what was dropped."""
    domains = [load_domain(folder) for folder in folders]
    rows = [("domain", *(column.replace("_", " ") for column in TABLE))]
    rows += [(domain.name, *(f"{domain.statistics[column]:,}" for column in TABLE)) for domain in domains]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    for domain in domains:
        lines += [
            f"{domain.name}: {count:,} {what.replace('_', ' ')}" for what, count in domain.provenance["dropped"].items()
        ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that the unfinished folder is removed
    try:
        folders = prepare(arguments)
    except (RetrError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print(report(folders))
    return 0


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
    sys.exit(main())
