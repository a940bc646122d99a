"""Rows of `datasets`: targets set apart, several domains as one, in an order that the arguments decide."""

from collections import Counter

import polars as pl
import pytest
from datasets import Dataset

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.rows import interleaved, last_as_label


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # 5 s after every stream that ends


@pytest.fixture
def domains(tmp_path):
    made = []
    for name, users in (("large", 60), ("small", 20)):
        rows = [[f"{name}{user}", *"abc"] for user in range(users)]
        times = [[user, user + 1, user + 2, user + 3] for user in range(users)]
        columns = {"user_id": [f"u{user}" for user in range(users)], "item_ids": rows, "timestamps": times}
        items = pl.DataFrame({"item_id": [], "text": []}, schema={"item_id": pl.String, "text": pl.String})
        write_domain(RawDomain(pl.DataFrame(columns), items, reader="test"), tmp_path / name, k_core=0)
        made.append(load_domain(tmp_path / name))
    return made


@pytest.mark.parametrize("streaming", [False, True])
def test_the_target_stands_apart(streaming):
    rows = Dataset.from_dict(
        {"user_id": ["u", "v"], "item_ids": [[4, 5, 6], [7, 8]], "timestamps": [[1, 2, 3], [4, 5]]}
    )
    found = list(last_as_label(rows.to_iterable_dataset() if streaming else rows))
    assert found == [
        {"user_id": "u", "item_ids": [4, 5], "timestamps": [1, 2, 3], "labels": 6},
        {"user_id": "v", "item_ids": [7], "timestamps": [4, 5], "labels": 8},
    ]


@pytest.mark.parametrize("streaming", [False, True])
class TestInterleaved:
    def test_every_row_of_every_domain_comes_and_says_whose_it_is(self, domains, streaming):
        found = list(interleaved(domains, streaming=streaming, times=True, seed=1))
        assert {tuple(row) for row in found} == {("item_ids", "timestamps", "domain")}
        for domain in domains:
            split = domain.split("train")
            own = Counter((tuple(row["item_ids"]), *row["timestamps"]) for row in found if row["domain"] == domain.name)
            there = [(tuple(split[number].tolist()), number, number + 1) for number in range(len(split))]
            assert set(own) == set(there), "every row, with the catalogue's own indices"
        assert len(found) < 1.6 * 80, "in proportion, so that few are read again"

    def test_the_seed_decides_the_order_and_the_epoch_changes_it(self, domains, streaming):
        def order(seed, epoch=0):
            rows = interleaved(domains, "validation", streaming=streaming, seed=seed, buffer_size=8)
            if streaming:
                rows.set_epoch(epoch)
            return [(row["domain"], row["item_ids"][0]) for row in rows]

        assert order(1) == order(1) != order(2)
        assert not streaming or order(1) != order(1, epoch=1)

    def test_temperature_evens_the_shares_out(self, domains, streaming):
        rows = interleaved(domains, streaming=streaming, temperature=1e9, seed=0)
        counts = Counter(row["domain"] for row in rows)
        assert counts["large"] >= 60 and counts["small"] > 40, "the small one is read two or three times"
