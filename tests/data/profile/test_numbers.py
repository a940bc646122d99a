"""The numbers of a look, against plain loops and hand arithmetic."""

import numpy as np
import polars as pl
import pytest

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.profile.domain_profile import profile_domain
from retr_hf.data.profile.events import open_events
from retr_hf.data.profile.near_texts import nearest
from retr_hf.data.profile.part import Part
from retr_hf.data.readers.raw import RawDomain


def domain_of(folder, histories, times=None, items=None, **options):
    columns = {"user_id": [f"u{user}" for user in range(len(histories))], "item_ids": histories}
    columns |= {"timestamps": times} if times else {}
    names = items or sorted({item for history in histories for item in history})
    table = pl.DataFrame({"item_id": names, "text": [f"text of {name}" for name in names]})
    raw = RawDomain(pl.DataFrame(columns), table, reader="tables", options={}, whole_catalogue=items is not None)
    write_domain(raw, folder, k_core=0, num_negatives=1, **options)
    return load_domain(folder)


@pytest.fixture(params=["leave-one-out", "ratio", "global-time"])
def random_domain(tmp_path, request):
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 25, 60)
    histories = [[f"i{item}" for item in draw.integers(0, 12, length)] for length in lengths]
    times = [sorted((1_600_000_000 + 3_600 * draw.integers(0, 40, length)).tolist()) for length in lengths]
    return domain_of(tmp_path / "domain", histories, times, split=request.param), histories, times


def test_histories_are_whole_whatever_the_split(random_domain):
    domain, histories, times = random_domain
    events = open_events(domain)
    names = np.array(["", *events.item_ids])
    assert len(events.users) == len(set(events.users))
    seen = {}
    for row, user in enumerate(events.users):
        number = int(user[1:])
        seen[number] = names[events.whole[row]].tolist()
        assert seen[number] == histories[number][: len(seen[number])]
    # by time a user whose only interaction comes late is in no split; nobody else is cut
    whole = [number for number in seen if len(seen[number]) == len(histories[number])]
    assert len(whole) == len(seen) >= 55
    assert domain.statistics["interactions"] == len(events.whole.item_ids)


def test_counts_of_histories_and_targets_by_loops(random_domain):
    domain, _, _ = random_domain
    profile, events = profile_domain(domain), open_events(domain)
    repeated = same_again = identical = total = 0
    for row in range(len(events.whole)):
        history = events.whole[row].tolist()
        start = events.whole.offsets[row]
        time = events.whole.timestamps[start : start + len(history)].tolist()
        total += len(history)
        repeated += len(history) - len(set(history))
        same_again += sum(one == other for one, other in zip(history, history[1:], strict=False))
        identical += len(history) - len(set(zip(history, time, strict=True)))
    assert profile.histories.repeated == Part(repeated, total)
    assert profile.histories.same_again == Part(same_again, total - len(events.whole))
    assert profile.histories.identical == Part(identical, total)

    train, test = domain.split("train"), domain.split("test")
    trained = set(train.item_ids.tolist())
    rows = [test[row].tolist() for row in range(len(test))]
    assert profile.targets.cold["test"].count == sum(row[-1] not in trained for row in rows)
    assert profile.targets.seen["test"] == Part(sum(row[-1] in row[:-1] for row in rows), len(rows))
    assert profile.targets.last["test"].count == sum(row[-1:] == row[-2:-1] for row in rows)
    back = [row[:-1][::-1].index(row[-1]) + 1 if row[-1] in row[:-1] else 0 for row in rows]
    ranges = [(1, 1), (2, 5), (6, 20), (21, 999), (0, 0)]
    assert profile.targets.places.tolist() == [sum(low <= steps <= high for steps in back) for low, high in ranges]
    assert profile.times.leaking.count == domain.statistics["leaking_train_events"]


def test_popularity_by_hand(tmp_path):
    # 4 a, 3 b, 2 c, 1 d of ten interactions, e never; train (all but the last two): a a b | a a b
    histories = [list("aabbc"), list("aabcd")]
    popularity = profile_domain(domain_of(tmp_path / "domain", histories, items=list("abcde"))).popularity
    assert popularity.ranks.tolist() == [1, 2, 3, 4] and popularity.counts.tolist() == [4, 3, 2, 1]
    # Lorenz curve at 0, 20, 40, 60, 80, 100 %: 0, 0, .1, .3, .6, 1; area .2 (0 + .1 + .3 + .6 + 1 / 2) = .3
    assert np.allclose(popularity.interactions[::40], [0, 0, 0.1, 0.3, 0.6, 1])
    assert popularity.gini == pytest.approx(1 - 2 * 0.3)
    assert (popularity.head, popularity.head_items.count) == (Part(4, 10), 1)  # at least one item
    assert popularity.untouched == Part(1, 5)
    assert popularity.top == Part(4, 4)  # five items: all are among the ten
    assert popularity.examples[0] == "item a “text of a”: 4 interactions"


def test_times_fall_into_bins_of_their_split(tmp_path):
    day = 86_400
    times = [[0, 40 * day, 100 * day, 101 * day], [0, 1, 70 * day, 130 * day]]
    start = int(np.datetime64("2020-01-01", "s").astype(np.int64))
    times = [[start + time for time in history] for history in times]
    profile = profile_domain(domain_of(tmp_path / "domain", [list("abcd"), list("dcba")], times)).times
    # days 0, 40, 70, 100, 101, 130 of 2020 are in January, February, March, April, April, May
    assert profile.unit == "month" and profile.bins.astype(str).tolist() == [f"2020-0{month}" for month in range(1, 6)]
    assert {name: counts.tolist() for name, counts in profile.counts.items()} == {
        "train": [3, 1, 0, 0, 0], "validation": [0, 0, 1, 1, 0], "test": [0, 0, 0, 1, 1],
    }  # fmt: skip
    assert profile.leaking == Part(0, 4)  # train ends on day 40, the first target is on day 70
    assert (str(profile.first), str(profile.last)) == ("2020-01-01T00:00:00", "2020-05-10T00:00:00")


@pytest.mark.parametrize(("span", "unit", "bins"), [(3_600, "hour", 2), (10 * 86_400, "day", 11)])
def test_short_spans_have_finer_bins(tmp_path, span, unit, bins):
    times = [[1_577_836_800, 1_577_836_800, 1_577_836_800 + span]]
    profile = profile_domain(domain_of(tmp_path / "domain", [list("abc")], times)).times
    assert (profile.unit, len(profile.bins)) == (unit, bins)


def test_the_nearest_by_brute_force_in_blocks(monkeypatch):
    from retr_hf.data.profile import near_texts

    monkeypatch.setattr(near_texts, "_QUERIES", 7)
    monkeypatch.setattr(near_texts, "_ITEMS", 11)
    vectors = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32) + 3
    rows = np.setdiff1d(np.arange(60), [4, 17])
    found = nearest(vectors, rows)
    directions = vectors[rows] - vectors[rows].mean(0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = directions @ directions.T - 3 * np.eye(len(rows))
    assert found.asked.tolist() == rows.tolist()
    assert found.other.tolist() == rows[cosines.argmax(1)].tolist()
    assert np.allclose(found.cosine, cosines.max(1), atol=1e-6)

    sample = nearest(vectors, rows, most_products=10 * len(rows) * 5)
    place = np.searchsorted(rows, sample.asked)
    assert len(sample.asked) == 10 == len(set(sample.asked.tolist()))
    assert np.allclose(sample.cosine, found.cosine[place], atol=1e-6)


def test_vectors_that_are_all_the_same_have_no_direction():
    found = nearest(np.ones((3, 4), np.float32), np.arange(3))
    assert found.cosine.tolist() == [0, 0, 0]


def test_parts_read_as_they_are():
    assert str(Part(1234, 5678)) == "1,234 of 5,678 (21.7 %)"
    assert [Part(count, 10_000).percent for count in (0, 1, 9999, 10_000)] == [
        "0.0 %",
        "< 0.1 %",
        "> 99.9 %",
        "100.0 %",
    ]
    assert Part(0, 0).share == 0


def test_users_too_few_to_test_and_a_domain_of_one_item(tmp_path):
    profile = profile_domain(domain_of(tmp_path / "domain", [["a"], ["a", "a"]]))
    assert profile.targets.rows == {"train": 2, "validation": 0, "test": 0}
    assert profile.targets.cold["test"] == Part(0, 0) and profile.targets.places.sum() == 0
    assert profile.popularity.gini == 0 and profile.histories.twins == Part(0, 0)
