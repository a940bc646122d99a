"""The generated category, and that the sides of the benchmark of preparation do the same work."""

import gzip
import json

import polars as pl
import pytest

from retr_hf.benchmark.drivers import preparing
from retr_hf.benchmark.rating_log import write_category
from retr_hf.data.domain import load_domain


@pytest.fixture(scope="module")
def category(tmp_path_factory):
    return write_category(tmp_path_factory.mktemp("raw"), 30_000)


def test_a_category_has_the_shape_it_says(category, tmp_path):
    csv, meta = category
    log = pl.read_csv(csv, has_header=False, new_columns=["item", "user", "rating", "time"])
    assert log.height == 30_000 and (log["time"] % 86_400 == 0).all()
    assert log["user"].str.len_chars().unique().to_list() == [14] and log[
        "item"
    ].str.len_chars().unique().to_list() == [10]
    assert 30_000 / log["user"].n_unique() == pytest.approx(2.1, abs=0.1)
    assert log["item"].rle().len() == log["item"].n_unique()  # grouped by item
    with gzip.open(meta, "rt") as file:
        described = {json.loads(line)["asin"] for line in file}
    assert len(described & set(log["item"])) / log["item"].n_unique() == pytest.approx(0.98, abs=0.02)
    again = write_category(tmp_path, 30_000)
    assert again[0].read_bytes() == csv.read_bytes()


def test_plain_pandas_prepares_the_same_domain(category, tmp_path, capsys):
    preparing.ours(*category, tmp_path / "ours", 0)()
    preparing.pandas(*category, tmp_path / "pandas")()
    domain = load_domain(tmp_path / "ours")
    ids = domain.catalog().item_ids
    assert domain.statistics["users"] > 100
    for split in ("train", "validation", "test"):
        sequences = domain.split(split)
        mine = {user: [ids[i - 1] for i in sequences[row]] for row, user in enumerate(domain.user_ids(split))}
        plain = pl.read_parquet(tmp_path / "pandas" / f"{split}.parquet")
        assert dict(plain.select("user", "item").iter_rows()) == mine
    texts = dict(pl.read_parquet(tmp_path / "pandas" / "items.parquet").select("item", "text").iter_rows())
    assert texts == dict(zip(ids, domain.catalog().texts, strict=True))
