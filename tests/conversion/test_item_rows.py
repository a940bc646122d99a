"""RecBole's numbering of items, against a plain walk over the tokens, and where it cannot be known."""

import pytest

from retr_hf.conversion.item_rows import ASK_RECBOLE, tokens_from_file, tokens_from_inter
from retr_hf.errors import DataError

SINGLE = {"benchmark_filename": None, "load_col": {"inter": ["user_id", "item_id"]}, "ITEM_ID_FIELD": "item_id"}


def first_seen(tokens):
    return list(dict.fromkeys(tokens))


def test_split_files_are_read_column_by_column(recbole, atomic):
    base = atomic([[4, 2, 9, 1], [7, 4, 0, 2, 8]])
    # the item column of train, valid, test, then their histories: first the targets, then what was never one
    targets = [2, 0, 4] + [9, 2] + [1, 8]
    histories = [4] + [7, 4, 0][:2] + [7]
    assert tokens_from_inter(base, recbole.settings) == first_seen(map(str, targets + histories))


def test_one_log_is_read_in_the_order_of_the_file(tmp_path):
    lines = ["user_id:token\titem_id:token\tnote:token", "u1\tz\t1", "u2\ta\t2", "u1\ta\t3", "u1\tm\t4", "u0\tz\t5"]
    (tmp_path / "X.inter").write_text("\n".join(lines) + "\n")
    assert tokens_from_inter(tmp_path / "X", SINGLE) == ["z", "a", "m"]
    other = "user_id:token,thing:token\nu1,9\nu1,3\n"
    (tmp_path / "Y.inter").write_text(other)
    config = SINGLE | {"ITEM_ID_FIELD": "thing", "field_separator": ","}
    assert tokens_from_inter(tmp_path / "Y", config) == ["9", "3"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"item_inter_num_interval": "[5,inf)"}, r"item_inter_num_interval='\[5,inf\)' filtered them"),
        ({"user_inter_num_interval": "[5,inf)"}, "user_inter_num_interval"),
        ({"rm_dup_inter": "first"}, "rm_dup_inter='first'"),
        ({"val_interval": {"rating": "[3,inf)"}}, "val_interval"),
        ({"seq_len": {"item_id_list": 5}}, "cut its histories"),
        ({"load_col": None}, "X.item took part in it"),
        ({"benchmark_filename": "train"}, "no list of names"),
        (None, "no settings that tell"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value and next(iter(value))),
)
def test_what_the_files_alone_do_not_tell_is_refused(tmp_path, changed, told):
    (tmp_path / "X.inter").write_text("user_id:token\titem_id:token\nu\ta\n")
    (tmp_path / "X.item").write_text("item_id:token\nb\n")
    assert tokens_from_inter(tmp_path / "X", SINGLE) == ["a"]
    with pytest.raises(DataError, match=told) as error:
        tokens_from_inter(tmp_path / "X", {} if changed is None else SINGLE | changed)
    assert ASK_RECBOLE in str(error.value)


def test_files_that_are_not_what_they_should_be(tmp_path):
    with pytest.raises(DataError, match="X.inter: no such file, but the checkpoint's settings say"):
        tokens_from_inter(tmp_path / "X", SINGLE)
    (tmp_path / "X.inter").write_text("user_id:token\tmovie:token\nu\ta\n")
    with pytest.raises(DataError, match="expected columns item_id, but item_id missing"):
        tokens_from_inter(tmp_path / "X", SINGLE)
    (tmp_path / "X.inter").write_text("user_id:token\titem_id:token\nu\tNA\nu\tb\n")
    with pytest.raises(DataError, match=r"such as \['NA'\] as something else"):
        tokens_from_inter(tmp_path / "X", SINGLE)
    (tmp_path / "X.inter").write_text("")
    with pytest.raises(DataError, match="expected columns separated by"):
        tokens_from_inter(tmp_path / "X", SINGLE)


def test_tokens_of_a_file(tmp_path):
    path = tmp_path / "items.txt"
    path.write_text("[PAD]\nz\na\n")
    assert tokens_from_file(path) == ["z", "a"]
    path.write_text("z\na")
    assert tokens_from_file(path) == ["z", "a"]
    for content, told in (("", "got none"), ("a\n\nb\n", "an empty line"), ("a\nb\na\n", "more than once")):
        path.write_text(content)
        with pytest.raises(DataError, match=told):
            tokens_from_file(path)
    with pytest.raises(DataError, match="no such file"):
        tokens_from_file(tmp_path / "absent.txt")
