"""Whole histories out of the splits, against the log that was split."""

import polars as pl
import pytest

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.splits import GLOBAL_TIME, LEAVE_ONE_OUT, RATIO
from retr_hf.data.whole_histories import whole_histories

LOG = {"u9": "abcdefgh", "u1": "ba", "u5": "cabdaeaf", "u2": "d", "u7": "hgfedc"}


def as_raw():
    times = [[100 * len(items) + 10 * step for step in range(len(items))] for items in LOG.values()]
    sequences = {"user_id": list(LOG), "item_ids": [list(items) for items in LOG.values()], "timestamps": times}
    return RawDomain(pl.DataFrame(sequences), pl.DataFrame({"item_id": list("abcdefgh"), "text": ""}), "test")


def histories_of(folder):
    domain = load_domain(folder)
    users, histories = whole_histories(domain)
    ids = domain.catalog(embeddings=False).item_ids
    return {user: "".join(ids[row - 1] for row in histories[place]) for place, user in enumerate(users)}


@pytest.mark.parametrize("way", [LEAVE_ONE_OUT, RATIO, GLOBAL_TIME])
def test_every_split_gives_the_log_back(tmp_path, way):
    write_domain(as_raw(), tmp_path / "shop", k_core=0, num_negatives=2, split=way, fractions=(0.5, 0.2, 0.3))
    assert histories_of(tmp_path / "shop") == LOG
    users, histories = whole_histories(load_domain(tmp_path / "shop"))
    assert histories.timestamps.tolist() == [
        100 * len(LOG[user]) + 10 * step for user in users for step in range(len(LOG[user]))
    ]
    if way == LEAVE_ONE_OUT:
        assert list(histories_of(tmp_path / "shop")) == list(LOG), "in the order of the log"


def test_rows_that_a_source_has_cut_to_one_length_give_the_newest(tmp_path):
    rows = {"user_id": ["u", "u", "u"], "split": ["train", "validation", "test"],
            "item_ids": [list("abc"), list("bcd"), list("cde")]}  # fmt: skip
    items = pl.DataFrame({"item_id": list("abcde"), "text": ""})
    write_domain(RawDomain(pl.DataFrame(rows), items, "test"), tmp_path / "shop", num_negatives=1)
    assert histories_of(tmp_path / "shop") == {"u": "cde"}


def test_a_domain_without_test_rows(tmp_path):
    frame = pl.DataFrame({"user_id": ["u", "v"], "item_ids": [list("ab"), list("b")]})
    items = pl.DataFrame({"item_id": ["a", "b"], "text": ""})
    write_domain(RawDomain(frame, items, "test"), tmp_path / "shop", k_core=0, num_negatives=1)
    assert histories_of(tmp_path / "shop") == {"u": "ab", "v": "b"}
