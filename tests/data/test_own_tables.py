"""Tables as other programs write them: lists, dates, encodings and separators are understood, or refused in words."""

import gzip
import math
import re
from pathlib import Path

import polars as pl
import pytest

from retr_hf.data.log_options import LogOptions, domain_of_log
from retr_hf.data.readers import table_batches, tables
from retr_hf.data.readers.raw import UNTIMED
from retr_hf.data.readers.spool import spool_beside
from retr_hf.data.readers.tables import read_tables
from retr_hf.errors import DataError

LISTS = "user_id,item_ids\n"
DATED = "user_id,item_id,timestamp\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(log: Path, strict: bool = False, **options):
    with spool_beside(log.parent / "out", strict) as spool:
        return domain_of_log(read_tables(log, spool, **options))


def rows(domain, *columns: str) -> list[tuple]:
    return domain.sequences.select("user_id", "item_ids", *columns).rows()


@pytest.fixture
def tiny(monkeypatch):
    """Batches of a record or two."""
    monkeypatch.setattr(table_batches, "BLOCK", 32)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("u,\"['3', '0', '6']\"\n", r"got \"\['3', '0', '6'\]\""),
        ("u,3 0\nv,(3 0)\n", r"got '\(3 0\)'"),
        ('u,1\nv,"2,9,1"\n', "got '2,9,1'"),
        ('u,"2, 9, 1"\nv,5\n', "got '2, 9, 1'"),
        ("u,2 | 9\n", r"got '2 \| 9'"),
        ("u,2;9\nv,\n", "got '2;9'"),
    ],
)
def test_lists_that_blanks_do_not_separate_are_refused(tmp_path, text, got):
    with pytest.raises(DataError, match=rf"'item_ids': expected values separated by blanks, {got}.*parquet or jsonl"):
        read(write(tmp_path / "log.csv", LISTS + text))


def test_other_names_of_lists_are_those_of_the_file(tmp_path):
    log = write(tmp_path / "log.csv", 'user_id,basket,at\nu,7,"[1]"\n')
    with pytest.raises(DataError, match="column 'at': expected values separated by blanks"):
        read(log, columns={"item_ids": "basket", "timestamps": "at"})


def test_ids_may_hold_commas_where_blanks_separate_them(tmp_path, tiny):
    text = 'u,"1,5"\nw,a|b\nx,a\nv,"1,5 2,7"\n'  # what tells is in the last batch
    assert rows(read(write(tmp_path / "log.csv", LISTS + text))) == [
        ("u", ["1,5"]), ("w", ["a|b"]), ("x", ["a"]), ("v", ["1,5", "2,7"]),
    ]  # fmt: skip


ITEMS = "item_id,text\n" + "".join(f"{item},Thing {item}\n" for item in "abcdef")


def test_records_behind_an_open_quote_are_told(tmp_path, tiny):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,c\nu,f\n")
    prose = ITEMS.replace("a,Thing a", 'a,"Thing\r\na, b, and c"')
    assert not read(log, items=write(tmp_path / "prose.csv", prose), strict=True).dropped.get("texts")
    table_batches.BLOCK = 1000  # a field lies in one block
    items = write(tmp_path / "items.csv", ITEMS.replace("b,Thing b", 'b,"Thing b'))
    with spool_beside(tmp_path / "out") as spool:
        told = read_tables(log, spool, items=items)
        assert domain_of_log(told).dropped["texts_of_items.csv_that_hold_whole_records"] == 1
    (sample,) = told.samples.values()
    assert sample.startswith(r"items.csv: 'Thing b\nc,Thing c\n") and "in column 'text'; a quote" in sample
    with pytest.raises(DataError, match=r"items.csv: 'Thing b.*hold whole records; close the quote.*--strict"):
        read(log, items=items, strict=True)


def test_an_open_quote_that_takes_a_part_of_the_log_is_refused(tmp_path, tiny):
    table_batches.BLOCK = 10_000  # a field lies in one block
    lines = [f"u{n},p{n},{1_700_000_000 + n}" for n in range(60)]
    lines[30] = '1001,"' + lines[30]
    log = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    with pytest.raises(DataError, match="is 30 lines long.*a quote in it is never closed and takes the lines after it"):
        read(log)
    lines[30] = lines[30].replace('"', "")  # a field too many, in one line
    log = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    assert read(log).dropped["unreadable_lines_of_log.csv"] == 1
    lines[30], lines[33] = 'u,"p', 'v",1,2,3'  # closed three lines on
    log = write(tmp_path / "log.csv", "\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    assert read(log).dropped["unreadable_lines_of_log.csv"] == 4, "lines are counted, not records"


def test_a_column_that_is_named_is_there(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id,when\nu,a,2024-01-01\nu,b,2024-01-02\n")
    for ours in ("timestamp", "rating"):
        with pytest.raises(DataError, match=f"expected columns user_id, item_id, {ours}ed; {ours}ed missing"):
            read(log, columns={ours: f"{ours}ed"})
    assert read(log, columns={"timestamp": "when"}).options["ordered"] == "by time; equal times keep file order"
    assert read(log).options["ordered"] == UNTIMED


def test_an_open_quote_in_a_column_that_makes_no_text(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\nu,b\n")
    items = write(tmp_path / "items.csv", 'item_id,text,about\na,A,x\nb,B,"y\nc,C,z\nd,D,"\n')
    domain = read(log, items=items)
    assert domain.dropped["texts_of_items.csv_that_hold_whole_records"] == 1
    assert domain.items["item_id"].to_list() == ["a", "b"]
    assert domain.items.columns == ["item_id", "text"]


OPEN = 'user_id,note,item_id\nu,x,a\nu,"y,b\nv,,a\nv,z,b\nw,"z",c\nw,"two\r\nlines, of, prose\n",d\n'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_open_quote_in_a_column_of_the_log_that_is_not_read(tmp_path, end):
    log = write(tmp_path / "log.csv", OPEN.replace('u,"y', "u,y").replace("\r", "").replace("\n", end))
    assert [user for user, _ in rows(read(log, strict=True))] == ["u", "v", "w"]
    log = write(tmp_path / "log.csv", OPEN.replace("\r", "").replace("\n", end))
    with spool_beside(tmp_path / "out") as spool:
        told = read_tables(log, spool)
        assert rows(domain_of_log(told)) == [("u", ["a", "c"]), ("w", ["d"])]
    assert told.dropped == {"texts_of_log.csv_that_hold_whole_records": 1}
    (sample,) = told.samples.values()
    assert sample.startswith("log.csv: 'y,b") and "in column 'note'; a quote that is never closed?" in sample
    with pytest.raises(DataError, match="log.csv: 'y,b.*close the quote"):
        read(log, strict=True)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("user_id,note,item_id\n\nu,x,a\n\n\nv,y,b\n\n", 1),
        ("user_id,note,item_id\r\n\r\nu,x,a\r\n\r\n", 1),
        ('user_id,note,item_id\n\nu,"x\n\ny",a\n', 2),
    ],
)
def test_blank_lines_cost_no_second_pass(tmp_path, monkeypatch, text, passes):
    opened, plain = [], table_batches._open_csv
    monkeypatch.setattr(table_batches, "_open_csv", lambda *args, **kw: opened.append(len(args)) or plain(*args, **kw))
    assert rows(read(write(tmp_path / "log.csv", text), strict=True))[0] == ("u", ["a"])
    assert opened.count(4) == passes  # those with columns; the others look at the header


def test_an_open_quote_in_an_id_of_the_items(tmp_path):
    log = write(tmp_path / "log.csv", "user_id,item_id\nu,a\n")
    items = write(tmp_path / "items.csv", 'text,item_id\nA,a\nB,"b\nC,c\n')
    with pytest.raises(DataError, match=r"items.csv: expected ids in one line"):
        read(log, items=items)


def test_the_item_table_may_name_the_item_otherwise(tmp_path):
    log = write(tmp_path / "clicks.csv", "user,product_id\nu,a\nu,b\n")
    items = write(tmp_path / "products.csv", "id,title\na,Lamp\nb,Chair\n")
    columns = {"user_id": "user", "item_id": "product_id"}
    options = {"items": items, "columns": columns, "text_columns": ["title"]}
    domain = read(log, items_id="id", **options)
    assert domain.items.rows() == [("a", "Lamp"), ("b", "Chair")]
    assert domain.options["items_id"] == "id" and domain.options["columns"] == columns
    with pytest.raises(DataError, match=r"products.csv: expected columns product_id;.*--items-id"):
        read(log, **options)
    with pytest.raises(DataError, match="pass --items, or leave out --items-id"):
        read(log, columns=columns, items_id="id")


DAY = 18262 * 86400  # 2020-01-01
TIME = DAY + 11 * 3600 + 26 * 60 + 28


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("2020-01-01", DAY),
        ("2020-01-01 11:26", TIME - 28),
        ("2020-01-01 11:26:28", TIME),
        (" 2020-01-01T11:26:28.999 ", TIME),
        ("2020-01-01T11:26:28Z", TIME),
        ("2020-01-01 11:26:28 UTC", TIME),
        ("2020-01-01T11:26:28.5+02:00", TIME - 7200),
        ("2020-01-01T11:26-0130", TIME - 28 + 5400),
        ("9999-12-31", 2932896 * 86400),  # a date is no millisecond
        ("-5", -5),
        ("7.9", 7),
        ("1577877988", TIME),
    ],
)
def test_times_as_text(tmp_path, text, second):
    assert read(write(tmp_path / "log.csv", f"{DATED}u,a,{text}\n")).sequences["timestamps"].to_list() == [[second]]
    line = f'{{"user_id": "u", "item_id": "a", "timestamp": "{text}"}}\n'
    assert read(write(tmp_path / "log.jsonl", line)).sequences["timestamps"].to_list() == [[second]]


def test_dates_are_read_alike_in_any_batch(tmp_path, tiny):
    forms = ["2020-01-01T11:26:28Z", "2020-01-01", "3", "", "2020-01-01T11:26:28.25", "NaN"]
    log = write(tmp_path / "log.csv", DATED + "".join(f"u,{item},{time}\n" for item, time in enumerate(forms)))
    domain = read(log, timestamp_unit="ms")
    assert rows(domain, "timestamps") == [("u", ["2", "1", "0", "4"], [0, DAY, TIME, TIME])]
    assert domain.dropped["interactions_without_timestamp"] == 2
    table_batches.BLOCK = 1000
    assert rows(read(log, timestamp_unit="ms"), "timestamps") == rows(domain, "timestamps")
    with pytest.raises(DataError, match="expected a timestamp in every row"):
        read(log, strict=True, timestamp_unit="ms")


def test_gaps_of_float_times_and_dates_in_lists(tmp_path):
    log = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [2.5, math.nan, None]})
    log.write_parquet(tmp_path / "log.parquet")
    domain = read(tmp_path / "log.parquet")
    assert rows(domain, "timestamps") == [("u", ["a"], [2])]
    assert domain.dropped["interactions_without_timestamp"] == 2
    lists = write(tmp_path / "lists.csv", "user_id,item_ids,timestamps\nu,a b,2020-01-01 2020-01-01T11:26:28Z\n")
    assert rows(read(lists), "timestamps") == [("u", ["a", "b"], [DAY, TIME])]


@pytest.mark.parametrize("text", ["01/02/2020", "2020-02-30", "n/a", "inf", "9" * 30, "1577877988000"])
def test_a_time_that_cannot_be_read_drops_its_row(tmp_path, tiny, text):
    log = write(tmp_path / "log.csv", f"{DATED}u,a,{TIME}\n,x,1\nu,b,{text}\nv,b,{text}\nu,c,{TIME + 1}\nu,d,\n")
    with spool_beside(tmp_path / "out") as spool:
        told = read_tables(log, spool)
        assert rows(domain_of_log(told), "timestamps") == [("u", ["a", "c"], [TIME, TIME + 1])]
    assert told.dropped == {
        "interactions_without_user_id": 1, "unreadable_timestamps_of_log.csv": 2, "interactions_without_timestamp": 1
    }  # fmt: skip
    first = f"log.csv, row 3: timestamp '{text}' of user 'u', item 'b' (expected a time)"
    assert told.samples == {"unreadable_timestamps_of_log.csv": first}
    log = write(log, f"{DATED}u,a,1\nu,b,{text}\n")
    with pytest.raises(DataError, match=rf"log.csv, row 2: timestamp '{text}' of user 'u'.*leaving out --strict"):
        read(log, strict=True)


def test_a_time_in_a_list_that_cannot_be_read(tmp_path):
    log = write(tmp_path / "log.csv", f"user_id,item_ids,timestamps\nu,a b,1 2\nv,a b c,3 ? {TIME}\n")
    domain = read(log)
    assert rows(domain, "timestamps") == [("u", ["a", "b"], [1, 2]), ("v", ["a", "c"], [3, TIME])]
    with pytest.raises(DataError, match=r"row 2: timestamp '\?' of user 'v', item 'b'"):
        read(log, strict=True)


@pytest.mark.parametrize("enough", [0, 10_000])
def test_where_most_times_cannot_be_read_the_form_is_told(tmp_path, tiny, monkeypatch, enough):
    monkeypatch.setattr(tables, "_ENOUGH", enough)
    log = write(tmp_path / "log.csv", DATED + "u,a,01/02/2020\nu,b,02/02/2020\nu,b,5\n")
    with pytest.raises(DataError, match=r"dates as text such as 2020-01-31, .*, got '01/02/2020' \(of \d that cannot"):
        read(log)


@pytest.mark.parametrize(
    ("unit", "parts", "told"),
    [
        ("ms", 1, "got 1577877988, which would be 1970-01-19 (and none is later); in s it is 2020-01-01"),
        ("ns", 1000, "got 1577877988000, which would be 1970-01-01 (and none is later); in ms it is 2020-01-01"),
        ("s", 1000, "which would be after the year 5000 (1 cannot be read, 0 can); in ms it is 2020-01-01"),
        ("ms", 10**6, "after the year 5000 (1 cannot be read, 0 can); in us it is 2020-01-01"),
    ],
)
def test_another_unit_that_makes_dates_is_named(tmp_path, unit, parts, told):
    number = TIME * parts
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["a"], "timestamp": [number]})
    frame.write_parquet(tmp_path / "log.parquet")
    frame.cast({"timestamp": pl.Float64}).write_csv(tmp_path / "log.csv")
    for name in ("log.parquet", "log.csv"):
        with pytest.raises(DataError, match=re.escape(told)) as refused:
            read(tmp_path / name, timestamp_unit=unit)
        assert f"expected {unit} since 1970" in str(refused.value)
        assert str(refused.value).endswith(f"pass --timestamp-unit {told.split('; in ')[1].split()[0]}")


@pytest.mark.parametrize("days", [[20200131, 19991231], [20200131.0, 20200201.0]])
def test_dates_without_a_separator_are_no_seconds(tmp_path, days):
    log = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": days})
    log.write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="got .* to 20200.*, dates without a separator; write them so"):
        read(tmp_path / "log.csv")
    for numbers in ([5, 20200131], [20200131, 20200132]):  # counters
        log.with_columns(timestamp=pl.Series(numbers)).write_csv(tmp_path / "log.csv")
        assert rows(read(tmp_path / "log.csv"), "timestamps") == [("u", ["a", "b"], numbers)]


def test_odd_times_stay_and_are_told(tmp_path):
    """Counters and placeholders; the log is as it should be but for them."""
    times = [0, TIME, 1, "1989-12-31", "2099-12-31", "2100-01-01"]
    log = write(tmp_path / "log.csv", DATED + "".join(f"u,{item},{time}\n" for item, time in enumerate(times)))
    with spool_beside(tmp_path / "out", strict=True) as spool:
        told = read_tables(log, spool)
        assert rows(domain_of_log(told))[0][1] == ["0", "2", "3", "1", "4", "5"]
    assert told.dropped == {"timestamps_before_1990_or_after_2099": 4}
    (sample,) = told.samples.values()
    assert sample == "log.csv, row 1: timestamp '0' of user 'u', item '0'"


RATED = 'user_id,item_id,rating\nu,a,5\nu,b,\nu,c,good\nu,d, 4 \nu,e,NaN\nu,f,1\nu,g,"4,5"\n'


@pytest.mark.parametrize("kept", [LogOptions(), LogOptions(min_rating=2)])
def test_ratings_that_are_no_numbers(tmp_path, tiny, kept):
    log = write(tmp_path / "log.csv", RATED)
    with spool_beside(tmp_path / "out") as spool:
        told = read_tables(log, spool)
        domain = domain_of_log(told, kept)
    assert rows(domain) == [("u", list("ad" if kept.min_rating else "abcdefg"))]
    assert told.dropped == {"unreadable_ratings_of_log.csv": 2}
    (sample,) = told.samples.values()
    assert sample == "log.csv, row 3: rating 'good' of user 'u', item 'c' (expected a number)"
    if kept.min_rating:
        assert domain.dropped["interactions_without_a_rating"] == 4  # b, c, e, g
        assert domain.dropped["interactions_rated_below_2"] == 1
    with pytest.raises(DataError, match=r"log.csv, row 3: rating 'good' of user 'u', item 'c'.*--strict"):
        read(log, strict=True)


@pytest.mark.parametrize(
    "column", [[1, 5, None], [True, None, False], pl.Series(["5", "4", "x"], dtype=pl.Categorical)]
)
def test_ratings_of_other_types(tmp_path, column):
    pl.DataFrame({"user_id": ["u"] * 3, "item_id": list("abc"), "rating": column}).write_parquet(tmp_path / "l.parquet")
    domain = read(tmp_path / "l.parquet")
    assert rows(domain) == [("u", list("abc"))]
    assert domain.dropped.get("unreadable_ratings_of_l.parquet", 0) == {int: 0, bool: 0, str: 1}[type(column[0])]


LATIN = "user_id,item_id\nu,a\nu,café\n".encode("latin-1")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", LATIN, r"log.csv:3: expected UTF-8.*.*f\\\\xe9'; convert it.*iconv -f latin1 -t utf-8"),
        ("log.csv", LATIN + b"u,caf\xe9,more\n", "expected UTF-8"),
        ("log.csv", b"user_id,item_id\nu,b\nu,caf\xe9,more\nu,c\n", "log.csv:3: expected UTF-8"),
        ("log.tsv", b"user_id\titem_id\tprix_\xe9\nu\tb\t1\n", "log.tsv:1: expected UTF-8"),
        ("log.csv.gz", gzip.compress(LATIN, mtime=0), "log.csv.gz:3: expected UTF-8"),
        ("log.csv", "user_id,item_id\nu,a\n".encode("utf-16"), "log.csv:1: expected UTF-8.*iconv -f utf-16 -t utf-8"),
        ("log.csv", b"user_id,item_id\nu,caf\xc3", "log.csv:2: expected UTF-8"),  # the end of a cut file
    ],
)
@pytest.mark.parametrize("block", [24, 2**24])
def test_other_encodings_are_refused(tmp_path, monkeypatch, capfd, name, content, message, block):
    monkeypatch.setattr(table_batches, "BLOCK", block)
    with pytest.raises(DataError, match=message):
        read(write(tmp_path / name, content))
    assert not capfd.readouterr().err  # nothing that pyarrow could not hand on


def test_letters_over_the_border_of_blocks_and_a_byte_order_mark(tmp_path, monkeypatch):
    log = write(tmp_path / "log.csv", b"\xef\xbb\xbf" + "user_id,item_id\nü,é€\nü,ß\n".encode())
    for block in range(24, 40):
        monkeypatch.setattr(table_batches, "BLOCK", block)
        assert rows(read(log)) == [("ü", ["é€", "ß"])]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("log.csv", 'user_id;item_id;price\nu;a;1,5\nu;"b;\nc";2,5\nbroken\n', ";"),
        ("log.csv", 'user_id\titem_id\tprice\nu\ta\t1,5\nu\t"b;\nc"\t2,5\nbroken\tone\n', "\t"),
        ("log.csv", 'user_id|item_id|price\nu|a|1;5\nu|"b;\nc"|2\nbroken|one\n', "|"),
        ("log.tsv", 'user_id,item_id,price\nu,a,15\nu,"b;\nc",2\nbroken,one\n', ","),
    ],
)
def test_another_separator_is_taken_from_the_header_and_told(tmp_path, name, text, found):
    domain = read(write(tmp_path / name, text.replace("b;\nc", "b c")))
    assert rows(domain) == [("u", ["a", "b c"])]
    assert domain.options["separators"] == {name: found}
    assert domain.dropped[f"unreadable_lines_of_{name}"] == 1
    with pytest.raises(DataError, match="one holds a line end"):  # quotes work as with commas
        read(write(tmp_path / name, text))


def test_each_file_has_its_own_separator(tmp_path):
    log = write(tmp_path / "log.csv", "user_id;item_id\nu;a\n")
    items = write(tmp_path / "items.csv", "item_id,text\na,one; two\n")
    domain = read(log, items=items)
    assert domain.items["text"].to_list() == ["one; two"] and domain.options["separators"] == {"log.csv": ";"}
    plain = read(write(tmp_path / "log.csv", "user_id,item_id\nu,a\n"), items=items)
    assert "separators" not in plain.options
