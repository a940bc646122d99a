"""Does pre-training help? The same system with and without it, seed by seed, published numbers beside.

    d_s = x_s(pre-trained) - x_s(not),  s = 1 … n seeds;      mean d̄ ± t_{0.975, n-1} · sd(d) / √n

is Student's 95 % confidence interval of the mean difference: of what another seed would give, on this test set. It says
nothing about other users, other pre-training seeds or other sources.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

from ..errors import DataError
from .published import PUBLISHED_CHOICES, claims_beside
from .results import PROTOCOLS, ResultRow
from .tables import CAPTIONS, CLAIMS, markdown, mean_cell, require_metrics, shown_metrics

CONFIDENCE = 0.95
SHOWN_PROTOCOLS, SHOWN_METRICS = ("full", "full-unseen"), ("HR@10", "NDCG@10")
NOTE = (
    "mean ± sample standard deviation over n seeds. The difference is of runs with the same seed, with its 95 % "
    "confidence interval over seeds (Student's t) and, in brackets, relative to the twin without pre-training"
)


@dataclass(frozen=True)
class Difference:
    """The mean of n paired differences.

    ``margin`` is half the confidence interval, None where it is of one pair; ``base`` is the mean without pre-training.
    """

    mean: float
    margin: float | None
    base: float
    n: int

    def __str__(self) -> str:
        """``+0.0050 [+0.0038, +0.0062] (+9.6 %, n=3)``: mean, interval, relative to the base, pairs."""
        interval = "" if self.margin is None else f" [{self.mean - self.margin:+.4f}, {self.mean + self.margin:+.4f}]"
        relative = f"{100 * self.mean / self.base:+.1f} %, " if self.base else ""
        return f"{self.mean:+.4f}{interval} ({relative}n={self.n})"


@dataclass(frozen=True)
class Line:
    """A system on a domain under a protocol: seed -> metrics, with pre-training and without.

    Without sources it was never pre-trained. ``recipe`` tells twins: only runs of one recipe are compared.
    """

    system: str
    recipe: str
    sources: tuple[str, ...]
    pretrained: dict[int, dict[str, float]]
    scratch: dict[int, dict[str, float]]

    def values(self, metric: str) -> tuple[list[float], list[float]]:
        """A metric's values, pre-trained and not."""
        pretrained, scratch = (
            [metrics[metric] for metrics in seeds.values() if metric in metrics]
            for seeds in (self.pretrained, self.scratch)
        )
        return pretrained, scratch

    def difference(self, metric: str) -> Difference | None:
        """Pre-trained minus not, over the seeds that both have; None where they share none."""
        pairs = [
            (self.pretrained[seed][metric], self.scratch[seed][metric])
            for seed in self.pretrained.keys() & self.scratch.keys()
            if metric in self.pretrained[seed] and metric in self.scratch[seed]
        ]
        return paired_difference(pairs) if pairs else None


def paired_difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    """First minus second of at least one pair, its mean with a confidence interval."""
    differences, n, margin = [one - other for one, other in pairs], len(pairs), None
    if n > 1:
        quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
        margin = quantile * stdev(differences) / math.sqrt(n)
    return Difference(fmean(differences), margin, fmean(other for _, other in pairs), n)


def pair(rows: Iterable[ResultRow]) -> list[Line]:
    """The lines of one domain, split, protocol and kind of data: a line for each system, recipe, list of sources and
    initial model.

    From-scratch runs stand beside the pre-trained ones of their system and recipe, whatever the sources of those.
    """
    runs = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        start = None if not row.sources else row.init
        runs[row.system, row.recipe][tuple(row.sources), start][row.seed] = row.metrics
    lines = []
    for (system, recipe), starts in runs.items():
        scratch = starts.pop(((), None), {})
        seen = Counter(sources for sources, _ in starts)
        for (sources, start), seeds in (starts or {((), None): {}}).items():
            told = f"{recipe} + init={start}" if seen[sources] > 1 else recipe
            lines.append(Line(system, told, sources, seeds, scratch))
    return lines


def paired_tables(
    rows: Iterable[ResultRow],
    systems: Sequence[str] = (),
    published: str = "matching",
    protocols: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> str:
    """One Markdown table for each protocol and domain: systems down, each metric with and without pre-training across.

    Args:
        rows: as ``read_rows`` gives them; the test split is shown.
        systems: have a row in any case, and in this order, before others; what was not measured is an empty cell.
        published: as in ``result_tables``; in a column of its own, under protocol ``full`` of real data.
        protocols, metrics: only these; None means ``full`` and ``full-unseen``, HR@10 and NDCG@10 (``shown_metrics``).

    Raises:
        DataError: no rows to show, a metric that none has, or an unknown choice of ``published``.
    """
    if published not in PUBLISHED_CHOICES:
        raise DataError(f"published must be one of {', '.join(PUBLISHED_CHOICES)}; got {published!r}")
    rows, groups = require_metrics(rows, metrics), defaultdict(list)
    protocols, metrics = protocols or SHOWN_PROTOCOLS, metrics or shown_metrics(rows, SHOWN_METRICS)
    for row in rows:
        if row.split == "test" and row.protocol in protocols and any(metric in row.metrics for metric in metrics):
            candidates = row.candidates if row.protocol == "sampled" else 0
            groups[row.synthetic, PROTOCOLS.index(row.protocol), row.domain, candidates].append(row)
    if not groups:
        raise DataError("there are no result rows to pair: run scripts/grid.py, or ask for a less narrow choice")
    text = []
    for key in sorted(groups):
        synthetic, protocol, domain, candidates = key
        name, lines = PROTOCOLS[protocol], pair(groups[key])
        data = "SYNTHETIC data, not a result about any real domain" if synthetic else "real data"
        title = f"## {name} ranking, test split, {data}"
        if title not in text:
            text += [title, "", f"{CAPTIONS[name].capitalize()}; {NOTE}.", ""]
        beside = claims_beside(groups[key], published) if name == "full" else []
        claims = {claim.system.lower(): (claim.system, claim.metrics) for claim in beside}
        text += [f"### {domain}" + (f", {candidates} candidates" if candidates else ""), ""]
        text += [f"{CLAIMS}.", ""] if claims else []
        text += [*markdown(_table(lines, systems, claims, metrics)), ""]
    return "\n".join(text)


def paired_differences(
    rows: Iterable[ResultRow], metric: str, systems: Sequence[str] = ()
) -> dict[str, list[tuple[str, float, float]]]:
    """What a figure draws: "domain, protocol" -> (system, mean difference, margin; 0 of one pair), in their order.

    Raises:
        DataError: no run has a twin.
    """
    order = {name: place for place, name in enumerate(systems)}
    groups = defaultdict(list)
    for row in require_metrics(rows, None):
        if row.split == "test" and row.protocol in SHOWN_PROTOCOLS:
            title = f"{row.domain}, {row.protocol}" + (" (SYNTHETIC)" if row.synthetic else "")
            groups[title].append(row)
    panels = {}
    for title in sorted(groups):
        lines = sorted(pair(groups[title]), key=lambda line: (order.get(line.system, len(order)), line.system.lower()))
        drawn = [(line.system, line.difference(metric)) for line in lines]
        drawn = [(system, one.mean, one.margin or 0.0) for system, one in drawn if one is not None]
        panels |= {title: drawn} if drawn else {}
    if not panels:
        raise DataError("no run has a twin of the same recipe and seed without pre-training: nothing to draw")
    return panels


def _table(lines: list[Line], systems: Sequence[str], claims: dict, metrics: Sequence[str]) -> list[list[str]]:
    """Header and rows: measured systems, those asked for and not measured, those with nothing but a claim."""
    names = {line.system for line in lines}
    lines += [Line(name, "", (), {}, {}) for name in dict.fromkeys(systems) if name not in names]
    known = {line.system.lower() for line in lines}
    lines += [Line(name, "", (), {}, {}) for key, (name, _) in claims.items() if key not in known]
    order = {name: place for place, name in enumerate(systems)}
    lines.sort(key=lambda line: (order.get(line.system, len(order)), line.system.lower(), line.recipe, line.sources))
    recipes = defaultdict(set)
    for line in lines:
        recipes[line.system].add(line.recipe)

    parts = ["pre-trained", "without", "difference", *(["published"] if claims else [])]
    table = [["system", "sources", *(f"{metric} {part}" for metric in metrics for part in parts)]]
    for line in lines:
        label = f"{line.system} [{line.recipe}]" if len(recipes[line.system]) > 1 else line.system
        cells = [label, ", ".join(line.sources)]
        claim = claims.get(line.system.lower(), ("", {}))[1]
        for metric in metrics:
            pretrained, scratch = line.values(metric)
            cells += [mean_cell(pretrained), mean_cell(scratch), str(line.difference(metric) or "")]
            cells += [f"{claim[metric]:.4f}" if metric in claim else ""] if claims else []
        table.append(cells)
    return table
