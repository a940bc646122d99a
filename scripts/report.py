#!/usr/bin/env python
"""Report: result rows become tables, ours beside published numbers; the log of a run becomes its learning curves; a
prepared domain becomes a page that shows how it is and what in it will hurt.

    # tables to the terminal
    python scripts/report.py runs/scientific/rows.jsonl

    # the rows of many runs, copied together from any number of machines, into one file
    python scripts/report.py 'runs/*/rows.jsonl' --output RESULTS.md

    # beside every published system of these domains, not only those that were measured
    python scripts/report.py 'runs/*/rows.jsonl' --published all

    # does pre-training help? each system with and without it, the difference over seeds with its confidence interval
    python scripts/report.py runs/cross_domain/rows.jsonl --paired

    # is one system better than another? each minus that one, over the runs of the same seed, with confidence intervals
    python scripts/report.py runs/intra/table/rows.jsonl --against SASRec --metrics NDCG@10

    # a table a domain: sampled ranking with full ranking beside it, parameters and GFLOPs, the papers' numbers
    python scripts/report.py runs/intra/table/rows.jsonl --by-domain

    # the same as a picture: every system, its seeds and the printed numbers, a panel each domain and protocol
    python scripts/report.py runs/intra/table/rows.jsonl --chart intra.png --metrics NDCG@10

    # runs/scientific/X-RETR/seed-0/learning_curves.png, also of a run that is still going on
    python scripts/report.py --figures runs/scientific/X-RETR/seed-0

    # a look at the data: looks/shop/look.html and shop.png, warnings to the terminal; several domains on one page
    python scripts/report.py --domain data/shop
    python scripts/report.py --domain data/games data/beauty --output looks/sources

Opens result rows (scripts/finetune.py and scripts/evaluate.py leave them) and log.jsonl of RUN_DIR. Splits, real and
synthetic data and, but for --by-domain, protocols have tables of their own; published numbers have marked rows.
The page of a domain holds its pictures and opens anywhere, without the internet.
"""

import argparse
import os
import sys
from pathlib import Path

from retr_hf.domain_look import look_at_domains
from retr_hf.entry import run
from retr_hf.report.against import against_tables
from retr_hf.report.domain_tables import domain_tables
from retr_hf.report.paired import paired_tables
from retr_hf.report.plots import plot_learning_curves
from retr_hf.report.published import PUBLISHED_CHOICES
from retr_hf.report.results import PROTOCOLS, read_rows
from retr_hf.report.system_plot import plot_systems
from retr_hf.report.tables import of_systems, result_tables


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROWS.jsonl", help="files of result rows, or patterns of such files")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="write the tables to that file, not to the terminal; with --domain: the folder (default: looks/NAME)",
    )
    parser.add_argument(
        "--published",
        choices=PUBLISHED_CHOICES,
        default="matching",
        help="published numbers to print beside: of the systems measured (default), of all systems, or none",
    )
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--paired", action="store_true", help="pre-trained beside from scratch, seed by seed")
    kinds.add_argument("--by-domain", action="store_true", help="a table a domain, all protocols and costs on a line")
    kinds.add_argument("--against", metavar="SYSTEM", help="every system minus this one, seed by seed, with intervals")
    parser.add_argument("--protocols", nargs="+", choices=PROTOCOLS, help="only these ranking protocols")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="only these metrics, e.g. HR@10 NDCG@10")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="only these systems, by their names in the rows")
    parser.add_argument(
        "--chart", type=Path, metavar="FILE.png", help="draw the rows too: of --metrics the first, else NDCG@10"
    )
    parser.add_argument(
        "--figures",
        type=Path,
        action="append",
        default=[],
        metavar="RUN_DIR",
        help="draw RUN_DIR/learning_curves.png from its log.jsonl; may be given several times",
    )
    parser.add_argument(
        "--domain",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="DIR",
        help="look at prepared domains: a page, a picture each, warnings with figures, examples and remedies",
    )
    parser.add_argument("--quiet", action="store_true", help="with --domain: only the files, nothing to the terminal")
    options = parser.parse_intermixed_args(arguments)
    if options.domain:
        of_runs = ("rows", "figures", "paired", "by_domain", "against", "chart", "systems", "protocols", "metrics")
        if given := [f"--{name}".replace("_", "-") for name in of_runs if getattr(options, name)]:
            parser.error(f"--domain stands alone: {', '.join(given).replace('--rows', 'rows')} of runs; call twice")
        look(options)
        return
    if not options.rows and not options.figures:
        parser.error(
            "nothing to report: name a file of result rows (evaluation writes them), --figures RUN_DIR or --domain DIR"
        )
    if options.quiet:
        parser.error("--quiet is for --domain: tables are what is printed")
    if (options.paired or options.by_domain or options.against) and not options.rows:
        parser.error("--paired, --by-domain and --against are about result rows: name a file of them")
    if (options.output or options.chart or options.systems) and not options.rows:
        parser.error("--output, --chart and --systems are about result rows: name a file of them too")

    if options.rows:
        rows = read_rows(options.rows)
        if options.systems:
            rows = of_systems(rows, options.systems)
        if options.by_domain:
            from retr_hf.cost import with_costs  # brings torch

            rows = with_costs(rows)
        shown = {"protocols": options.protocols, "metrics": options.metrics}
        make = paired_tables if options.paired else domain_tables if options.by_domain else result_tables
        if options.against:
            tables = against_tables(rows, options.against, **shown)
        else:
            tables = make(rows, published=options.published, **shown)
        write_tables(tables, len(rows), options.output)
        if options.chart:
            metric = (options.metrics or ["NDCG@10"])[0]
            chart = plot_systems(rows, options.chart, metric, options.published, options.protocols)
            print(f"wrote {chart}", file=sys.stderr)
    for folder in options.figures:
        print(f"wrote {plot_learning_curves(folder, folder / 'learning_curves.png')}", file=sys.stderr)


def look(options: argparse.Namespace) -> None:
    seen = look_at_domains(options.domain, options.output)
    if not options.quiet:
        print(seen.text)
        print(f"\nwrote {seen.page} and {', '.join(picture.name for picture in seen.pictures)}")


def write_tables(tables: str, count: int, output: Path | None) -> None:
    if output is None:
        print(tables, end="")
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    temporary.write_text(tables, encoding="utf-8")
    os.replace(temporary, output)
    print(f"wrote {output}, {count} results", file=sys.stderr)


if __name__ == "__main__":
    run(main)
