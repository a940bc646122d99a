"""A prepared domain as atomic files: the bytes by hand, and what cannot be written."""

import polars as pl
import pytest

from retr_hf.data.atomic_export import write_atomic
from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.errors import DataError

ITEMS = pl.DataFrame({"item_id": ["a", "b", "c", "d"], "text": ["A\tx", "B", "", "D"]})


def domain(tmp_path, sequences=(("u1", list("abcda")), ("u2", list("ba"))), times=True, items=ITEMS, **options):
    columns = {"user_id": [user for user, _ in sequences], "item_ids": [items for _, items in sequences]}
    if times:
        columns["timestamps"] = [list(range(10, 10 + len(items))) for _, items in sequences]
    raw = RawDomain(pl.DataFrame(columns), items, reader="test", whole_catalogue=True)
    write_domain(raw, tmp_path / "d", k_core=0, **options)
    return load_domain(tmp_path / "d")


def test_unisrec_files_by_hand(tmp_path):
    write_atomic(domain(tmp_path), tmp_path / "out", "X", longest_history=2)
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    assert files == {
        "X.train.inter": header + "0\t0 1\t2\n0\t0\t1\n1\t1\t0\n",  # longest first, as UniSRec's script writes
        "X.valid.inter": header + "0\t1 2\t3\n",  # cut at the last two
        "X.test.inter": header + "0\t2 3\t0\n",
        "X.item2index": "a\t0\nb\t1\nc\t2\nd\t3\n",
        "X.user2index": "u1\t0\nu2\t1\n",
        "X.text": "item_id:token\ttext:token_seq\na\tA x\nb\tB\nc\t\nd\tD\n",
    }


@pytest.mark.parametrize("times", [True, False])
def test_recbole_files_by_hand(tmp_path, times):
    write_atomic(domain(tmp_path, times=times), tmp_path / "out", "X", style="recbole")
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    first = 10 if times else 0
    log = [("u1", item, first + place) for place, item in enumerate("abcda")]
    log += [("u2", item, first + place) for place, item in enumerate("ba")]
    assert files == {
        "X.inter": "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"{u}\t{i}\t{t}\n" for u, i, t in log),
        "X.item": "item_id:token\ttext:token_seq\na\tA x\nb\tB\nc\t\nd\tD\n",
    }


def test_what_cannot_be_written(tmp_path):
    whole = domain(tmp_path)
    with pytest.raises(DataError, match="expected one of unisrec, recbole; got 'csv'"):
        write_atomic(whole, tmp_path / "out", "X", style="csv")
    with pytest.raises(DataError, match="new or empty folder"):
        write_atomic(whole, tmp_path / "d", "X")
    tabbed = pl.DataFrame({"item_id": ["a\tb", "c", "d"], "text": ["", "", ""]})
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"item ids without tabs.*a\\tb"):
        write_atomic(domain(tmp_path / "other", [("u", ["a\tb", "c", "d"])], items=tabbed), tmp_path / "out", "X")
    (tmp_path / "ratio").mkdir()
    many = domain(tmp_path / "ratio", [("u", list("abcdabcdab"))], split="ratio", fractions=(0.6, 0.2, 0.2))
    with pytest.raises(DataError, match="a ratio split cannot be written"):
        write_atomic(many, tmp_path / "out", "X")
    assert not (tmp_path / "out").exists()
