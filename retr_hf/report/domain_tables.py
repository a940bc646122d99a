"""Result rows -> one Markdown table a domain: sampled ranking, full ranking beside it, and what the systems cost.

The papers' intra-domain tables print sampled rankings alone, which put systems in another order than full ranking does;
so here both stand on one line, each column under the name of its protocol. Published numbers fill only the columns of
their own protocol.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev

from ..errors import DataError
from .published import claims_beside, printed_name, published_numbers
from .results import ResultRow
from .tables import CAPTIONS, CELLS, CLAIMS, markdown, mean_cell, require_metrics, shown_metrics

SHOWN_PROTOCOLS, SHOWN_METRICS = ("sampled", "full"), ("HR@10", "NDCG@10", "MRR")
FIGURES = {  # what rows say of a model in ``settings`` -> what it is; a number, or one a block
    "parameters": "weights of the model",
    "item parameters": "those of them that belong to one item",
    "items read": "length of the history",
    "body GFLOPs": "10^9 operations of products for one user with a history of that length, from it to the query, by "
    "torch's own counter",
    "scoring GFLOPs": "the same for the query's product with all items",
    "routes kept": "share of the behaviours of the test histories on the pathway, each block",
    "pathway AUC": "how well the keep probability finds the behaviours that decide the target, known of synthetic "
    "worlds alone, each block; 0.5 is guessing",
}


def domain_tables(
    rows: Iterable[ResultRow],
    systems: Sequence[str] = (),
    published: str = "matching",
    protocols: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> str:
    """One table for each domain: systems down, protocol x metric across, then the figures that some row has.

    Args:
        rows: as ``read_rows`` gives them; real and synthetic data, and splits, have tables of their own.
        systems: have a row in any case, and in this order, before others; what was not measured is an empty cell.
        published: as in ``published.claims_beside``; claims stand under the system they are of.
        protocols, metrics: only these; None means ``sampled`` and ``full``, HR@10, NDCG@10 and MRR (``shown_metrics``).

    Raises:
        DataError: no rows to show, a metric that none has, or an unknown choice of ``published``.
    """
    rows = require_metrics(rows, metrics)
    protocols, metrics = protocols or SHOWN_PROTOCOLS, metrics or shown_metrics(rows, SHOWN_METRICS)
    groups = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.protocol in protocols and any(metric in row.metrics for metric in metrics):
            groups[row.synthetic, row.split, row.domain][_ranking(row)].append(row)
    if not groups:
        raise DataError("there are no result rows to report: evaluate a model first, or ask for a less narrow choice")
    tables = []
    for _, rankings in sorted(groups.items()):
        in_order = sorted(rankings, key=lambda ranking: (protocols.index(ranking[0]), ranking[1]))
        tables.append(_table({one: rankings[one] for one in in_order}, systems, published, metrics))
    return "\n".join(tables)


Ranking = tuple[str, int]  # protocol and, of sampled ones, the number of candidates


@dataclass(frozen=True)
class Line:
    """A line of a table: cells by (ranking, metric) and by figure. ``claim``: it is printed, not measured."""

    system: str
    label: str
    cells: dict[tuple[Ranking, str], str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    claim: bool = False


def _table(
    rankings: dict[Ranking, list[ResultRow]], systems: Sequence[str], published: str, metrics: Sequence[str]
) -> str:
    rows = [row for some in rankings.values() for row in some]
    shown = [name for name in FIGURES if any(name in row.settings for row in rows)]
    lines = _measured(rows, shown)
    lines += [Line(name, name) for name in systems if name not in {row.system for row in rows}]
    claims = [(claim, ranking) for ranking, some in rankings.items() for claim in claims_beside(some, published)]
    for claim, ranking in claims:
        cells = {(ranking, metric): f"{value:.4f}" for metric, value in claim.metrics.items()}
        lines.append(Line(claim.system, claim.label, cells, claim=True))
    columns = [(ranking, metric) for ranking in rankings for metric in metrics]
    heads = _heads(rankings)
    table = [["system", *(f"{heads[ranking]} {metric}" for ranking, metric in columns), *shown]]
    for line in _in_order(lines, systems):
        cells = [line.cells.get(column, "") for column in columns]
        table.append([line.label, *cells, *(line.figures.get(name, "") for name in shown)])

    first = rows[0]
    data = "SYNTHETIC data, not a result about any real domain" if first.synthetic else "real data"
    among = {one: f", {one[1]} candidates" if one[1] else "" for one in heads}
    notes = ["; ".join([*(f"{head}: {CAPTIONS[one[0]]}{among[one]}" for one, head in heads.items()), CELLS]) + "."]
    if claims:
        notes.append(f"{CLAIMS}; sampled ones are of negatives of their own drawing.")
    if shown:
        notes.append("; ".join(f"{name}: {FIGURES[name]}" for name in shown) + ".")
    notes += _printed_efficiency(first) if "parameters" in shown and published != "none" else []
    return "\n".join([f"## {first.domain}, {first.split} split, {data}", "", *notes, "", *markdown(table, words=1), ""])


def _ranking(row: ResultRow) -> Ranking:
    return row.protocol, row.candidates if row.protocol == "sampled" else 0


def _heads(rankings: Iterable[Ranking]) -> dict[Ranking, str]:
    """How rankings are called: by their protocol, and by the number of candidates too where that differs."""
    names = [protocol for protocol, _ in rankings]
    return {one: one[0] if names.count(one[0]) == 1 else f"{one[0]} among {one[1]}" for one in rankings}


def _measured(rows: list[ResultRow], shown: Sequence[str]) -> list[Line]:
    """A line for each system of a domain, for each recipe and initial model where several measured it, and for each
    list of other domains that it was trained on before."""
    recipes, groups = defaultdict(set), defaultdict(list)
    for row in rows:
        recipes[row.system, tuple(row.sources)].add(row.made_by)
        groups[row.system, tuple(row.sources), row.made_by].append(row)
    lines = []
    for (system, sources, recipe), some in groups.items():
        label = system if len(recipes[system, sources]) == 1 else f"{system} [{recipe}]"
        label += f" (from {', '.join(sources)})" if sources not in ((), (some[0].domain,)) else ""
        values = defaultdict(list)
        for row in some:
            for metric, value in row.metrics.items():
                values[_ranking(row), metric].append(value)
        cells = {column: mean_cell(cell) for column, cell in values.items()}
        lines.append(Line(system, label, cells, _figures(some, shown)))
    return lines


def _in_order(lines: list[Line], systems: Sequence[str]) -> list[Line]:
    """As ``systems`` stand, others by name; a claim under the systems that it is of, or where its name belongs."""
    order = {name: place for place, name in enumerate(systems)}
    last = {printed_name(name): place for name, place in order.items()}

    def place(line: Line) -> tuple:
        known = last if line.claim else order
        name = printed_name(line.system)
        where = known.get(name if line.claim else line.system, len(order))
        return where, name if where == len(order) else "", line.claim, line.label

    return sorted(lines, key=place)


def _figures(rows: list[ResultRow], names: Iterable[str]) -> dict[str, str]:
    """Cells of figures of one line, over its seeds; of lists a number a block."""
    by_seed = {row.seed: row.settings for row in rows}
    cells = {}
    for name in names:
        values = [settings[name] for settings in by_seed.values() if name in settings]
        blocks = zip(*(value if isinstance(value, list) else [value] for value in values), strict=True)
        cells[name] = " / ".join(_figure(block) for block in blocks)
    return cells


def _figure(values: Sequence[float]) -> str:
    mean = fmean(values)
    told = f"{mean:,.0f}" if all(isinstance(value, int) for value in values) else f"{mean:.4g}"
    return told if len(set(values)) == 1 else f"{told} ± {stdev(values):.2g}"


def _printed_efficiency(row: ResultRow) -> list[str]:
    """The poster's own figures where they are of this domain: a sentence, for they are no column of ours."""
    printed = {name.lower(): values for name, values in published_numbers()["efficiency_poster"].items()}
    if row.synthetic or row.domain.lower() not in printed:
        return []
    told = (
        f"{name} {weights:.3f} M and {gflops:.3f}" for name, (weights, gflops) in printed[row.domain.lower()].items()
    )
    return [f"The poster prints parameters and GFLOPs, of what length and batch it does not say: {', '.join(told)}."]
