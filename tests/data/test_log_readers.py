"""Readers of the papers' raw files: each layout as published, and what is common to all of them."""

import argparse
import inspect
import re
from datetime import datetime

import polars as pl
import pytest

from retr_hf.data.log_options import LogOptions, domain_of_log
from retr_hf.data.readers.known import READERS, about, add_options, inputs_help
from retr_hf.data.readers.online_retail import read_online_retail
from retr_hf.data.readers.spool import Spool
from retr_hf.errors import DataError


def read(layout, tmp_path, **spool_options):
    raw, spooled = tmp_path / "raw", tmp_path / "spool"
    raw.mkdir()
    spooled.mkdir()
    inputs, options = layout.write(raw)
    return READERS[layout.reader](inputs, Spool(spooled, **spool_options), **options)


@pytest.mark.parametrize("size", [None, 64], ids=["one block", "tiny blocks"])
def test_every_layout_as_published(layout, tmp_path, size):
    log = read(layout, tmp_path, size=size)
    assert isinstance(log.events, pl.LazyFrame)
    events = log.events.collect()
    assert sum(events.null_count().row(0)) == 0
    types = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float32, "timestamp": pl.Int64}
    assert all(types[name] == dtype for name, dtype in events.schema.items())
    domain = domain_of_log(log)
    assert dict(domain.sequences.select("user_id", "item_ids").iter_rows()) == layout.expected
    assert list(domain.sequences["user_id"]) == list(layout.expected)
    if layout.times is None:
        assert "timestamps" not in domain.sequences.columns
    else:
        assert dict(domain.sequences.select("user_id", "timestamps").iter_rows()) == layout.times
    assert dict(domain.items.iter_rows()) == layout.texts
    assert all(path.is_file() for path in log.inputs)
    assert set(tmp_path.joinpath("raw").iterdir()) >= set(log.inputs)


def test_every_reader_has_a_layout(layouts):
    assert {layout.reader for layout in layouts.values()} == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_help_says_where_the_files_come_from_and_the_terms(name):
    told = about(name)
    assert "https://" in told or "http://" in told
    assert re.search(r"terms|research|CC BY|licence", told)
    assert "dirt" in told
    assert inputs_help(name)
    parser = argparse.ArgumentParser()
    add_options(parser, name)
    options = [p for p in inspect.signature(READERS[name]).parameters if p not in ("inputs", "spool")]
    assert set(vars(parser.parse_args([]))) == set(options)


def test_behaviours_and_actions_are_chosen(layouts, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, options, expected in (
        ("taobao", {"behaviour": ["buy"]}, {"1": ["10"]}),
        ("taobao", {"any_time": True}, {"1": ["10", "10", "20"]}),
        ("tmall", {"action": ["click", "purchase"]}, {"1": ["10", "30", "20"], "2": ["10"]}),
        (
            "online-retail", {"keep_cancelled": True},
            {"536365": ["85123A", "71053"], "C536379": ["D"], "536415": ["85123A"]},
        ),
    ):  # fmt: skip
        inputs, _ = layouts[name].write(raw)
        log = READERS[name](inputs, Spool(tmp_path), **options)
        assert dict(domain_of_log(log).sequences.select("user_id", "item_ids").iter_rows()) == expected, (name, options)
    assert log.dropped == {"rows_without_description": 1}


def test_the_words_of_a_review_are_no_keys(tmp_path):
    # The username of the second line stands after a text that quotes whole pairs; the third has none at all.
    (tmp_path / "r.json").write_text(
        """{u'username': u'a', u'product_id': u'1', u'date': u'2015-01-01'}
{u'text': u", u'username': u'forged', ", u'product_id': u'1', u'date': u'2015-01-01', u'username': u'b'}
{u'text': u", u'username': u'forged', ", u'product_id': u'1', u'date': u'2015-01-01'}
"""
    )
    log = READERS["steam"]([tmp_path / "r.json"], Spool(tmp_path))
    assert log.events.collect()["user_id"].to_list() == ["a", "b"]
    assert log.dropped == {"unreadable_lines_of_r.json": 1}
    assert log.samples["unreadable_lines_of_r.json"].startswith("r.json:3: ")


def test_fields_that_unisrec_empties_are_counted(tmp_path):
    (tmp_path / "r.csv").write_text("b,u,5.0,1\n")
    pl.DataFrame({"user_id": ["u"], "parent_asin": ["b"], "rating": [5.0], "timestamp": [1]}).write_parquet(
        tmp_path / "r.parquet"
    )
    title = {"title": "<script> " * 300, "brand": "A", "store": "A"}
    one = pl.DataFrame([{"asin": "b", "parent_asin": "b", **title}])
    one.write_ndjson(tmp_path / "m.json")
    one.write_parquet(tmp_path / "m.parquet")
    for turn, (reader, log, items, fields) in enumerate(
        (
            ("amazon2018", "r.csv", "m.json", ["title", "brand"]),
            ("amazon2023", "r.parquet", "m.json", ["title", "store"]),
            ("amazon2023", "r.parquet", "m.parquet", ["title", "store"]),
        )
    ):
        (tmp_path / str(turn)).mkdir()
        spool = Spool(tmp_path / str(turn), size=40)  # a metadata line longer than a block
        read = READERS[reader]([tmp_path / log], spool, items=tmp_path / items, text_fields=fields)
        assert domain_of_log(read).items.rows() == [("b", "A.")]
        assert read.dropped == {"text_fields_of_2000_characters_or_more_left_out": 1}
        (sample,) = read.samples.values()
        assert sample.startswith("title of item 'b': '<script> <script>")


def test_ratings_after_an_unreadable_movie_are_nobodys(tmp_path):
    (tmp_path / "mv_1.txt").write_text("1:\n5,3,2005-01-01\n6,3,2005-01-01\nx:\n5,3,2005-01-02\n2:\n5,3,2005-01-03\n")
    log = READERS["netflix"]([tmp_path / "mv_1.txt"], Spool(tmp_path))
    assert log.events.select("user_id", "item_id").collect().rows() == [("5", "1"), ("6", "1"), ("5", "2")]
    assert log.dropped == {"unreadable_lines_of_mv_1.txt": 2}


def test_amazon_2023_parquet(tmp_path):
    columns = {"user_id": ["u", "u", None], "parent_asin": ["b", "a", "a"], "rating": [1.0, 2.0, 3.0]}
    pl.DataFrame(columns | {"timestamp": [5000, 1999, 1]}).write_parquet(tmp_path / "r.parquet")
    meta = {"parent_asin": ["a"], "title": ["T"], "categories": [["C", "D"]], "store": [None]}
    pl.DataFrame(meta, schema_overrides={"store": pl.String}).write_parquet(tmp_path / "m.parquet")
    log = READERS["amazon2023"]([tmp_path / "r.parquet"], Spool(tmp_path), items=tmp_path / "m.parquet")
    domain = domain_of_log(log)
    assert domain.sequences.rows() == [("u", ["a", "b"], [1, 5])]
    assert domain.items.rows() == [("a", "T. C D.")]
    assert log.dropped == {"rows_without_user_item_rating_or_time": 1}
    with pytest.raises(DataError, match="leave out --strict"):
        READERS["amazon2023"]([tmp_path / "r.parquet"], Spool(tmp_path, strict=True))
    with pytest.raises(DataError, match="parent_asin, rating missing|parent_asin"):
        READERS["amazon2023"]([tmp_path / "m.parquet"], Spool(tmp_path))
    (tmp_path / "n.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="expected parquet"):
        READERS["amazon2023"]([tmp_path / "n.parquet"], Spool(tmp_path))


@pytest.mark.parametrize(
    ("reader", "name", "content", "message"),
    [
        ("tmall", "log.csv", b"user,item\n1,2\n", "expected the header user_id,item_id,cat_id"),
        ("amazon2023", "x.csv", b"u,i,5.0,1\n", "expected the header user_id,parent_asin,rating,timestamp"),
        ("online-retail", "x.csv", b"a,b\n", "expected the header InvoiceNo"),
        ("online-retail", "x.xlsx", b"no xlsx", "xlsx"),
        ("movielens", "x.csv", b"a,b\n", "expected one unpacked folder of MovieLens"),
        ("recbole", "x.inter", b"who:token\titem_id:token\n1\t2\n", "user_id missing.*--user-field"),
        ("amazon2018", "x.csv", b"<html>\n<body>\n</body>\n", "is this the right file for this reader"),
        ("amazon2018", "x.csv", b"", "the file is empty"),
        ("yelp", "x.json", b"\n\n", "no line is left"),
        ("million-songs", "absent.txt", None, "there is none"),
    ],
)
def test_other_files_are_refused(tmp_path, reader, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        READERS[reader]([tmp_path / name], Spool(tmp_path))
    assert name in str(caught.value)


def test_a_folder_without_netflix_files(tmp_path):
    with pytest.raises(DataError, match=r"mv_\*\.txt or combined_data_\*\.txt"):
        READERS["netflix"]([tmp_path], Spool(tmp_path))


def test_attributes_that_are_none(tmp_path):
    (tmp_path / "s.txt").write_text("1 2\n")
    for text, message in (
        ("[1]", "expected a JSON object, got list"),
        ("{", "cannot be read"),
        ('{"\\ud800": []}', "cannot be read"),
        ('{"1": 5}', "a list of"),
    ):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=message):
            READERS["sequence-text"]([tmp_path / "s.txt"], Spool(tmp_path), attributes=tmp_path / "a.json")
    with pytest.raises(DataError, match="pass --attributes"):
        READERS["sequence-text"]([tmp_path / "s.txt"], Spool(tmp_path), attribute_names=tmp_path / "a.json")


def test_online_retail_as_xlsx(layouts, tmp_path):
    # The extra `excel` is not installed by scripts/test.sh.
    fastexcel = pytest.importorskip("fastexcel")
    writer = pytest.importorskip("xlsxwriter")
    assert fastexcel and writer
    names = "InvoiceNo StockCode Description Quantity InvoiceDate UnitPrice CustomerID Country".split()
    cells = [536365, "a", "LAMP, RED", 2, datetime(2010, 12, 1, 8, 26), 1.5, None, "UK"]  # typed, as in the release
    row = dict(zip(names, cells, strict=True))
    pl.DataFrame([row]).write_excel(tmp_path / "o.xlsx")
    log = read_online_retail([tmp_path / "o.xlsx"], Spool(tmp_path))
    assert domain_of_log(log, LogOptions()).sequences.rows() == [("536365", ["a"], [1291191960])]
