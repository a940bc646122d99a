"""A look at domains: the page stands alone, shows what the data says and no more; pictures and mistakes."""

import base64
import struct
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.profile.domain_profile import profile_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.domain_look import look_at_domains
from retr_hf.errors import DataError
from retr_hf.report import domain_page
from retr_hf.report.domain_figures import domain_panels, plot_domain

EVIL = "<script>alert(1)</script> & Söhne $5 or $6"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Every tag's attributes; complains of tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def write(folder, name=None, times=True, text=True, seed=0, reader="tables"):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 80, 40)
    columns = {
        "user_id": [f"u{user}" for user in range(40)],
        "item_ids": [[f"i{item}" for item in draw.integers(0, 30, length)] for length in lengths],
    }
    if times:
        columns["timestamps"] = [sorted(draw.integers(1.5e9, 1.6e9, length).tolist()) for length in lengths]
    texts = [f"{EVIL} number{item} of{item}" if text else "" for item in range(30)]
    items = pl.DataFrame({"item_id": [f"i{item}" for item in range(30)], "text": texts})
    raw = RawDomain(pl.DataFrame(columns), items, reader=reader, options={})
    write_domain(raw, folder, name=name, k_core=0, num_negatives=1)
    return folder


@pytest.fixture(scope="module")
def look(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return look_at_domains([write(folder / "shop")], folder / "look")


def test_the_page_needs_nothing_beside_it(look):
    assert sorted(path.name for path in look.page.parent.iterdir()) == ["look.html", "shop.png"]
    text = look.page.read_text(encoding="utf-8")
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert attributes.get("src", "data:").startswith(
            "data:image/png;base64,"[: len(attributes.get("src", "data:"))]
        )
        assert attributes.get("href", "#").startswith("#")
        assert not any(key.startswith("on") for key in attributes)
    assert "url(" not in text and "@import" not in text and "http" not in text
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 8 and all(picture["alt"] for picture in pictures)
    for picture in pictures:
        png = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">II", png[16:24]) == (int(picture["width"]), int(picture["height"]))
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags


def test_the_page_and_the_terminal_say_every_finding_and_escape_the_data(look):
    text = look.page.read_text(encoding="utf-8")
    told = " ".join("".join(Page(text).words).split())
    kinds = {finding.kind for finding in look.findings["shop"]}
    assert {"few-test-rows", "future-in-training", "targets-seen-before"} <= kinds
    assert "popularity-collapse" not in kinds  # thirty items drawn uniformly
    for finding in look.findings["shop"]:
        assert finding.what in told and finding.remedy in told and f"{finding.level}: {finding.kind}: " in look.text
        assert all(example in told for example in finding.examples)
    assert "<script>" not in text and "&lt;script&gt;alert(1)" in text and EVIL[:40] in told
    assert max(map(len, look.text.split("\n\n")[1].splitlines())) <= 110


def test_several_domains_are_compared_and_those_of_one_name_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(domain_page, "panel_png", lambda panel: b"")  # they are looked at above
    folders = [
        write("a/shop"), write("b/shop", times=False, text=False, seed=1), write("toy", seed=2, reader="synthetic")
    ]  # fmt: skip
    look = look_at_domains(folders)
    assert look.page.as_posix() == "looks/a_shop_and_2_more/look.html"
    assert [picture.name for picture in look.pictures] == ["a_shop.png", "b_shop.png", "toy.png"]
    page = Page(look.page.read_text(encoding="utf-8"))
    heads = [attributes for tag, attributes in page.tags if tag == "th" and attributes.get("scope") == "col"]
    assert len(heads) == 3  # one table, not one more a domain
    targets = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert targets == [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 8 + 5 + 8  # b has no times and no texts
    assert any("SYNTHETIC: toy." in words for words in page.words)


@pytest.mark.parametrize("text", [True, False])
def test_nothing_leaves_the_picture_and_no_two_texts_of_an_axis_overlap(tmp_path, monkeypatch, text):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: (save(self, *args, **kw), figures.append(self)))
    domain = load_domain(write(tmp_path / "shop", text=text))
    plot_domain("a $ name", profile_domain(domain), tmp_path / "shop.png")
    (figure,) = figures
    width, height = figure.canvas.get_width_height()
    drawn = [axes for axes in figure.axes if axes.get_visible()]
    written = [words for axes in drawn for words in (axes.xaxis.label, axes.yaxis.label)]
    for axes in drawn:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            boxes = [label.get_window_extent() for label in shown if label.get_text()]
            assert len(boxes) >= 2, axes.get_title("left")
            written += shown
            assert not any(one.overlaps(two) for place, one in enumerate(boxes) for two in boxes[:place])
        written += [*axes.texts, *(words for words in axes.findobj(Text) if words.get_text() == axes.get_title("left"))]
    for words in written:
        box = words.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height, words.get_text()


def test_panels_say_their_figures(look):
    profile = look.profiles["shop"]
    titles = [panel.title.split("\n")[0] for panel in domain_panels(profile)]
    assert titles == [
        "History length", "Item popularity", "Concentration", "Time, by month", "Splits", "Seen before", "Text length",
        "Nearest other text",
    ]  # fmt: skip
    axes = Figure().subplots()
    domain_panels(profile)[4].draw(axes)
    assert [patch.get_width() for patch in axes.patches[:3]] == [profile.targets.events, 40, 40]


def test_without_test_rows_it_says_so_and_gives_no_advice_from_none(tmp_path):
    columns = {
        "user_id": [f"u{user}" for user in range(9)],
        "item_ids": [[f"i{user}", f"i{user + 1}"] for user in range(9)],
    }
    items = pl.DataFrame(
        {"item_id": [f"i{item}" for item in range(10)], "text": [f"text {item}" for item in range(10)]}
    )
    write_domain(RawDomain(pl.DataFrame(columns), items, reader="tables", options={}), tmp_path / "shop", k_core=0)
    look = look_at_domains([tmp_path / "shop"], tmp_path / "look")
    told = " ".join(look.text.split())
    assert "warning: no-test-rows: no user has a test row" in told and "lower --k-core" in told and "HR@10" not in told
    assert "seen items: no row is evaluated" in told and "no row is evaluated" in look.page.read_text(encoding="utf-8")


def test_mistakes(tmp_path):
    shop = write(tmp_path / "shop")
    with pytest.raises(DataError, match="at least one prepared domain"):
        look_at_domains([])
    with pytest.raises(DataError, match="is given twice"):
        look_at_domains([shop, tmp_path / "x" / ".." / "shop"])
    with pytest.raises(DataError, match="expected a prepared domain"):
        look_at_domains([tmp_path])
    with pytest.raises(DataError, match="expected a folder for the page"):
        look_at_domains([shop], shop / "domain.json")
