"""One system against the others, seed by seed: who is better, by how much, and is it more than the luck of the seeds?

    d_{j,s} = x_{j,s}(system) - x_{j,s}(base),  j a domain, s a seed;      mean and interval as in paired.py

of one domain over its seeds, and of all domains over all their pairs. The last says nothing about domains that are not
among them, and a domain with high numbers weighs more in it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..errors import DataError
from .paired import SHOWN_METRICS, paired_difference
from .results import PROTOCOLS, ResultRow
from .tables import CAPTIONS, markdown, require_metrics, shown_metrics

NOTE = (
    "system minus {base}, runs of the same seed, sources and domain: mean difference, its 95 % confidence interval "
    "over the pairs (Student's t; not of one pair) and, in brackets, relative to {base}"
)
ALL = "all domains"


def against_tables(
    rows: Iterable[ResultRow],
    base: str,
    protocols: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> str:
    """One Markdown table for each protocol and metric: systems down, domains across, each cell a paired difference.

    Args:
        rows: as ``read_rows`` gives them; the test split is shown.
        base: name of the system that the others are compared with.
        protocols, metrics: only these; None means every protocol, HR@10 and NDCG@10 (``shown_metrics``).

    Raises:
        DataError: no row of the base, none that could be paired, a metric that none has, or two runs of one system that
            differ in their recipe alone, so that nobody knows which is meant.
    """
    rows = [row for row in require_metrics(rows, metrics) if row.split == "test"]
    protocols, metrics = protocols or PROTOCOLS, metrics or shown_metrics(rows, SHOWN_METRICS)
    names = sorted({row.system for row in rows})
    if base not in names:
        raise DataError(f"--against: no row of {base!r}; the systems are {', '.join(names) or 'none'}")
    runs = _by_run(row for row in rows if row.protocol in protocols)
    text = []
    for synthetic in (False, True):
        for protocol in protocols:
            some = {key[2:]: each for key, each in runs.items() if key[:2] == (synthetic, protocol)}
            tables = [(metric, table) for metric in metrics if len(table := _table(some, base, metric)) > 1]
            if tables:
                data = "SYNTHETIC data, not a result about any real domain" if synthetic else "real data"
                about = f"{CAPTIONS[protocol].capitalize()}; {NOTE.format(base=base)}."
                text += [f"## {protocol} ranking, test split, {data}", "", about, ""]
            for metric, table in tables:
                text += [f"### {metric}", "", *markdown(table), ""]
    if not text:
        raise DataError(f"no run has one of {base!r} with the same domain, sources and seed: nothing to compare")
    return "\n".join(text)


def _by_run(rows: Iterable[ResultRow]) -> dict[tuple, dict[tuple, dict[int, ResultRow]]]:
    """(synthetic, protocol, domain, candidates) -> (system, sources) -> seed -> row."""
    runs = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        candidates = row.candidates if row.protocol == "sampled" else 0
        seeds = runs[row.synthetic, row.protocol, row.domain, candidates][row.system, tuple(row.sources)]
        other = seeds.setdefault(row.seed, row)
        if (other.recipe, other.init) != (row.recipe, row.init):
            raise DataError(
                f"{row.system} on {row.domain}, seed {row.seed}, was measured twice, as {other.recipe} (init "
                f"{other.init}) and as {row.recipe} (init {row.init}): which is meant? Name files with "
                "one of them, or other --systems"
            )
    return runs


def _table(runs: dict[tuple, dict], base: str, metric: str) -> list[list[str]]:
    """Header and a row for each system and list of sources that the base has a twin of."""
    pairs = defaultdict(dict)  # (system, sources) -> domain -> pairs of values
    for (domain, *_), systems in runs.items():
        for (system, sources), seeds in systems.items():
            others = systems.get((base, sources), {})
            found = [
                (seeds[seed].metrics[metric], others[seed].metrics[metric])
                for seed in sorted(seeds.keys() & others.keys())
                if metric in seeds[seed].metrics and metric in others[seed].metrics
            ]
            if system != base and found:
                pairs[system, sources][domain] = pairs[system, sources].get(domain, []) + found
    domains = sorted({domain for each in pairs.values() for domain in each})
    table = [["system", "sources", *domains, *([ALL] if len(domains) > 1 else [])]]
    for (system, sources), found in sorted(pairs.items(), key=lambda item: (item[0][0].lower(), item[0][1])):
        cells = [str(paired_difference(found[domain])) if domain in found else "" for domain in domains]
        every = [one for each in found.values() for one in each]
        cells += [str(paired_difference(every)) if len(found) > 1 else ""] if len(domains) > 1 else []
        table.append([system, ", ".join(sources), *cells])
    return table
