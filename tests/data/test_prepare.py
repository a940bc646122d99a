"""prepare: k-core, leave-one-out, catalogue, negatives, the folder, and how it is opened again."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from retr_hf.data import prepare
from retr_hf.data.core import k_core_filter
from retr_hf.data.domain import load_domain
from retr_hf.data.log_options import domain_of_log
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.readers.spool import spool_beside
from retr_hf.data.readers.tables import read_tables
from retr_hf.data.splits import leave_one_out
from retr_hf.errors import DataError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the real data of ../shared/data is not on this machine"
)


def raw_domain(sequences: dict[str, list[str]], texts: dict[str, str] | None = None, **more) -> RawDomain:
    columns = {"user_id": list(sequences), "item_ids": list(sequences.values())} | more.pop("columns", {})
    texts = texts or {}
    items = pl.DataFrame(
        {"item_id": list(texts), "text": list(texts.values())}, schema_overrides={"item_id": pl.String}
    )
    return RawDomain(pl.DataFrame(columns), items.cast(pl.String), reader="test", **more)


FOUR = {"u": list("abcde"), "v": list("bc"), "w": ["c"], "x": list("eab")}


def rows(domain, split: str) -> dict[str, list[int]]:
    sequences = domain.split(split)
    return {user: sequences[row].tolist() for row, user in enumerate(domain.user_ids(split))}


def test_k_core_goes_on_to_the_fixed_point():
    # 2-core by hand: d and e occur once -> go; then user 4 (only d) is gone, 3 has only c left -> goes;
    # then c is left with user 2 alone -> goes; a and b of users 1 and 2 stay.
    pairs = [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b"), ("2", "c"), ("3", "c"), ("3", "d"), ("4", "e")]
    frame = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    assert k_core_filter(frame, 2).rows() == [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")]
    assert k_core_filter(frame, 1).height == 8
    assert k_core_filter(frame, 3).height == 0


def test_leave_one_out_and_short_users():
    frame = pl.DataFrame({"user_id": ["u", "v", "w"], "item_ids": [[1, 2, 3], [1, 2], [3]]})
    splits = leave_one_out(frame)
    assert dict(splits["train"].iter_rows()) == {"u": [1], "v": [1, 2], "w": [3]}
    assert dict(splits["validation"].iter_rows()) == {"u": [1, 2]}
    assert dict(splits["test"].iter_rows()) == {"u": [1, 2, 3]}


def test_domain_on_disk(tmp_path):
    texts = {"z": "never seen", "b": "B", "a": "A"}
    assert write_domain(raw_domain(FOUR, texts), tmp_path / "d", k_core=0)
    domain = load_domain(tmp_path / "d")
    assert domain.name == "d"
    # Items in order of first appearance; z was touched by nobody; c, d and e have no text.
    assert domain.catalog().item_ids == list("abcde")
    assert domain.catalog().texts == ["A", "B", "", "", ""]
    assert rows(domain, "train") == {"u": [1, 2, 3], "v": [2, 3], "w": [3], "x": [5]}
    assert rows(domain, "validation") == {"u": [1, 2, 3, 4], "x": [5, 1]}
    assert rows(domain, "test") == {"u": [1, 2, 3, 4, 5], "x": [5, 1, 2]}
    # u touched everything, x left 3 and 4 (c and d)
    for split in ("validation", "test"):
        assert [sorted(domain.negatives(split)[row].tolist()) for row in (0, 1)] == [[], [3, 4]]
    # lengths 5, 2, 1, 3
    assert domain.statistics == {
        "users": 4,
        "items": 5,
        "interactions": 11,
        "mean_length": 2.75,
        "median_length": 2.5,
        "density": 0.55,
        "train_rows": 4,
        "validation_rows": 2,
        "test_rows": 2,
    }
    assert domain.provenance["dropped"] == {
        "items_without_a_row_in_the_item_table": 3,
        "rows_of_the_item_table_not_used": 1,
        "items_with_empty_text": 3,
    }
    assert domain.provenance["examples"] == {"items_without_a_row_in_the_item_table": ["c", "d", "e"]}
    schema = pq.read_schema(tmp_path / "d" / "interactions" / "test.parquet")
    assert [str(field.type) for field in schema] == ["string", "list<element: int32>"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_k_core_applies_before_the_catalogue(tmp_path):
    write_domain(raw_domain(FOUR), tmp_path / "d", k_core=2)
    domain = load_domain(tmp_path / "d")
    # d occurs once, w has one item: u = a b c e, v = b c, x = e a b; every count is at least 2 then.
    assert domain.catalog().item_ids == list("abce")
    assert rows(domain, "test") == {"u": [1, 2, 3, 4], "x": [4, 1, 2]}
    assert domain.provenance["dropped"]["interactions_outside_the_2_core"] == 2
    assert domain.provenance["options"]["k_core"] == 2


def test_nothing_survives(tmp_path):
    with pytest.raises(DataError, match="11 interactions of 4 users with 5 items; pass a smaller --k-core"):
        write_domain(raw_domain(FOUR), tmp_path / "d")
    with pytest.raises(DataError, match="source has none"):
        write_domain(
            raw_domain({"u": []}, columns={"item_ids": pl.Series([[]], dtype=pl.List(pl.String))}), tmp_path / "d"
        )
    assert not list(tmp_path.iterdir())


def test_whole_catalogue_keeps_the_order_of_the_table(tmp_path):
    texts = {"z": "never seen", "b": "B", "a": "A"}
    write_domain(raw_domain(FOUR, texts, whole_catalogue=True), tmp_path / "d", k_core=0)
    assert load_domain(tmp_path / "d").catalog().item_ids == ["z", "b", "a", "c", "d", "e"]


def test_timestamps_pivotal_and_kind_are_cut_alike(tmp_path):
    columns = {
        "timestamps": [[1, 2, 3, 4], [7, 8]],
        "pivotal": [[True, False, True, True], [False, True]],
        "kind": ["burst", "casual"],
    }
    write_domain(raw_domain({"u": list("abcd"), "v": list("ab")}, columns=columns), tmp_path / "d", k_core=0)
    domain = load_domain(tmp_path / "d")
    assert domain.split("train").timestamps.tolist() == [1, 2, 7, 8]
    assert domain.split("test").timestamps.tolist() == [1, 2, 3, 4]
    pivotal, kinds = domain.pivotal("train")
    assert (pivotal.tolist(), kinds) == ([True, False, False, True], ["burst", "casual"])
    assert domain.pivotal("validation")[0].tolist() == [True, False, True]
    assert "config_name: pivotal" in (tmp_path / "d" / "README.md").read_text()


def test_own_split_is_kept(tmp_path):
    columns = {"split": ["train", "validation", "test"]}
    raw = RawDomain(
        pl.DataFrame({"user_id": ["u"] * 3, "item_ids": [["a", "b"], ["c", "b"], ["c", "d"]]} | columns),
        pl.DataFrame({"item_id": list("abcdef"), "text": list("abcdef")}),
        reader="test",
        whole_catalogue=True,
    )
    write_domain(raw, tmp_path / "d", k_core=5)
    domain = load_domain(tmp_path / "d")
    assert [rows(domain, split)["u"] for split in ("train", "validation", "test")] == [[1, 2], [3, 2], [3, 4]]
    assert domain.provenance["options"]["k_core"] == 0
    # untouched in *any* split: e and f
    assert sorted(domain.negatives("test")[0].tolist()) == [5, 6]


def contents(folder: Path) -> dict[str, bytes]:
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "domain.json"  # which holds the date
    }
    files["README.md"] = re.sub(rb"description: \w{16}", b"", files["README.md"])  # a hash of the date, among others
    return files


def test_same_input_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_domain(raw_domain(FOUR), tmp_path / name, name="d", k_core=0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_rerun_is_up_to_date_and_nothing_is_replaced_unasked(tmp_path):
    folder = tmp_path / "d"
    write_domain(raw_domain(FOUR), folder, k_core=0)
    (folder / "note").write_text("mine")
    assert write_domain(raw_domain(FOUR), folder, k_core=0) is False
    for raw, options in ((raw_domain(FOUR | {"y": ["a"]}), {}), (raw_domain(FOUR), {"seed": 1})):
        with pytest.raises(DataError, match="pass --overwrite"):
            write_domain(raw, folder, k_core=0, **options)
    assert (folder / "note").exists() and load_domain(folder).statistics["users"] == 4
    assert write_domain(raw_domain(FOUR | {"y": ["a"]}), folder, k_core=0, overwrite=True)
    assert load_domain(folder).statistics["users"] == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_other_folders_are_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="never replaced"):
        write_domain(raw_domain(FOUR), tmp_path, k_core=0, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_failure_leaves_nothing_half_written(tmp_path, monkeypatch, overwrite):
    if overwrite:
        write_domain(raw_domain({"u": list("abc")}), tmp_path / "d", k_core=0)

    def full_disk(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "dataset_card", full_disk)  # the last thing before the end
    with pytest.raises(KeyboardInterrupt):
        write_domain(raw_domain(FOUR), tmp_path / "d", k_core=0, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == (["d"] if overwrite else [])
    if overwrite:
        assert load_domain(tmp_path / "d").statistics["users"] == 1


def test_stopped_between_the_renames_restores_the_old_domain(tmp_path, monkeypatch):
    write_domain(raw_domain({"u": list("abc")}), tmp_path / "d", k_core=0)
    rename = os.replace

    def stops_at_the_second(source, target):
        if ".partial-" in str(source) and Path(source).is_dir():
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr("retr_hf.data.domain_folder.os.replace", stops_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_domain(raw_domain(FOUR), tmp_path / "d", k_core=0, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert load_domain(tmp_path / "d").statistics["users"] == 1


def test_doubled_items(tmp_path):
    raw = RawDomain(raw_domain(FOUR).sequences, pl.DataFrame({"item_id": ["a", "a"], "text": ["", ""]}), reader="test")
    with pytest.raises(DataError, match=r"1 ids have several, such as \['a'\]"):
        write_domain(raw, tmp_path / "d", k_core=0)


def test_opening_what_is_no_domain(tmp_path):
    with pytest.raises(DataError, match="does not exist; make one with.*prepare.py"):
        load_domain(tmp_path / "nothing")
    with pytest.raises(DataError, match="has no domain.json"):
        load_domain(tmp_path)
    write_domain(raw_domain(FOUR), tmp_path / "d", k_core=0)
    domain = load_domain(tmp_path / "d")
    with pytest.raises(DataError, match="'valid'; interactions/ has train, validation, test"):
        domain.split("valid")
    with pytest.raises(DataError, match="no pivotal/"):
        domain.pivotal("test")
    about = json.loads((tmp_path / "d" / "domain.json").read_text())
    (tmp_path / "d" / "domain.json").write_text(json.dumps(about | {"format": 2}))
    with pytest.raises(DataError, match="expected format 1, got 2"):
        load_domain(tmp_path / "d")
    (tmp_path / "d" / "domain.json").write_text("{")
    with pytest.raises(DataError, match="expected a JSON object"):
        load_domain(tmp_path / "d")


LOAD = """
import sys
from datasets import get_dataset_config_names, load_dataset
folder, cache = sys.argv[1:]
for config in get_dataset_config_names(folder):
    splits = load_dataset(folder, config, cache_dir=cache)
    first = splits["train" if "train" in splits else "test"][0]
    print(config, {split: rows.num_rows for split, rows in splits.items()}, first)
print(load_dataset(folder, cache_dir=cache)["train"].column_names)
"""
EVALUATED = """\
interactions {'train': 1, 'validation': 1, 'test': 1} {'user_id': 'x', 'item_ids': [1]}
items {'train': 4} {'item_id': 'd', 'text': ''}
negatives {'validation': 1, 'test': 1} {'user_id': 'x', 'negatives': [4]}
pivotal {'train': 1, 'validation': 1, 'test': 1} {'user_id': 'x', 'pivotal': [True]}
['user_id', 'item_ids']
"""
NOT_EVALUATED = """\
interactions {'train': 1} {'user_id': 'x', 'item_ids': [1, 2]}
items {'train': 4} {'item_id': 'd', 'text': ''}
pivotal {'train': 1} {'user_id': 'x', 'pivotal': [True, True]}
['user_id', 'item_ids']
"""


@pytest.mark.parametrize(("items", "expected"), [("dab", EVALUATED), ("da", NOT_EVALUATED)])
def test_datasets_opens_every_config_offline(tmp_path, items, expected):
    columns = {"pivotal": [[True] * len(items)]}
    texts = dict.fromkeys("dabc", "")
    folder = tmp_path / "it's"
    write_domain(raw_domain({"x": list(items)}, texts, columns=columns, whole_catalogue=True), folder, k_core=0)
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "cache")],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout == expected


def test_data_needs_no_torch():
    modules = "retr_hf.data.prepare, retr_hf.data.domain, retr_hf.data.readers.tables, retr_hf.data.readers.atomic"
    code = f"import sys, {modules}; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert result.stdout.strip() == "[]", result.stderr


@needs_real_data
def test_scientific_keeps_the_authors_split(tmp_path):
    write_domain(read_atomic(SHARED / "scientific" / "unisrec"), tmp_path / "d")
    domain = load_domain(tmp_path / "d")
    assert domain.statistics | {"mean_length": 7.04} == domain.statistics
    assert [domain.statistics[key] for key in ("users", "items", "interactions")] == [8442, 4385, 59427]
    assert [len(domain.split(split)) for split in ("train", "validation", "test")] == [8442] * 3
    negatives, test = domain.negatives("test"), domain.split("test")
    assert (negatives.lengths == 100).all()
    keys = [np.repeat(np.arange(8442), part.lengths) * 5000 + part.item_ids for part in (negatives, test)]
    assert not np.isin(*keys).any()
    assert domain.catalog().item_ids[:2] == ["B00TNNWMXI", "B00IBZE2EQ"]  # theirs 0 and 1


@needs_real_data
def test_movielens_5_core_counts(tmp_path):
    folder = SHARED / "movielens-1m"
    with spool_beside(tmp_path / "d") as spool:
        log = read_tables(folder / "sequences.parquet", spool, items=folder / "items.parquet")
        write_domain(domain_of_log(log), tmp_path / "d")
    statistics = load_domain(tmp_path / "d").statistics
    assert [statistics[key] for key in ("users", "items", "interactions")] == [6040, 3416, 999611]


def test_another_domain_of_the_same_name_is_not_the_one_that_datasets_cached(tmp_path, monkeypatch):
    """`datasets` caches a local folder by its name and its card; its files it does not look at again."""
    from datasets import load_dataset

    for number, last in enumerate(("c", "d")):
        sequences = pl.DataFrame({"user_id": ["u"], "item_ids": [["a", "b", last]], "timestamps": [[1, 2, 3]]})
        items = pl.DataFrame({"item_id": ["a", "b", last], "text": ["A", "B", last]})
        folder = tmp_path / str(number) / "shop"
        write_domain(RawDomain(sequences, items, "tables"), folder, k_core=0)
        opened = load_dataset(str(folder), "items", cache_dir=tmp_path / "cache")["train"]
        assert opened["text"] == ["A", "B", last] and set(opened.features) == {"item_id", "text"}
        rows = load_dataset(str(folder), cache_dir=tmp_path / "cache")["test"]
        assert rows.features["item_ids"].feature.dtype == "int32" and rows[0]["timestamps"] == [1, 2, 3]


def test_what_a_user_touched_outside_of_all_splits_is_no_candidate(tmp_path):
    """Eight items, two of them in the rows of u; five more seen: one is left."""
    columns = {"user_id": ["u", "u"], "item_ids": [list("ab"), list("cdefg")], "split": ["test", "seen"]}
    raw = raw_domain({}, {item: "" for item in "abcdefgh"}, columns=columns, whole_catalogue=True)
    write_domain(raw, tmp_path / "d")
    domain = load_domain(tmp_path / "d")
    assert domain.negatives("test")[0].tolist() == [8] and len(domain.split("train")) == 0
    assert domain.statistics["interactions"] == 2 and domain.statistics["test_rows"] == 1
