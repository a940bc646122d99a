"""Readers: plain tables and atomic files, their order, their dirt, their errors."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from retr_hf.data.log_options import LogOptions, domain_of_log
from retr_hf.data.readers import table_batches
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.data.readers.dirt import Dirt
from retr_hf.data.readers.item_text import join_text, text_as_unisrec
from retr_hf.data.readers.spool import spool_beside
from retr_hf.data.readers.tables import read_tables
from retr_hf.errors import DataError

SCIENTIFIC = Path(__file__).parents[2].parent / "shared" / "data" / "scientific"
LOG = "user_id,item_id,timestamp\nu2,x,30\nu1,a,20\nu1,007,10\nu2,y,30\nu1,b,20\nu2,z,1\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def read(log: Path, items: Path | None = None, strict: bool = False, kept: LogOptions | None = None, **options):
    """The domain of plain tables."""
    with spool_beside(log.parent / "out", strict) as spool:
        return domain_of_log(read_tables(log, spool, items=items, **options), kept)


def sequences(raw) -> dict[str, list[str]]:
    return dict(raw.sequences.select("user_id", "item_ids").iter_rows())


def test_log_is_ordered_by_time_and_ties_keep_file_order(tmp_path):
    raw = read(write(tmp_path / "log.csv", LOG))
    # u1: 007 at 10, then a before b (both at 20, a first in the file); u2: z at 1, then x before y
    assert list(sequences(raw).items()) == [("u2", ["z", "x", "y"]), ("u1", ["007", "a", "b"])]
    assert raw.sequences["timestamps"].to_list() == [[1, 30, 30], [10, 20, 20]]


def test_log_without_timestamps_keeps_file_order(tmp_path):
    text = "\n".join(line.rsplit(",", 1)[0] for line in LOG.splitlines())
    raw = read(write(tmp_path / "log.csv", text))
    assert sequences(raw) == {"u2": ["x", "y", "z"], "u1": ["a", "007", "b"]}
    assert "timestamps" not in raw.sequences.columns


def test_every_format_reads_the_same(tmp_path):
    expected = sequences(read(write(tmp_path / "log.csv", LOG)))
    table = pl.read_csv(tmp_path / "log.csv", infer_schema=False).with_columns(pl.col("timestamp").cast(pl.Int64))
    table.write_parquet(tmp_path / "log.parquet")
    table.write_ndjson(tmp_path / "log.jsonl")
    table.write_csv(tmp_path / "log.tsv", separator="\t")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(LOG.encode()))
    (tmp_path / "log2.jsonl.gz").write_bytes(gzip.compress((tmp_path / "log.jsonl").read_bytes()))
    for name in ("log.parquet", "log.jsonl", "log.tsv", "log.csv.gz", "log2.jsonl.gz"):
        assert sequences(read(tmp_path / name)) == expected, name


def test_ready_sequences_in_parquet_and_csv(tmp_path):
    frame = pl.DataFrame({"user_id": [1, 2, 3], "item_ids": [[5, 6], [5], []], "timestamps": [[1, 2], [3], []]})
    frame.write_parquet(tmp_path / "s.parquet")
    text = "user_id,item_ids,timestamps\n1,5 6,1 2\n2,5,3\n3,,\n"
    for path in (tmp_path / "s.parquet", write(tmp_path / "s.csv", text)):
        raw = read(path)
        assert sequences(raw) == {"1": ["5", "6"], "2": ["5"]}
        assert raw.sequences["timestamps"].to_list() == [[1, 2], [3]]
        assert raw.dropped["users_without_items"] == 1


def test_repeats_stay_and_rows_without_ids_are_counted(tmp_path):
    raw = read(write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,a\n,b\nu,\n"))
    assert sequences(raw) == {"u": ["a", "a"]}
    assert {what: count for what, count in raw.dropped.items() if count} == {
        "interactions_without_user_id": 1,
        "interactions_without_item_id": 1,
    }


def test_other_column_names(tmp_path):
    log = write(tmp_path / "log.csv", "who,what,when\nu,a,2\nu,b,1\n")
    items = write(tmp_path / "items.csv", "what,title\na,Lamp\n")
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    raw = read(log, items, columns=columns, text_columns=["title"])
    assert sequences(raw) == {"u": ["b", "a"]}
    assert raw.items.rows() == [("a", "Lamp")]
    assert raw.options["columns"] == columns
    with pytest.raises(DataError, match="userid"):
        read(log, columns={"userid": "who"})


def test_times_in_other_units_and_dates(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,a,1700000000999\n")
    assert read(log, timestamp_unit="ms").sequences["timestamps"].to_list() == [[1700000000]]
    with pytest.raises(DataError, match="--timestamp-unit ms"):
        read(log)
    with pytest.raises(DataError, match="expected one of s, ms, us, ns"):
        read(log, timestamp_unit="h")
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [86400]}).with_columns(
        pl.from_epoch("timestamp")
    ).write_parquet(tmp_path / "log.parquet")
    assert read(tmp_path / "log.parquet").sequences["timestamps"].to_list() == [[86400]]


def test_records_over_lines_and_broken_ones(tmp_path):
    text = 'user_id,review,item_id\nu,"two\nlines, ""quoted""",a\nu,x\nu,5" wide,b\n\nv,x,a,more\n'
    log = write(tmp_path / "log.csv", text)
    raw = read(log)
    assert sequences(raw) == {"u": ["a", "b"]}
    assert raw.dropped["unreadable_lines_of_log.csv"] == 2
    with pytest.raises(DataError, match=r"log.csv:3: 'u,x' \(expected 3 fields, got 2\).*--strict"):
        read(log, strict=True)
    with pytest.raises(DataError, match=r"2 have another, and only 1"):
        read(write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,a,b\nu,a,b\n"))
    lines = '{"user_id": 1, "item_id": "a"}\nnonsense\n{"user_id": "u", "item_id": 7, "more": {}}\n'
    raw = read(write(tmp_path / "log.jsonl", lines))
    assert sequences(raw) == {"1": ["a"], "u": ["7"]}
    assert raw.dropped["unreadable_lines_of_log.jsonl"] == 1


def test_the_options_of_a_log(tmp_path):
    text = "user_id,item_id,timestamp,stars\nu,a,9,5\nu,b,8,\nu,a,9,5\nv,c,7,3\nv,a,86400,4.5\nv,d,5,good\n"
    log, items = write(tmp_path / "log.csv", text), write(tmp_path / "items.csv", "item_id,text\na,A\nb,B\n")
    columns = {"rating": "stars"}
    assert sequences(read(log, columns=columns)) == {"u": ["b", "a", "a"], "v": ["d", "c", "a"]}
    for kept, expected in (
        (LogOptions(min_rating=3), {"u": ["a", "a"], "v": ["c", "a"]}),  # neither a missing rating nor one in words
        (LogOptions(duplicates="identical"), {"u": ["b", "a"], "v": ["d", "c", "a"]}),
        (LogOptions(until="1970-01-02", with_metadata=True), {"u": ["b", "a", "a"]}),
    ):
        assert sequences(read(log, items, columns=columns, kept=kept)) == expected
    with pytest.raises(DataError, match="no ratings; leave out --min-rating"):
        read(log, kept=LogOptions(min_rating=3))
    with pytest.raises(DataError, match="expected a timestamp in every row.*--strict"):
        read(write(tmp_path / "log.csv", "user_id,item_id,timestamp\nu,a,1\nu,b,\n"), strict=True)


def test_tables_are_read_in_batches(tmp_path, monkeypatch):
    rows = pl.DataFrame({"user_id": [f"u{n % 7}" for n in range(100)], "item_id": [n % 13 for n in range(100)]})
    rows.write_parquet(tmp_path / "log.parquet")
    rows.write_csv(tmp_path / "log.csv")
    rows.write_ndjson(tmp_path / "log.jsonl")
    lists = rows.group_by("user_id", maintain_order=True).agg(pl.col("item_id").alias("item_ids"))
    lists.write_parquet(tmp_path / "sequences.parquet")
    whole = sequences(read(tmp_path / "log.parquet"))
    assert len(whole) == 7 and sum(map(len, whole.values())) == 100
    monkeypatch.setattr(table_batches, "_ROWS", 3)
    monkeypatch.setattr(table_batches, "BLOCK", 50)
    for name in ("log.parquet", "log.csv", "log.jsonl", "sequences.parquet"):
        assert sequences(read(tmp_path / name)) == whole
    pl.concat([lists, lists[6:]]).write_parquet(tmp_path / "sequences.parquet")
    with pytest.raises(DataError, match=r"1 ids have several, such as \['u6'\]"):  # of two batches
        read(tmp_path / "sequences.parquet")


def test_several_text_columns_are_cleaned_and_joined():
    items = pl.DataFrame(
        {
            "title": ['Nuts &amp; "Bolts"...', "", None, "x" * 1999, "y" * 1998],
            "category": [["Tools", "Fix\nings"], [], ["A"], None, ["B"]],
        }
    )
    columns = ["title", "category"]
    whole = ["Nuts & Bolts. Tools Fix ings.", "", "A.", "x" * 1999 + ".", "y" * 1998 + ". B."]
    assert join_text(items, columns).to_list() == whole
    dirt = Dirt(strict=True)  # a trait of the source, which is never refused
    texts = text_as_unisrec(columns, dirt)(items.with_columns(item_id=pl.Series(list("abcde"))))
    assert texts.columns == ["item_id", "text"]
    # 1,999 letters and the dot are 2,000 characters
    assert texts["text"].to_list() == ["Nuts & Bolts. Tools Fixings.", "", "A.", "", "y" * 1998 + ". B."]
    kind = "text_fields_of_2000_characters_or_more_left_out"
    assert dirt.counts == {kind: 1}
    assert dirt.samples[kind] == f"title of item 'd': '{'x' * 120}...'"


def test_long_texts_and_line_ends_of_own_tables(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,b\n")
    long = "word " * 1000 + "end"
    items = write(tmp_path / "items.csv", f'item_id,title,about\na,Shoe,"red\r\nshoe\n\nnew"\nb,Lamp,{long}\n')
    domain = read(log, items, text_columns=["title", "about"])
    assert dict(domain.items.iter_rows()) == {"a": "Shoe. red shoe new.", "b": f"Lamp. {long}."}


def test_one_text_column_is_taken_as_it_is(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    pl.DataFrame({"item_id": ["a"], "text": ["a &amp; b.."]}).write_parquet(tmp_path / "items.parquet")
    assert read(log, tmp_path / "items.parquet").items.rows() == [("a", "a &amp; b..")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.csv", "user,item\nu,a\n", "expected columns user_id, item_id.*the file has user, item.*--columns"),
        ("log.csv", "", "Empty CSV"),
        ("log.csv", "user_id,item_id\n", "the table has none"),
        ("log.csv", "user_id,item_id\n,a\nu,\n", "no row has a user"),
        ("log.csv", "user_id,item_id,timestamp\nu,a,yesterday\n", "'yesterday'"),
        ("log.csv", "user_id,item_ids\nu,a b\nu,c\n", r"one row a user.*\['u'\]"),
        ("log.csv", "user_id,item_ids,timestamps\nu,a b,1\n", "1 rows have lists of different lengths"),
        ("log.jsonl", '{"user_id": "u", "item_ids": 5}\n', "expected lists"),
        ("log.jsonl", '{"user_id": "u", "item_id": 5.5}\n', "got Float64"),
        ("log.jsonl", '{"user_id": "u"', "cannot be read"),
        ("log.jsonl", '{"user_id": "u", "item_id": "a", "timestamp": {}}', "timestamp: expected text, numbers"),
        ("log.csv", "user_id,item_id,item_id\nu,a,b\n", "item_id is there twice"),
        ("log.csv", 'user_id,item_id\nu,"a\nu,b\n', "holds a line end.*a quote that is never closed"),
        ("log.parquet", "no parquet", "expected parquet"),
        ("log.xlsx", "", r"expected a file ending in \.parquet"),
    ],
)
def test_unusable_tables_say_what_was_expected(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert name in str(caught.value)


def test_unusable_item_tables(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    with pytest.raises(DataError, match="no such file"):
        read(log, tmp_path / "items.csv")
    items = write(tmp_path / "items.csv", "item_id,text\na,x\nb,y\na,z\n")
    with pytest.raises(DataError, match=r"items.csv.*1 ids have several.*\['a'\]"):
        read(log, items)
    with pytest.raises(DataError, match="title missing.*--text-columns"):
        read(log, items, text_columns=["title"])


INTER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def write_atomic(folder: Path, train: str, valid: str, test: str, **others: str) -> Path:
    for suffix, rows in (("train", train), ("valid", valid), ("test", test)):
        write(folder / f"X.{suffix}.inter", INTER + rows)
    for suffix, text in others.items():
        write(folder / f"X.{suffix}", text)
    return folder


def by_split(raw) -> dict[str, list[list[str]]]:
    return {name: raw.sequences.filter(split=name)["item_ids"].to_list() for name in ("train", "validation", "test")}


ONE_USER = ("9\t0 1\t2\n9\t0\t1\n", "9\t0 1 2\t3\n", "9\t0 1 2 3\t0\n")


def test_prefixes_become_one_sequence_with_raw_ids(tmp_path):
    others = {
        "item2index": "b\t1\na\t0\nc\t2\nd\t3\nunused\t4\n",
        "text": "item_id:token\ttext:token_seq\nb\tBlue\na\t\n",
        "user2index": "".join(f"user{i}\t{i}\n" for i in range(10)),
    }
    raw = read_atomic(write_atomic(tmp_path, *ONE_USER, **others))
    assert by_split(raw) == {
        "train": [["a", "b", "c"]],
        "validation": [["a", "b", "c", "d"]],
        "test": [["a", "b", "c", "d", "a"]],
    }
    assert raw.items.rows() == [("a", ""), ("b", "Blue"), ("c", ""), ("d", ""), ("unused", "")]
    assert raw.whole_catalogue
    assert raw.sequences["user_id"].unique().to_list() == ["user9"]
    assert [path.name.split(".", 1)[1] for path in raw.inputs] == [
        "train.inter", "valid.inter", "test.inter", "text", "item2index", "user2index",
    ]  # fmt: skip


def test_tokens_are_raw_ids_without_an_index(tmp_path):
    raw = read_atomic(write_atomic(tmp_path, *ONE_USER))
    assert by_split(raw)["test"] == [["0", "1", "2", "3", "0"]]


@pytest.mark.parametrize("direction", [1, -1])
def test_cut_histories_are_completed(tmp_path, direction):
    # The sequence 0 1 2 3 4 5 6, histories cut at the last 2.
    rows = ["u\t0\t1\n", "u\t0 1\t2\n", "u\t1 2\t3\n", "u\t2 3\t4\n"]
    raw = read_atomic(write_atomic(tmp_path, "".join(rows[::direction]), "u\t3 4\t5\n", "u\t4 5\t6\n"))
    assert by_split(raw) == {
        "train": [list("01234")],
        "validation": [list("012345")],
        "test": [list("0123456")],
    }
    assert raw.dropped["train_histories_completed_beyond_the_cut"] == 1
    assert raw.dropped["users_whose_training_rows_are_not_prefixes"] == 0


def test_deviations_are_kept_and_counted(tmp_path):
    train = "u\t0 1\t2\nu\t0\t9\n"  # 0 9 is no prefix of 0 1 2
    raw = read_atomic(write_atomic(tmp_path, train, "u\t0 5\t3\n", "u\t0 5 3\t4\n"))
    assert by_split(raw) == {
        "train": [["0", "1", "2"]],
        "validation": [["0", "5", "3"]],
        "test": [["0", "5", "3", "4"]],
    }
    assert {key: count for key, count in raw.dropped.items() if count} == {
        "users_whose_training_rows_are_not_prefixes": 1,
        "validation_histories_not_the_earlier_sequence": 1,
    }


def test_unusable_atomic_files(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_atomic(tmp_path / "nothing")
    with pytest.raises(DataError, match="got none"):
        read_atomic(tmp_path)
    write_atomic(tmp_path, *ONE_USER, item2index="a\t0\nb\t2\n")
    with pytest.raises(DataError, match="indices 0 to 1"):
        read_atomic(tmp_path)
    write(tmp_path / "X.item2index", "a\t0\nb\t1\n")
    with pytest.raises(DataError, match="index 0 to 1"):
        read_atomic(tmp_path)
    write(tmp_path / "X.item2index", "a\t0\na\t1\n")
    with pytest.raises(DataError, match=r"one row a raw id.*\['a'\]"):
        read_atomic(tmp_path)
    write(tmp_path / "X.valid.inter", "user\titem\nu\t1\n")
    with pytest.raises(DataError, match="X.valid.inter.*expected columns"):
        read_atomic(tmp_path)
    (tmp_path / "X.test.inter").unlink()
    with pytest.raises(DataError, match="X.test.inter missing"):
        read_atomic(tmp_path)
    write(tmp_path / "Y.train.inter", "")
    with pytest.raises(DataError, match="several datasets.*X, Y.*--dataset"):
        read_atomic(tmp_path)


@pytest.mark.skipif(not SCIENTIFIC.is_dir(), reason="the real data of ../shared/data is not on this machine")
def test_scientific_is_the_paper_s():
    raw = read_atomic(SCIENTIFIC / "unisrec")
    rows = raw.sequences.group_by("split").agg(pl.len(), pl.col("item_ids").list.len().sum().alias("n"))
    counted = {split: (count, n) for split, count, n in rows.iter_rows()}
    # As UniSRec counts them: 8,442 users, 4,385 items, 59,427 interactions.
    assert counted["test"] == (8442, 59427)
    assert counted["validation"] == (8442, 59427 - 8442)
    assert counted["train"] == (8442, 59427 - 2 * 8442)
    assert raw.items.height == 4385
    assert (raw.items["text"] != "").all()
    assert raw.dropped["users_whose_training_rows_are_not_prefixes"] == 0
    assert raw.dropped["validation_histories_not_the_earlier_sequence"] == 0
    assert raw.dropped["test_histories_not_the_earlier_sequence"] == 0
    # The same domain as a table, cut at 50: the last 51 items of every test row.
    other = pl.read_parquet(SCIENTIFIC / "sequences.parquet")
    index = {raw_id: str(place) for place, raw_id in enumerate(raw.items["item_id"])}
    tails = raw.sequences.filter(split="test").select("user_id", pl.col("item_ids").list.tail(51))
    ours = {user: [index[item] for item in items] for user, items in tails.iter_rows()}
    assert ours == dict(other.select("user_id", "item_ids").iter_rows())
