"""Splits by ratio and by time, by hand; the leak that leave-one-out has and global-time has not."""

import json

import polars as pl
import pytest

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.splits import leaking_train_events, split_sequences
from retr_hf.errors import DataError

TEN = pl.DataFrame({"user_id": ["u", "v"], "item_ids": [list("abcdefghij"), list("xy")]})
TIMED = pl.DataFrame(
    {
        "user_id": ["u", "v", "w", "x"],
        "item_ids": [list("abcde"), list("ab"), list("cd"), list("e")],
        "timestamps": [[1, 2, 3, 8, 10], [4, 5], [6, 9], [7]],
    }
)  # the ten interactions happen at the times 1 to 10


def rows(splits, name):
    return [(user, "".join(items)) for user, items in splits[name].select("user_id", "item_ids").iter_rows()]


def test_ratio_by_hand():
    splits = split_sequences(TEN, "ratio", (0.7, 0.1, 0.2))
    # u: floor(10 * .2) = 2 tested, floor(10 * .1) = 1 validated; v: none of either
    assert rows(splits, "train") == [("u", "abcdefg"), ("v", "xy")]
    assert rows(splits, "validation") == [("u", "abcdefgh")]
    assert rows(splits, "test") == [("u", "abcdefghi"), ("u", "abcdefghij")]


def test_global_time_by_hand():
    splits = split_sequences(TIMED, "global-time", (0.6, 0.2, 0.2))
    # cuts before the times 7 and 9: train is 1..6, validation 7 and 8, test 9 and 10
    assert rows(splits, "train") == [("u", "abc"), ("v", "ab"), ("w", "c")]
    assert rows(splits, "validation") == [("u", "abcd")]  # x at 7 has no history
    assert rows(splits, "test") == [("u", "abcde"), ("w", "cd")]
    assert splits["validation"]["timestamps"].to_list() == [[1, 2, 3, 8]]
    assert leaking_train_events(splits) == 0


def test_leave_one_out_leaks_across_users():
    splits = split_sequences(TIMED)
    # only u is long enough: train 1 2 3, validation target 8, test target 10; v, w, x train whole: 9 comes after 8
    assert rows(splits, "test") == [("u", "abcde")]
    assert leaking_train_events(splits) == 1
    assert leaking_train_events(split_sequences(TEN)) is None


def test_equal_times_are_never_cut():
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_ids": [list("abc"), list("abd")], "timestamps": [[1, 2, 3]] * 2})
    splits = split_sequences(frame, "global-time", (0.5, 0.2, 0.3))
    assert rows(splits, "train") == [("u", "a"), ("v", "a")]
    assert rows(splits, "test") == [("u", "abc"), ("v", "abd")]


@pytest.mark.parametrize(
    ("frame", "way", "fractions", "message"),
    [
        (TEN, "random", (0.8, 0.1, 0.1), "expected one of leave-one-out, ratio, global-time; got 'random'"),
        (TEN, "ratio", (0.8, 0.1, 0.2), "sum to 1"),
        (TEN, "ratio", (0.8, 0.0, 0.2), "three positive numbers"),
        (TEN, "global-time", (0.8, 0.1, 0.1), "expected a source with times"),
        (TEN.tail(1), "ratio", (0.8, 0.1, 0.1), "validation, test has none"),
    ],
)
def test_what_cannot_be_split(frame, way, fractions, message):
    with pytest.raises(DataError, match=message):
        split_sequences(frame, way, fractions)


def test_domains_on_disk(tmp_path):
    items = pl.DataFrame(schema={"item_id": pl.String, "text": pl.String})
    raw = RawDomain(TIMED, items, reader="test")
    options = {"k_core": 0, "split": "global-time", "fractions": (0.6, 0.2, 0.2)}
    assert write_domain(raw, tmp_path / "d", **options)
    domain = load_domain(tmp_path / "d")
    assert domain.user_ids("test") == ["u", "w"]
    assert domain.statistics["leaking_train_events"] == 0
    assert domain.statistics["interactions"] == 10 - 1  # x is in no split: one interaction, between the cuts
    assert domain.provenance["options"]["split"] == "global-time"
    assert not write_domain(raw, tmp_path / "d", **options)  # up to date
    with pytest.raises(DataError, match="--overwrite"):
        write_domain(raw, tmp_path / "d", k_core=0)

    write_domain(
        RawDomain(TEN, items, reader="test"), tmp_path / "r", k_core=0, split="ratio", fractions=(0.7, 0.1, 0.2)
    )
    ratio = load_domain(tmp_path / "r")
    assert len(ratio.split("test")) == len(ratio.negatives("test")) == 2
    assert ratio.statistics["interactions"] == 12
    write_domain(raw, tmp_path / "plain", k_core=0)
    about = json.loads((tmp_path / "plain" / "domain.json").read_text())
    assert "split" not in about["provenance"]["options"]  # domains made before there was a choice stay up to date
    assert about["statistics"]["leaking_train_events"] == 1
