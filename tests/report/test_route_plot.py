"""The picture of what a router keeps: every part and block is there."""

from types import SimpleNamespace

import matplotlib.image
import pytest

from retr_hf.errors import DataError
from retr_hf.report import route_plot


def part(label, kept, alpha):
    return SimpleNamespace(label=label, behaviours=1200, kept=kept, keep_probability=alpha)


def test_a_line_a_block_and_a_label_a_part(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(route_plot, "save_figure", lambda figure, output: drawn.update(figure=figure) or output)
    panels = {
        "training interactions": [part("1-9", [0.2, 0.1], [0.3, 0.6]), part("10-50", [1, 0.9], [0.9, 0.95])],
        "age": [part("1", [0.5, 0.4], [0.5, 0.7])],
    }
    route_plot.plot_routes(panels, tmp_path / "routes.png", "RETR on $hop")
    first, second = drawn["figure"].axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["1-9\n1,200", "10-50\n1,200"]
    kept, alpha, kept_2, _ = (line.get_ydata().tolist() for line in first.lines)
    assert (kept, alpha, kept_2) == ([0.2, 1], [0.3, 0.9], [0.1, 0.9])
    assert len(second.lines) == 4 and first.get_ylim()[0] < 0 and first.get_ylim()[1] > 1
    assert [text.get_text() for text in drawn["figure"].legends[0].get_texts()] == [
        "block 1", "block 2", "mean keep probability",
    ]  # fmt: skip


def test_it_is_written_as_png_and_nothing_is_not_drawn(tmp_path):
    picture = route_plot.plot_routes({"age": [part("1", [0.5], [0.6])]}, tmp_path / "new" / "routes.png")
    assert matplotlib.image.imread(picture).shape[1] == 780
    for panels in ({}, {"age": []}):
        with pytest.raises(DataError, match="no behaviours to draw"):
            route_plot.plot_routes(panels, tmp_path / "none.png")
    with pytest.raises(DataError, match="written as PNG"):
        route_plot.plot_routes({"age": [part("1", [0.5], [0.6])]}, tmp_path / "routes.svg")
