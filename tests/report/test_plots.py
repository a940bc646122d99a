"""Pictures: written whole, of the right size, readable, and refused where there is nothing to draw."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from retr_hf.errors import DataError
from retr_hf.report.plots import plot_differences, plot_learning_curves, plot_pathway

TITLES = ["Digital camera", "Lens cloth", "Shoes for $40 or $50", "x" * 300, ""]


@pytest.fixture
def figure(monkeypatch):
    """The figure as it was saved last."""
    saved = {}
    save = Figure.savefig

    def remember(self, *args, **kwargs):
        save(self, *args, **kwargs)
        saved["figure"] = self

    monkeypatch.setattr(Figure, "savefig", remember)
    return lambda: saved["figure"]


def write_log(folder, *records):
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_learning_curves_of_a_run_folder(tmp_path, figure):
    write_log(
        tmp_path,
        {"epoch": 0, "step": 0, "loss": None, "HR@10": 0.1, "NDCG@10": 0.03},
        {"epoch": 1, "step": 10, "loss": 5.0, "learning_rate": 1e-3, "HR@10": 0.4, "NDCG@10": 0.05},
        {"epoch": 2, "step": 20, "loss": 4.0, "learning_rate": 1e-3, "HR@10": 0.2, "NDCG@10": float("nan")},
    )
    picture = plot_learning_curves(tmp_path, tmp_path / "figures" / "curves.png")
    assert imread(picture).shape[:2] == (630, 1920)
    loss, validation = figure().axes
    assert loss.lines[0].get_xydata().tolist() == [[10, 5], [20, 4]]
    hit_rate, best, ndcg, _ = validation.lines
    assert (hit_rate.get_label(), ndcg.get_label()) == ("HR@10", "NDCG@10")
    assert best.get_xydata().tolist() == [[10, 0.4]]
    assert ndcg.get_xydata().tolist() == [[0, 0.03], [10, 0.05]]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["curves.png"]


def test_protocols_have_panels_of_their_own_and_metrics_their_usual_order(tmp_path, figure):
    names = ["full/MRR", "full/NDCG@10", "full/HR@50", "full/HR@10", "sampled/HR@10"]
    write_log(tmp_path, {"step": 1} | dict.fromkeys(names, 0.1))
    plot_learning_curves(tmp_path, tmp_path / "curves.png")
    full, sampled = figure().axes
    assert [text.get_text() for text in full.get_legend().get_texts()] == [
        "full/HR@10", "full/HR@50", "full/NDCG@10", "full/MRR", "best"
    ]  # fmt: skip
    assert sampled.get_title("left") == "validation, sampled"


def test_a_log_that_is_still_written_is_drawn_and_a_broken_one_named(tmp_path):
    write_log(tmp_path, {"step": 1, "loss": 5.0})
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"step": 2, "lo')
    assert plot_learning_curves(tmp_path, tmp_path / "curves.png").stat().st_size > 1000
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write("\n")
    with pytest.raises(DataError, match=r"log.jsonl:2: not a JSON object"):
        plot_learning_curves(tmp_path, tmp_path / "curves.png")


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such log"):
        plot_learning_curves(tmp_path, tmp_path / "curves.png")
    write_log(tmp_path, {"step": 1, "seconds": 2.0})
    with pytest.raises(DataError, match="nothing to draw"):
        plot_learning_curves(tmp_path, tmp_path / "curves.png")


@pytest.mark.parametrize("items", [1, 5, 23, 60])
def test_pathway_shows_colours_dots_and_titles_inside_the_picture(tmp_path, figure, items):
    titles = (TITLES * 12)[:items]
    keep = np.linspace(0, 1, 2 * items).reshape(2, items)
    route = keep >= 0.5
    picture = plot_pathway(titles, keep, route, tmp_path / "pathway.png", target="A very long target title " * 9)
    axes, _ = figure().axes
    shown = min(items, 40)
    assert np.allclose(axes.images[0].get_array(), keep[:, -shown:])
    dots = axes.collections[0].get_offsets()
    assert sorted(map(tuple, dots.tolist())) == sorted((n, b) for b, n in np.argwhere(route[:, -shown:]).tolist())
    assert ("the last 40 of 60 items" in axes.get_title("left")) == (items == 60)

    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == shown and max(map(len, labels)) <= 36
    width, height = figure().canvas.get_width_height()
    texts = [text for text in figure().findobj(Text) if text.get_text() and text.get_visible()]
    assert {text.get_text() for text in texts} >= set(filter(None, labels)) | {"block 1", "keep probability"}
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, text.get_text()
    assert imread(picture).max() <= 1


def test_titles_in_other_scripts_are_drawn_by_a_font_that_has_them(tmp_path, figure, monkeypatch, recwarn, caplog):
    """A watch is in STIX and not in matplotlib's own font; here STIX is what the machine has installed."""
    stix = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf")
    monkeypatch.setattr("retr_hf.report.letters.findSystemFonts", lambda: [__file__, stix])
    plot_pathway(["a ⌚", "plain"], [[0.5, 0.5]], [[1, 1]], tmp_path / "pathway.png", target="⌚")
    labels = figure().axes[0].get_xticklabels()
    assert [label.get_fontfamily() for label in labels] == [["sans-serif", "STIXGeneral"]] * 2
    assert caplog.messages == [] and not [each for each in recwarn if "Glyph" in str(each.message)]


def test_letters_that_no_font_has_are_told_in_one_line(tmp_path, monkeypatch, recwarn, caplog):
    monkeypatch.setattr("retr_hf.report.letters.findSystemFonts", lambda: [])
    picture = plot_pathway(["卓球台", "いす", "\u200bx"], [[0.5] * 3], [[1] * 3], tmp_path / "p.png", target="卓球台")
    (told,) = caplog.messages
    assert "has 5 of the titles' letters (いす卓台球)" in told and "fonts-noto-cjk" in told
    assert picture.is_file() and not [each for each in recwarn if "Glyph" in str(each.message)]


@pytest.mark.parametrize(
    ("titles", "keep", "route", "message"),
    [
        (["a"], [[0.5, 0.5]], [[1, 1]], r"for 1 titles .* got \[1, 2\]"),
        (["a", "b"], [[0.5, 0.5]], [[1]], r"got \[1, 2\] and \[1, 1\]"),
        ([], [[]], [[]], "at least one"),
        (["a"], [[1.5]], [[1]], r"0 \.\. 1, got 1.5"),
        (["a"], [[float("nan")]], [[1]], r"0 \.\. 1"),
    ],
)
def test_pathways_that_do_not_fit_are_refused(tmp_path, titles, keep, route, message):
    with pytest.raises(DataError, match=message):
        plot_pathway(titles, keep, route, tmp_path / "pathway.png")


def test_differences_have_a_panel_each_and_the_first_system_on_top(tmp_path, figure):
    panels = {f"{name}, full": [("X-RETR", 0.01, 0.005), ("UniSRec", -0.02, 0.0)] for name in ("a", "b", "c", "d")}
    picture = plot_differences(panels, "NDCG@10", tmp_path / "new" / "d.png")
    assert imread(picture).ndim == 3
    shown = [axes for axes in figure().axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list(panels)
    first = shown[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["X-RETR", "UniSRec"] and first.yaxis_inverted()
    (bars,) = first.containers
    assert bars.lines[0].get_xdata().tolist() == [0.01, -0.02]
    assert [line[:, 0].tolist() for line in bars.lines[2][0].get_segments()] == [[0.005, 0.015], [-0.02, -0.02]]
