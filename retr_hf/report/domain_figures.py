"""Panels of a look at a domain: lengths, popularity, times, splits, texts; each alone for a page, or all in a PNG."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from .plots import save_figure

PANEL, DPI = (4.4, 3.2), 160  # inches: readable at the width of a phone
TRAIN, VALIDATION, TEST, FAULT, GREY = "#4477aa", "#ddaa33", "#66aa77", "#bb5566", "0.45"
MOST_WORDS = 0.99  # of the texts are drawn
PLACES = ("the last item", "2 to 5 back", "6 to 20 back", "further back", "nowhere")
TICK_LABELS = FuncFormatter(lambda value, _: f"{value:,.0f}")
PERCENT_LABELS = PercentFormatter(1, symbol=" %")


@dataclass(frozen=True)
class Panel:
    """title: two lines, the second with figures; caption: how to read it; draw: onto axes."""

    title: str
    caption: str
    draw: Callable[[Axes], None]


def domain_panels(profile: Any) -> list[Panel]:
    """The panels that a domain has: without times or texts fewer.

    profile: ``data.profile.domain_profile.DomainProfile``.
    """
    histories, popularity, targets = profile.histories, profile.popularity, profile.targets
    times, texts = profile.times, profile.texts
    panels = [
        Panel(
            f"History length\nmedian {histories.median:g}, longest {histories.longest[1].count:,}",
            "Share of the users with at least so many interactions. At each maximum length: how many of all "
            "interactions a model of that length never reads.",
            lambda axes: _lengths(axes, histories),
        ),
        Panel(
            f"Item popularity\ntop {popularity.head_items.percent} of items: {popularity.head.percent} of interactions",
            "Interactions of each item, the most popular first, both axes logarithmic. Shaded: these top items.",
            lambda axes: _popularity(axes, popularity),
        ),
        Panel(
            f"Concentration\nGini {popularity.gini:.2f} (0: all items equal)",
            "Lorenz curve: the least popular x % of the items have y % of the interactions.",
            lambda axes: _lorenz(axes, popularity),
        ),
        Panel(
            f"Splits\ntest targets not in training: {targets.cold['test'].percent}",
            "Training interactions, and one target a row of validation and test. Red: the item is in no training row.",
            lambda axes: _splits(axes, targets),
        ),
        Panel(
            f"Seen before\ntest targets in their own history: {targets.seen['test'].percent}",
            "Where the target of a test row stands in the user's own history, counted back from the target.",
            lambda axes: _places(axes, targets),
        ),
    ]
    if times and times.impossible.count < times.impossible.whole:
        panels.insert(
            3,
            Panel(
                f"Time, by {times.unit}\ntraining not before the first target: {times.leaking.percent}",
                "Interactions over time: what trains, and the targets of validation and test, stacked.",
                lambda axes: _times(axes, times),
            ),
        )
    if len(texts.words):
        panels.append(
            Panel(
                f"Text length\nwithout text: {texts.missing.percent} of items",
                "Items by the number of words of their text.",
                lambda axes: _words(axes, texts),
            )
        )
    if texts.cosines is not None:
        panels.append(
            Panel(
                f"Nearest other text\nsame: {texts.same.percent}, nearly the same: {texts.near.percent} of items",
                f"Cosine of an item's centred text vector to the nearest other item's ({texts.vectors}; "
                f"{texts.near.whole:,} items asked). Red: at least 0.95.",
                lambda axes: _cosines(axes, texts),
            )
        )
    return panels


def panel_png(panel: Panel) -> bytes:
    """One panel as a picture of its own."""
    figure = Figure(figsize=PANEL, dpi=DPI, layout="constrained")
    _draw(panel, figure.subplots())
    FigureCanvasAgg(figure)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def plot_domain(label: str, profile: Any, output: str | Path) -> Path:
    """All panels of a domain in one PNG; returns ``output``."""
    panels = domain_panels(profile)
    rows = 2
    columns = -(-len(panels) // rows)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows + 0.4), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
    figure.suptitle(label.replace("$", r"\$"), x=0.01, horizontalalignment="left", fontsize=13, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, panels, strict=False):
        _draw(panel, axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    return save_figure(figure, output)


def _draw(panel: Panel, axes: Axes) -> None:
    axes.grid(color="0.92")
    panel.draw(axes)
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _lengths(axes: Axes, histories: Any) -> None:
    users = histories.users
    at_least = np.cumsum(users[::-1])[::-1] / users.sum()
    ends = [max(1, histories.lengths[0] - 1), *histories.lengths]  # the curve falls after a length, not before it
    axes.stairs(at_least, ends, fill=True, color=TRAIN, alpha=0.25)
    axes.stairs(at_least, ends, color=TRAIN, linewidth=1.5, baseline=None)
    axes.set_xscale("log")
    for place, (limit, cut) in enumerate(histories.cut_events.items()):
        axes.axvline(limit, color=FAULT, linewidth=1, linestyle=":")
        axes.text(
            limit * 1.06, 0.98 - 0.12 * place, f"{limit} cuts {cut.percent}", color=FAULT, fontsize=8, va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    axes.set_xlim(ends[0], max(1500, histories.lengths[-1] * 1.1))
    _plain_log(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PERCENT_LABELS)
    axes.set(xlabel="interactions", ylabel="users with at least as many")


def _popularity(axes: Axes, popularity: Any) -> None:
    axes.plot(popularity.ranks, popularity.counts, color=TRAIN, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.axvspan(popularity.ranks[0] * 0.9, popularity.head_items.count, color=TEST, alpha=0.2)
    axes.set_xlim(left=popularity.ranks[0] * 0.9)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_log(axis)
    axes.set(xlabel="rank of the item", ylabel="interactions")


def _lorenz(axes: Axes, popularity: Any) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
    axes.text(0.47, 0.5, "all items equal", color=GREY, fontsize=8, horizontalalignment="right")
    axes.fill_between(popularity.items, popularity.interactions, popularity.items, color=TRAIN, alpha=0.2)
    axes.plot(popularity.items, popularity.interactions, color=TRAIN, linewidth=1.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PERCENT_LABELS)
    axes.set(xlabel="items, least popular first", ylabel="interactions", xlim=(0, 1), ylim=(0, 1))


def _times(axes: Axes, times: Any) -> None:
    edges = np.append(times.bins, times.bins[-1] + 1)
    below = np.zeros(len(times.bins))
    for name, color in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        above = below + times.counts[name]
        axes.stairs(above, date2num(edges), baseline=below, fill=True, color=color, label=name)
        below = above
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(TICK_LABELS)
    axes.set(ylabel=f"interactions a {times.unit}")
    axes.margins(x=0.01)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))


def _splits(axes: Axes, targets: Any) -> None:
    sizes = {"training\ninteractions": targets.events}
    sizes |= {f"{name}\ntargets": targets.rows[name] for name in ("validation", "test")}
    cold = [0, *(targets.cold[name].count for name in ("validation", "test"))]
    places = np.arange(3)
    axes.barh(places, list(sizes.values()), color=(TRAIN, VALIDATION, TEST), height=0.6)
    axes.barh(places, cold, color=FAULT, height=0.6)
    for place, (size, never) in enumerate(zip(sizes.values(), cold, strict=True)):
        told = f" {size:,}" + (f", {never:,} cold" if never else "")
        inside = size > 0.6 * max(sizes.values())
        axes.text(
            size, place, told + " " if inside else told, fontsize=8, verticalalignment="center",
            horizontalalignment="right" if inside else "left", color="white" if inside else "black",
        )  # fmt: skip
    axes.set_yticks(places, list(sizes))
    axes.grid(visible=False, axis="y")
    axes.set_ylim(2.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.xaxis.set_major_formatter(TICK_LABELS)


def _places(axes: Axes, targets: Any) -> None:
    share = targets.places / max(1, targets.places.sum())
    places = np.arange(len(PLACES))
    axes.barh(places, share, color=[TEST] * (len(PLACES) - 1) + ["0.75"], height=0.6)
    for place, part in enumerate(share):
        axes.text(part + 0.01, place, f"{100 * part:.1f} %", fontsize=8, verticalalignment="center")
    axes.set_yticks(places, PLACES)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(len(PLACES) - 0.5, -0.5)
    axes.set_xlim(0, 1.15)
    axes.set_xticks(np.linspace(0, 1, 5))
    axes.xaxis.set_major_formatter(PERCENT_LABELS)
    axes.set(xlabel="test targets")


def _words(axes: Axes, texts: Any) -> None:
    most = texts.words[np.searchsorted(np.cumsum(texts.items), MOST_WORDS * texts.items.sum())]
    width = max(1, round(most / 40))
    edges = np.arange(0, most + 2 * width, width) + 0.5
    axes.hist(texts.words, bins=edges, weights=texts.items, color=TRAIN)
    longer = texts.items[texts.words > edges[-1]].sum()
    if longer:
        told = f"{longer:,} longer,\nup to {texts.words[-1]:,} words"
        axes.text(1, 0.97, told, transform=axes.transAxes, fontsize=8, color=GREY, ha="right", va="top")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(TICK_LABELS)
    axes.set(xlabel="words", ylabel="items")


def _cosines(axes: Axes, texts: Any) -> None:
    cosines = np.clip(texts.cosines, -1, 1)
    lowest = np.floor(20 * min(float(cosines.min()), 0.5)) / 20
    edges = np.linspace(lowest, 1, round((1 - lowest) * 40) + 1)  # steps of 0.025: 0.95 is an edge
    counts, _ = np.histogram(cosines, edges)
    near = edges[:-1] > 0.95 - 1e-9
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=np.where(near, FAULT, TRAIN))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(TICK_LABELS)
    axes.set(xlabel="cosine to the nearest other item", ylabel="items", xlim=(lowest, 1))


def _plain_log(axis: Any) -> None:
    """Plain figures: 1, 10, 100, 1,000; multiples between where that gives too few ticks. Call it when all is drawn."""
    low, high = axis.get_view_interval()
    if high < 10 * low:
        axis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,), numticks=12))
    axis.set_major_formatter(TICK_LABELS)
    axis.set_minor_formatter(NullFormatter())
