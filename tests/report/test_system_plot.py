"""The picture of result rows: every value at its place, every line told from the others."""

from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from retr_hf.errors import DataError
from retr_hf.report.results import ResultRow
from retr_hf.report.system_plot import plot_systems

ROW = ResultRow(
    recipe="scientific.yaml + x_retr.yaml",
    system="X-RETR",
    domain="scientific",
    sources=["games", "yelp"],
    split="test",
    protocol="full",
    candidates=4385,
    metrics={"HR@10": 0.1, "NDCG@10": 0.05},
    num_users=8442,
    seed=1,
    synthetic=False,
    date="2024-05-13T09:30:00+00:00",
)


def with_ndcg(value, **change):
    return replace(ROW, metrics={"NDCG@10": value}, **change)


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws rows; gives title -> (labels from the top, label -> values on its line) of each panel."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))
    )

    def draw(rows, **options):
        path = plot_systems(rows, tmp_path / "new" / "systems.png", **options)
        assert imread(path).ndim == 3 and [one.name for one in path.parent.iterdir()] == ["systems.png"]
        panels, labels = {}, []
        for axes in (axes for axes in figures[-1].axes if axes.get_visible()):
            told = [label.get_text() for label in axes.get_yticklabels()]
            labels = told if any(told) else labels  # told once a row of panels
            lines = {label: [] for label in labels}
            for line in axes.lines:
                for value, place in line.get_xydata().tolist():
                    lines[labels[int(place)]].append((line.get_marker(), round(value, 4)))
            panels[axes.get_title("left")] = labels, lines
        return panels

    draw.figures = figures
    return draw


def test_means_seeds_and_printed_numbers_stand_on_the_line_of_their_system(draw):
    rows = [
        with_ndcg(0.04, seed=0), with_ndcg(0.06), with_ndcg(0.09, system="RETR+"),
        with_ndcg(0.03, protocol="full-unseen", system="RETR+"), with_ndcg(0.07, protocol="full-unseen"),
    ]  # fmt: skip
    panels = draw(rows)
    assert [*panels] == ["scientific, full", "scientific, full-unseen"]
    labels, lines = panels["scientific, full"]
    assert labels == ["RETR+", "X-RETR (published)", "X-RETR"], "the best of the first panel on top"
    assert lines["X-RETR"] == [("o", 0.05), ("|", 0.04), ("|", 0.06)]
    assert lines["RETR+"] == [("o", 0.09)] and lines["X-RETR (published)"] == [("D", 0.0865)]
    assert panels["scientific, full-unseen"] == (labels, {
        "RETR+": [("o", 0.03)], "X-RETR (published)": [], "X-RETR": [("o", 0.07)]
    })  # fmt: skip
    assert "UniSRec (published)" in draw(rows, published="all")["scientific, full"][0]
    assert draw(rows, published="none", protocols=["full-unseen"])["scientific, full-unseen"][0] == ["X-RETR", "RETR+"]


def test_what_differs_has_lines_or_panels_of_its_own(draw):
    rows = [
        with_ndcg(0.05), with_ndcg(0.04, sources=[]), with_ndcg(0.03, recipe=f"{ROW.recipe} + training.epochs=2"),
        with_ndcg(0.1, domain="camping", synthetic=True), with_ndcg(0.1, split="validation"),
        with_ndcg(0.2, protocol="sampled", candidates=101), with_ndcg(0.3, protocol="sampled", candidates=100),
    ]  # fmt: skip
    panels = draw(rows, published="none")
    titles = {f"scientific, {ranking}" for ranking in ("full", "sampled among 100", "sampled among 101")}
    assert panels.keys() == titles | {"camping, SYNTHETIC, full", "scientific, validation, full"}
    labels = ["X-RETR, pre-trained on 2 (as it is)", "X-RETR, from scratch", "X-RETR, pre-trained on 2 (epochs=2)"]
    assert panels["scientific, full"][0] == labels
    assert panels["camping, SYNTHETIC, full"][0] == ["X-RETR"]


def test_what_a_short_label_would_make_one_has_its_whole_one(draw):
    rows = [
        with_ndcg(0.1, sources=["food", "home"]), with_ndcg(0.3), with_ndcg(0.2, sources=[]),
        with_ndcg(0.4, sources=[], recipe="a + data.k=3"), with_ndcg(0.5, sources=[], recipe="a + model.k=3"),
    ]  # fmt: skip
    labels, lines = draw(rows, published="none")["scientific, full"]
    assert len(labels) == 5 and all(len(values) == 1 for values in lines.values())
    assert "X-RETR, from food, home [scientific.yaml + x_retr.yaml]" in labels


def test_the_legend_names_what_is_drawn(draw):
    def legend(rows, **options):
        draw(rows, **options)
        (found,) = draw.figures[-1].legends
        return [text.get_text() for text in found.get_texts()]

    assert legend([with_ndcg(0.1)], published="none") == ["mean"]
    assert legend([with_ndcg(0.1), with_ndcg(0.2, seed=2)]) == ["mean", "a seed of several", "published"]


def test_a_line_of_the_second_panel_alone_and_long_names(draw):
    rows = [with_ndcg(0.05), with_ndcg(0.5, system="a $ " * 40, protocol="sampled", candidates=101)]
    labels, _ = draw(rows, published="none")["scientific, sampled among 101"]
    assert labels[0] == "X-RETR" and len(labels[1]) < 110 and labels[1].startswith(r"a \$ a") and labels[1][-1] == "…"


def test_nothing_to_draw_is_an_error(tmp_path):
    for rows, options, told in [
        ([], {}, "no result rows to draw"),
        ([ROW], {"protocols": ["sampled"]}, "no result rows to draw"),
        ([ROW], {"metric": "MRR"}, "no row has the metric MRR: the rows have HR@10, NDCG@10"),
        ([ROW], {"published": "some"}, "published must be one of"),
    ]:
        with pytest.raises(DataError, match=told):
            plot_systems(rows, tmp_path / "systems.png", **options)
    assert not [*tmp_path.iterdir()]
