"""Pictures, written as PNG: how a run learned, which items of a history its pathway kept, what pre-training brought."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from ..errors import DataError
from .letters import families_for, without_glyph_warnings

METRIC = re.compile(r"(?:(?P<protocol>.*)[/_. ])?(?P<family>HR|NDCG|MRR)(?:@(?P<cutoff>\d+))?")
LOG_FILE = "log.jsonl"
DPI = 150
LONGEST_HISTORY = 40  # items that fit a picture with readable titles
LONGEST_TITLE = 34  # letters
LETTERS_AN_INCH = 9  # of a heading
MOST_PANELS = 3  # beside one another
FEWEST_COLUMNS = 10  # a shorter history leaves the rest of the picture empty


def plot_learning_curves(run: str | Path, output: str | Path) -> Path:
    """Training loss and validation metrics over steps, a panel each protocol, the best value of each metric marked.

    Args:
        run: a run folder, or its log: JSON lines with ``step``, and any of ``epoch``, ``loss``, ``validation_loss``
            and metrics (``NDCG@10``, ``full/HR@10``, or nested in ``"validation": {...}``).
        output: the PNG to write.

    Returns:
        ``output``.

    Raises:
        DataError: no log, a line that is not JSON, nothing to draw.
    """
    log = Path(run) / LOG_FILE if Path(run).is_dir() else Path(run)
    curves = _read_curves(log)
    losses = {name: curves[name] for name in ("loss", "validation_loss") if name in curves}
    metrics = {name: curves[name] for name in sorted(filter(METRIC.fullmatch, curves), key=_metric_order)}
    if not losses and not metrics:
        raise DataError(f"{log}: no loss and no validation metric in it, there is nothing to draw")

    panels = {"loss": losses} if losses else {}
    for name, curve in metrics.items():
        protocol = METRIC.fullmatch(name)["protocol"]
        panels.setdefault(f"validation, {protocol}" if protocol else "validation", {})[name] = curve

    figure = Figure(figsize=(6.4 * len(panels), 4.2), dpi=DPI, layout="constrained")
    for axes, (title, lines) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for number, (name, (steps, values)) in enumerate(lines.items()):
            few = len(steps) <= 60
            axes.plot(steps, values, color=f"C{number % 10}", marker="o" if few else None, markersize=3, label=name)
            if lines is not losses:
                best = int(np.argmax(values))
                axes.plot(steps[best], values[best], "*", color=f"C{number % 10}", markersize=12, zorder=3)
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        handles = axes.get_legend_handles_labels()[0]
        if lines is not losses:
            handles.append(Line2D([], [], linestyle="", marker="*", color="grey", markersize=10, label="best"))
        # Below the axes, where no curve can run behind it.
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    return save_figure(figure, output)


def plot_pathway(
    titles: Sequence[str], keep: ArrayLike, route: ArrayLike, output: str | Path, target: str | None = None
) -> Path:
    """A history along x, oldest first; each block's keep probability as colour, its kept items marked with a dot.

    Only the last 40 items are drawn of a longer history; the picture says so.

    Args:
        titles: of the N items of the history; long ones are cut. In whatever script: see ``letters.families_for``.
        keep: float [L, N], the keep probability α of block l for item n (RETR, eq. 2-4).
        route: bool or 0/1 [L, N], the hard route.
        output: the PNG to write.
        target: title of the item the pathway led to, named in the heading.

    Returns:
        ``output``.

    Raises:
        DataError: shapes that do not fit the titles, probabilities outside 0 .. 1, an empty history.
    """
    keep, route = np.atleast_2d(np.asarray(keep, float)), np.atleast_2d(np.asarray(route)).astype(bool)
    if not titles or keep.shape != route.shape or keep.shape[1] != len(titles):
        raise DataError(
            f"keep and route must both be [blocks, items] for {len(titles)} titles (at least one), "
            f"got {list(keep.shape)} and {list(route.shape)}: leave the padding out"
        )
    if not ((keep >= 0) & (keep <= 1)).all():
        raise DataError(f"keep probabilities must lie in 0 .. 1, got {keep.min()} .. {keep.max()}")
    hidden = max(0, len(titles) - LONGEST_HISTORY)
    titles, keep, route = titles[hidden:], keep[:, hidden:], route[:, hidden:]
    blocks, items = keep.shape

    width = 2.4 + 0.36 * max(items, FEWEST_COLUMNS)
    figure = Figure(figsize=(width, 3.0 + 0.45 * blocks), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(keep, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xlim(-0.5, max(items, FEWEST_COLUMNS) - 0.5)
    titles = [_short(title, LONGEST_TITLE) for title in titles]
    heading = "Pathway" if target is None else _short(f"Pathway to {target}", int(width * LETTERS_AN_INCH))
    families = families_for([*titles, heading])
    axes.set_xticks(np.arange(items), titles)
    axes.set_yticks(np.arange(blocks), [f"block {block + 1}" for block in range(blocks)])
    for label in axes.get_xticklabels():
        label.set(rotation=60, rotation_mode="anchor", horizontalalignment="right", fontsize=8, family=families)
    axes.set_xticks(np.arange(items + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(blocks + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    block, item = route.nonzero()
    axes.scatter(item, block, s=44, color="white", edgecolors="black", linewidths=1)  # seen on every blue

    older = f"the last {items} of {items + hidden} items, " if hidden else ""
    heading = f"{heading}\n{older}oldest first; dot: kept by the route"
    axes.set_title(heading, loc="left", fontsize=10, pad=8, family=families)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 0.5, 1], pad=0.01, fraction=0.04, aspect=8)
    bar.set_label("keep probability", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    with without_glyph_warnings():
        return save_figure(figure, output)


def plot_differences(panels: Mapping[str, Sequence[tuple[str, float, float]]], metric: str, output: str | Path) -> Path:
    """Paired differences: a panel for each domain and protocol, a bar for the interval of each system, zero marked.

    Args:
        panels: title -> (system, mean difference, margin), as ``paired.paired_differences`` gives them.
        metric: what the differences are of.
        output: the PNG to write.

    Returns:
        ``output``.
    """
    columns = min(len(panels), MOST_PANELS)
    rows = -(-len(panels) // columns)
    height = 1.2 + 0.3 * max(map(len, panels.values()))
    figure = Figure(figsize=(4.6 * columns, height * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, systems) in zip(grid, panels.items(), strict=False):
        names, means, margins = zip(*systems, strict=True)
        places = np.arange(len(names))
        axes.axvline(0, color="0.6", linewidth=1)
        axes.errorbar(means, places, xerr=margins, fmt="o", color="C0", markersize=4, capsize=3)
        axes.set_yticks(places, names, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xlabel(f"{metric}: pre-trained minus without", fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return save_figure(figure, output)


def _read_curves(log: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Name -> (steps, values) of every finite number in the log. A torn last line is a run that goes on: left out."""
    if not log.is_file():
        raise DataError(f"{log}: no such log; expected the {LOG_FILE} of a training run or its folder")
    curves: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    whole_lines = log.read_bytes().split(b"\n")[:-1]
    for number, line in enumerate(whole_lines, start=1):
        try:
            record = json.loads(line)
            step = record["step"]
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{log}:{number}: not a JSON object with a step: remove the line or mend it") from None
        nested = record.pop("validation", None)
        if isinstance(nested, dict):
            record |= {f"validation_{name}" if name == "loss" else name: value for name, value in nested.items()}
        for name, value in record.items():
            if isinstance(value, (int, float)) and np.isfinite(value):
                curves[name][0].append(step)
                curves[name][1].append(value)
    return curves


def _metric_order(name: str) -> tuple[str, int, int]:
    match = METRIC.fullmatch(name)
    return match["protocol"] or "", ("HR", "NDCG", "MRR").index(match["family"]), int(match["cutoff"] or 0)


def _short(title: str, length: int) -> str:
    title = " ".join(title.split())
    title = title if len(title) <= length else title[: length - 1].rstrip(" .,;:-") + "…"
    return title.replace("$", r"\$")  # a bare dollar sign would start a formula


def require_png(output: Path) -> None:
    """Raises DataError for a name of another kind of picture: told before the work as well as after."""
    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: pictures are written as PNG; expected a name that ends in .png")


def save_figure(figure: Figure, output: str | Path) -> Path:
    """As PNG, through a temporary name, so that a picture is whole or not there.

    Raises:
        DataError: a name of another kind of picture.
    """
    output = Path(output)
    require_png(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    figure.savefig(temporary, format="png")
    os.replace(temporary, output)
    return output
