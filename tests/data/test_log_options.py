"""What of a log is kept: ratings, dates, metadata, duplicates; and the order of a user's interactions."""

from dataclasses import replace

import polars as pl
import pytest

from retr_hf.data.log_options import LogOptions, domain_of_log
from retr_hf.data.readers.raw import RawLog
from retr_hf.errors import DataError

# user, item, rating, time, in file order
ROWS = [
    ("v", "a", 5.0, 86400 * 3),
    ("u", "b", 2.0, 20),
    ("u", "a", 4.0, 20),
    ("u", "b", 2.0, 20),
    ("u", "a", 1.0, 10),
    ("u", "c", 3.0, 30),
    ("u", "b", 5.0, 40),
]  # in time, u: a(10) b(20) a(20) b(20) c(30) b(40)


def log(rows=ROWS, items=None, columns=("user_id", "item_id", "rating", "timestamp")) -> RawLog:
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row").select(columns)
    return RawLog(frame.lazy(), items.lazy() if items is not None else None, reader="test")


def kept(options: LogOptions | None = None, **more) -> tuple[dict, dict]:
    domain = domain_of_log(log(**more), options)
    return dict(domain.sequences.select("user_id", "item_ids").iter_rows()), {
        k: n for k, n in domain.dropped.items() if n
    }


@pytest.mark.parametrize(
    ("options", "expected", "dropped"),
    [
        (LogOptions(), list("abab") + list("cb"), {}),
        (LogOptions(duplicates="identical"), list("abacb"), {"duplicate_interactions": 1}),
        (LogOptions(duplicates="first"), list("abc"), {"duplicate_interactions": 3}),
        (LogOptions(duplicates="last"), list("acb"), {"duplicate_interactions": 3}),
        (LogOptions(duplicates="consecutive"), list("ababcb"), {}),
        (LogOptions(min_rating=3), list("acb"), {"interactions_rated_below_3": 3}),
    ],
)
def test_policies(options, expected, dropped):
    sequences, counted = kept(options)
    assert sequences == {"v": ["a"], "u": expected}
    assert counted == dropped


def test_consecutive_repeats_in_time_not_in_the_file():
    rows = [("u", "a", 1.0, 1), ("u", "b", 1.0, 9), ("u", "a", 1.0, 2), ("w", "a", 1.0, 3), ("u", "a", 1.0, 3)]
    sequences, counted = kept(LogOptions(duplicates="consecutive"), rows=rows)
    assert sequences == {"u": ["a", "b"], "w": ["a"]} and counted == {"duplicate_interactions": 2}


def test_dates_are_half_open():
    sequences, counted = kept(LogOptions(since="1970-01-01", until="1970-01-04"))
    assert "v" not in sequences and counted == {"interactions_from_1970-01-04_on": 1}
    sequences, counted = kept(LogOptions(since="1970-01-04"))
    assert sequences == {"v": ["a"]} and counted == {"interactions_before_1970-01-04": 6}


def test_metadata_join_and_doubled_items():
    items = pl.DataFrame({"item_id": ["a", "c", "a"], "text": ["A", "C", "other"]})
    sequences, counted = kept(LogOptions(with_metadata=True), items=items)
    assert sequences == {"v": ["a"], "u": list("aac")}
    assert counted == {"interactions_with_items_without_metadata": 3, "item_rows_doubled": 1}
    assert domain_of_log(log(items=items)).items.rows() == [("a", "A"), ("c", "C")]


@pytest.mark.parametrize("kept", [LogOptions(), LogOptions(with_metadata=True), LogOptions(2)])
@pytest.mark.parametrize("whole", [False, True])
def test_an_item_table_that_shares_nothing_with_the_log(kept, whole):
    items = pl.DataFrame({"item_id": ["SKU-b", "SKU-a"], "text": ["B", "A"]})
    with pytest.raises(DataError, match=r"log names items such as 'a', the table 'SKU-b'.*--items-id"):
        domain_of_log(replace(log(items=items), whole_catalogue=whole), kept)
    with pytest.raises(DataError, match="such as 'a', the table none at all"):
        domain_of_log(log(items=items.clear()), kept)
    with pytest.raises(DataError, match="smaller --k-core"):  # of nothing, nothing is missing
        domain_of_log(log(items=items), LogOptions(), k_core=9)
    one = pl.DataFrame({"item_id": ["SKU-b", "c"], "text": ["B", "C"]})
    assert domain_of_log(log(items=one)).items.rows() == [("c", "C")]
    with pytest.raises(DataError, match="log names items such as 'a', the table 'SKU-b'"):
        domain_of_log(log(items=one), LogOptions(min_rating=4, with_metadata=True))  # c is rated 3


def test_the_provenance_tells_what_differs_from_the_default():
    assert domain_of_log(log()).options == {"ordered": "by time; equal times keep file order"}
    options = LogOptions(min_rating=2, duplicates="last")
    assert domain_of_log(log(), options).options.items() >= {"min_rating": 2, "duplicates": "last"}.items()


def test_without_times_file_order_is_the_order():
    assert kept(columns=("user_id", "item_id"))[0] == {"v": ["a"], "u": list("babacb")}
    assert kept(LogOptions(duplicates="last"), columns=("user_id", "item_id"))[0]["u"] == list("acb")


@pytest.mark.parametrize(
    ("options", "columns", "message"),
    [
        (LogOptions(duplicates="some"), (), "expected one of all, identical, first, last, consecutive; got 'some'"),
        (LogOptions(min_rating=1), ("user_id", "item_id"), "no ratings; leave out --min-rating"),
        (LogOptions(since="2019-01-01"), ("user_id", "item_id"), "no times"),
        (LogOptions(since="1 May"), (), "expected YYYY-MM-DD.*'1 May'"),
        (LogOptions(with_metadata=True), (), "pass --items"),
        (LogOptions(min_rating=6), (), "none is left; dropped: 7 interactions rated below 6"),
    ],
)
def test_options_that_do_not_fit(options, columns, message):
    with pytest.raises(DataError, match=message):
        domain_of_log(log(columns=columns or ("user_id", "item_id", "rating", "timestamp")), options)
