"""What a router keeps as a picture: the share of behaviours on the pathway by kind, a line a block."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..errors import DataError
from .letters import families_for, without_glyph_warnings
from .plots import DPI, save_figure


class Part(Protocol):
    """Behaviours of one kind, as ``evaluation.route_profile`` finds them."""

    label: str
    behaviours: int
    kept: Sequence[float]
    keep_probability: Sequence[float]


def plot_routes(panels: Mapping[str, Sequence[Part]], output: str | Path, title: str = "") -> Path:
    """A panel each way of telling behaviours apart: kept share (line) and mean keep probability (dashed), a colour a
    block, the number of behaviours under each label.

    Args:
        panels: what the parts are told apart by -> the parts.
        output: the PNG to write.
        title: heading of the picture.

    Returns:
        ``output``.

    Raises:
        DataError: nothing to draw, or a name of another kind of picture.
    """
    if not panels or not all(panels.values()):
        raise DataError("there are no behaviours to draw: expected at least one part in each panel")
    figure = Figure(figsize=(5.2 * len(panels), 4.4), dpi=DPI, layout="constrained")
    families = families_for([title])
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11, family=families)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (name, parts) in zip(grid, panels.items(), strict=True):
        places = np.arange(len(parts))
        for block, (kept, alpha) in enumerate(
            zip(
                np.transpose([part.kept for part in parts]),
                np.transpose([part.keep_probability for part in parts]),
                strict=True,
            )
        ):
            axes.plot(places, kept, color=f"C{block}", marker="o", markersize=5, label=f"block {block + 1}")
            axes.plot(places, alpha, color=f"C{block}", linestyle="--", linewidth=1)
        axes.set_xticks(places, [f"{part.label}\n{part.behaviours:,}" for part in parts], fontsize=8)
        axes.set_xlim(-0.3, len(parts) - 0.7)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(f"{name}; below: behaviours")
        axes.grid(axis="y", color="0.9")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0].set_ylabel("share of behaviours kept")
    handles = [*grid[0].get_legend_handles_labels()[0], Line2D([], [], color="grey", linestyle="--", linewidth=1)]
    labels = [*grid[0].get_legend_handles_labels()[1], "mean keep probability"]
    figure.legend(handles, labels, loc="outside lower left", ncols=len(handles), frameon=False, fontsize=9)
    with without_glyph_warnings():
        return save_figure(figure, output)
