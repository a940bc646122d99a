"""Result rows -> one picture: systems down, a column each protocol, a row of panels each domain."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..errors import DataError
from .letters import families_for, without_glyph_warnings
from .plots import DPI, save_figure
from .published import claims_beside
from .results import PROTOCOLS, ResultRow
from .tables import require_metrics

LONGEST_LABEL = 84  # letters
LETTERS_AN_INCH = 14
Panel = dict[str, list[float]]  # label of a line -> its values, one a seed


def plot_systems(
    rows: Iterable[ResultRow],
    output: str | Path,
    metric: str = "NDCG@10",
    published: str = "matching",
    protocols: Sequence[str] | None = None,
) -> Path:
    """Every system of every domain: the mean of its seeds as a dot, the seeds as strokes, printed numbers as diamonds.

    The panels of a domain share their lines, the best of the first panel on top, so that it is seen where protocols
    put systems in another order. Splits, real and synthetic data have panels of their own.

    Args:
        rows: as ``read_rows`` gives them.
        output: the PNG to write.
        metric: what is drawn.
        published: as in ``published.claims_beside``; a printed number has a line of its own.
        protocols: only these, in this order; None means all there are.

    Returns:
        ``output``.

    Raises:
        DataError: no row has the metric, none is of the protocols, or an unknown choice of ``published``.
    """
    groups = defaultdict(lambda: defaultdict(list))
    columns = protocols or PROTOCOLS
    for row in require_metrics(rows, [metric]):
        if metric in row.metrics and row.protocol in columns:
            ranking = columns.index(row.protocol), row.candidates if row.protocol == "sampled" else 0
            groups[row.synthetic, row.split, row.domain][ranking].append(row)
    if not groups:
        raise DataError("there are no result rows to draw: evaluate a model first, or ask for a less narrow choice")
    drawn, labels = {}, {}
    for domain, rankings in sorted(groups.items()):
        names = _labels(row for some in rankings.values() for row in some)
        panels = {ranking: _panel(some, names, metric, published) for ranking, some in sorted(rankings.items())}
        drawn[domain], labels[domain] = panels, _best_first([{**one[0], **one[1]} for one in panels.values()])

    across = max(map(len, drawn.values()))
    heights = [1.0 + 0.24 * len(lines) for lines in labels.values()]
    longest = max(len(_cut(label)) for lines in labels.values() for label in lines)
    size = (longest / LETTERS_AN_INCH + 4.2 * across, sum(heights) + 0.3)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(len(drawn), across, squeeze=False, height_ratios=heights)
    for line, (domain, panels) in zip(grid, drawn.items(), strict=True):
        for axes, ((place, candidates), panel) in zip(line, panels.items(), strict=False):
            protocol = f"{columns[place]} among {candidates}" if candidates else columns[place]
            _draw(axes, panel, labels[domain], axes is line[0])
            axes.set_title(", ".join([_title(*domain), protocol]), loc="left", fontsize=10)
            axes.set_xlabel(metric, fontsize=8)
        for axes in line[len(panels) :]:
            axes.set_visible(False)
    every = [panel for panels in drawn.values() for panel in panels.values()]
    handles = [_mark("o", 7, "mean")]
    if any(len(values) > 1 for measured, _ in every for values in measured.values()):
        handles.append(_mark("|", 9, "a seed of several", "black"))
    if any(printed for _, printed in every):
        handles.append(_mark("D", 6, "published", "white"))
    figure.legend(handles=handles, loc="outside lower right", ncols=3, frameon=False, fontsize=8)
    with without_glyph_warnings():
        return save_figure(figure, output)


def _title(synthetic: bool, split: str, domain: str) -> str:
    return ", ".join([domain, *(["SYNTHETIC"] if synthetic else []), *([] if split == "test" else [split])])


def _labels(rows: Iterable[ResultRow]) -> dict[tuple, str]:
    """(system, sources, made by) -> what its line is called: as little as tells it from the others of its domain."""
    recipes, starts = defaultdict(set), defaultdict(set)
    for row in rows:
        recipes[row.system, tuple(row.sources)].add(row.made_by)
        starts[row.system].add(tuple(row.sources))
    labels = {}
    for (system, sources), names in recipes.items():
        start = f", pre-trained on {len(sources)}" if sources else ", from scratch"
        parts = {name: name.split(" + ") for name in names}
        shared = set.intersection(*map(set, parts.values()))
        for name in names:
            own = [re.sub(r"^\w+\.(?=\w+=)", "", part) for part in parts[name] if part not in shared]
            own = own or (["as it is"] if len(names) > 1 else [])
            told = system + (start if len(starts[system]) > 1 else "")
            labels[system, sources, name] = told + (f" ({', '.join(own)})" if own else "")
    taken = Counter(labels.values())
    whole = {key: f"{key[0]}, from {', '.join(key[1]) or 'scratch'} [{key[2]}]" for key in labels}
    return {key: label if taken[label] == 1 else whole[key] for key, label in labels.items()}


def _panel(rows: list[ResultRow], names: dict[tuple, str], metric: str, published: str) -> tuple[Panel, Panel]:
    """What was measured, and what is printed."""
    measured, printed = defaultdict(list), {}
    for row in rows:
        measured[names[row.system, tuple(row.sources), row.made_by]].append(row.metrics[metric])
    for claim in claims_beside(rows, published):
        if metric in claim.metrics:
            printed[claim.label] = [claim.metrics[metric]]
    return dict(measured), printed


def _best_first(panels: list[Panel]) -> list[str]:
    """All lines of a domain: by the first panel, those that it lacks by the next."""
    lines = dict.fromkeys(label for panel in panels for label in panel)

    def place(label: str) -> tuple[int, float]:
        number = next(number for number, panel in enumerate(panels) if label in panel)
        return number, -fmean(panels[number][label])

    return sorted(lines, key=place)


def _draw(axes: Axes, panel: tuple[Panel, Panel], lines: list[str], with_labels: bool) -> None:
    measured, printed = panel
    for place, label in enumerate(lines):
        values = measured.get(label, [])
        if values:
            axes.plot(fmean(values), place, "o", color="C0", markersize=7)
        if len(values) > 1:
            axes.plot(values, [place] * len(values), "|", color="black", markersize=9)
        if label in printed:
            axes.plot(printed[label], place, "D", color="black", markerfacecolor="white", markersize=5)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [_cut(label) for label in lines] if with_labels else [])
    for label in axes.get_yticklabels():
        label.set(fontsize=8, family=families_for([label.get_text()]))
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _cut(label: str) -> str:
    label = label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1].rstrip() + "…"
    return label.replace("$", r"\$")  # a bare dollar sign would start a formula


def _mark(marker: str, size: int, label: str, face: str = "C0") -> Line2D:
    edge = "black" if face == "white" else face
    return Line2D([], [], linestyle="", marker=marker, markersize=size, color=edge, markerfacecolor=face, label=label)
