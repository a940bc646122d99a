"""Result rows -> Markdown tables, published numbers beside, and never two kinds of numbers in one table."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from ..errors import DataError
from .published import PUBLISHED_CHOICES, PublishedResult, claims_beside
from .results import PROTOCOLS, ResultRow

CAPTIONS = {
    "full": "all items are candidates, also those of the user's history",
    "full-unseen": "all items but those of the user's history are candidates",
    "sampled": "the target among stored sampled negatives",
}
CELLS = "mean ± sample standard deviation over n seeds; without ± it is one seed"
CLAIMS = "Published rows are printed claims of others, made on their own data, sources and machines"


def result_tables(
    rows: Iterable[ResultRow],
    published: str = "matching",
    protocols: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> str:
    """One Markdown table for each protocol and set of metrics: rows are systems, columns domains x metrics.

    Rows of different splits, of real and synthetic data, and of different numbers of sampled candidates never share
    a table. A system has a row for each list of sources, and for each recipe and initial model if several
    measured the same domain. What was not measured is an empty cell.

    Args:
        rows: as ``read_rows`` gives them.
        published: which published numbers stand beside, where protocol and domain are theirs
            (``PublishedResult.is_of``): of the systems in the table (``matching``), of ``all`` systems, or ``none``.
            They have rows of their own, marked, with their own sources.
        protocols, metrics: only these; None means all.

    Raises:
        DataError: no rows, a metric that none has, or an unknown choice of ``published``.
    """
    if published not in PUBLISHED_CHOICES:
        raise DataError(f"published must be one of {', '.join(PUBLISHED_CHOICES)}; got {published!r}")
    rows, groups = require_metrics(rows, metrics), defaultdict(list)
    for row in rows:
        candidates = row.candidates if row.protocol == "sampled" else 0
        shown = tuple(sorted((name for name in row.metrics if not metrics or name in metrics), key=_metric_order))
        if shown and (not protocols or row.protocol in protocols):
            groups[row.synthetic, row.split, PROTOCOLS.index(row.protocol), candidates, shown].append(row)
    if not groups:
        raise DataError("there are no result rows to report: evaluate a model first, or ask for a less narrow choice")
    ambiguous = _ambiguous(row for group in groups.values() for row in group)
    return "\n".join(_table(groups[key], key[-1], published, ambiguous) for key in sorted(groups))


def require_metrics(rows: Iterable[ResultRow], metrics: Sequence[str] | None) -> list[ResultRow]:
    """The rows, where each of the ``metrics`` asked for (None: any) is in some of them; domains that were prepared in
    several ways are told apart (``tell_data_apart``).

    Raises:
        DataError: a metric that no row has; says which there are.
    """
    rows = list(rows)
    known = {name for row in rows for name in row.metrics}
    if rows and (unknown := [name for name in metrics or () if name not in known]):
        told = ", ".join(sorted(known, key=_metric_order))
        raise DataError(f"no row has the metric {', '.join(unknown)}: the rows have {told}")
    return tell_data_apart(rows)


def tell_data_apart(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows; where those of one domain and split have several numbers of users, or of items that are ranked, the
    domain was prepared anew in between, and each is called by these numbers too: they are no seeds of one another."""
    users, items = defaultdict(set), defaultdict(set)
    for row in rows:
        users[row.domain, row.split, row.synthetic].add(row.num_users)
        if row.protocol != "sampled":
            items[row.domain, row.split, row.synthetic, row.num_users].add(row.candidates)

    def named(row: ResultRow) -> ResultRow:
        data = row.domain, row.split, row.synthetic
        told = [f"{row.num_users:,} users"] if len(users[data]) > 1 else []
        if row.protocol != "sampled" and len(items[(*data, row.num_users)]) > 1:
            told.append(f"{row.candidates:,} items")
        return replace(row, domain=f"{row.domain} ({', '.join(told)})") if told else row

    return list(map(named, rows))


def shown_metrics(rows: Iterable[ResultRow], usual: Sequence[str]) -> list[str]:
    """The usual metrics, or all that the rows have where these are of other cutoffs."""
    known = {name for row in rows for name in row.metrics}
    return list(usual) if any("@" in name for name in known & {*usual}) else sorted(known, key=_metric_order)


def of_systems(rows: Iterable[ResultRow], systems: Sequence[str]) -> list[ResultRow]:
    """The rows of these systems.

    Raises:
        DataError: a system that no row is of; says which there are.
    """
    rows = list(rows)
    known = sorted({row.system for row in rows})
    if unknown := [name for name in systems if name not in known]:
        raise DataError(f"no row is of {', '.join(unknown)}: the rows are of {', '.join(known)}")
    return [row for row in rows if row.system in systems]


def _table(rows: list[ResultRow], metrics: Sequence[str], published: str, ambiguous: set) -> str:
    first = rows[0]
    domains = sorted({row.domain for row in rows})
    columns = [(domain, metric) for domain in domains for metric in metrics]
    claims = _claims(claims_beside(rows, published))

    lines = [(label, _sources(sources), cells) for (label, sources), cells in _measured(rows, ambiguous).items()]
    lines += [(label, _sources(sources), cells) for (label, sources), cells in claims]
    lines.sort(key=lambda line: (line[0].lower(), line[1]))
    table = [["system", "sources", *(f"{domain} {metric}" for domain, metric in columns)]]
    table += [[label, sources, *(cells.get(column, "") for column in columns)] for label, sources, cells in lines]

    data = "SYNTHETIC data, not a result about any real domain" if first.synthetic else "real data"
    candidates = f", {first.candidates} candidates" if first.protocol == "sampled" else ""
    title = f"## {first.protocol} ranking, {first.split} split, {data}"
    notes = [f"{CAPTIONS[first.protocol].capitalize()}{candidates}; {CELLS}.", *([f"{CLAIMS}."] if claims else [])]
    return "\n".join([title, "", *notes, "", *markdown(table), ""])


def _ambiguous(rows: Iterable[ResultRow]) -> set[tuple[str, tuple[str, ...]]]:
    """(system, sources) that several recipes or initial models measured on one domain, in whichever tables these stand:
    they are told apart by these."""
    recipes = defaultdict(set)
    for row in rows:
        recipes[row.system, tuple(row.sources), row.domain].add(row.made_by)
    return {key[:2] for key, names in recipes.items() if len(names) > 1}


def _measured(rows: list[ResultRow], ambiguous: set) -> dict[tuple[str, tuple[str, ...]], dict[tuple[str, str], str]]:
    """(system, sources) -> (domain, metric) -> cell."""
    values = defaultdict(lambda: defaultdict(list))
    for row in rows:
        key = row.system, tuple(row.sources)
        label = f"{row.system} [{row.made_by}]" if key in ambiguous else row.system
        for metric, value in row.metrics.items():
            values[label, key[1]][row.domain, metric].append(value)
    return {line: {column: mean_cell(cell) for column, cell in cells.items()} for line, cells in values.items()}


def _claims(published: list[PublishedResult]) -> list[tuple[tuple[str, tuple[str, ...]], dict]]:
    """((label, sources), (domain, metric) -> cell) of each published system."""
    claims = defaultdict(dict)
    for claim in published:
        cells = {(claim.domain, metric): f"{value:.4f}" for metric, value in claim.metrics.items()}
        claims[claim.label, claim.sources] |= cells
    return list(claims.items())


def mean_cell(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation over n seeds; one seed has no deviation, none is an empty cell."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{fmean(values):.4f} ± {stdev(values):.4f} (n={len(values)})"


def _sources(sources: Sequence[str]) -> str:
    return ", ".join(sources) if sources else "from scratch"


def _metric_order(name: str) -> tuple:
    """HR@10, HR@50, NDCG@10, NDCG@50, MRR, then any other by name."""
    family, _, cutoff = name.partition("@")
    known = ("HR", "NDCG", "MRR")
    return known.index(family) if family in known else len(known), family, int(cutoff) if cutoff.isdigit() else 0, name


def markdown(table: list[list[str]], words: int = 2) -> list[str]:
    """The lines of a Markdown table, its columns padded so that the source can be read too.

    Args:
        table: header and rows of cells.
        words: how many columns, from the left, hold words; the others hold numbers and go to the right.
    """
    table = [[re.sub(r"([|\\])", r"\\\1", cell) for cell in line] for line in table]
    widths = [max(3, *map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * width if index < words else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    padded = [
        [cell.ljust(width) if index < words else cell.rjust(width) for index, (cell, width) in enumerate(line)]
        for line in (list(zip(line, widths, strict=True)) for line in table)
    ]
    return ["| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]]]
