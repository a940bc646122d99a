"""Properties that hold for any log: k-core, order, duplicates, splits, and round trips through files."""

import random
import tempfile
from collections import Counter
from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retr_hf.data.atomic_export import write_atomic
from retr_hf.data.core import k_core_filter
from retr_hf.data.domain import load_domain
from retr_hf.data.log_options import DUPLICATES, LogOptions, domain_of_log
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.atomic import read_atomic
from retr_hf.data.readers.raw import RawDomain, RawLog
from retr_hf.data.readers.recbole import read_recbole
from retr_hf.data.readers.spool import Spool
from retr_hf.data.splits import SPLITS, by_ratio, by_time, leaking_train_events, leave_one_out

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FILES = settings(QUICK, max_examples=12)
EVENTS = st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from("abcdefg"), st.integers(0, 6)), max_size=60)
WORDS = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Z"]), min_size=1, max_size=4)


def frame(events) -> pl.DataFrame:
    schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    return pl.DataFrame(events, schema=schema, orient="row")


def k_core_by_hand(events: list[tuple], k: int) -> list[tuple]:
    """One user or item that is too rare at a time, in an order of its own."""
    events = list(events)
    while True:
        counts = Counter(e[0] for e in events), Counter(e[1] for e in events)
        rare = [e for e in events if counts[0][e[0]] < k or counts[1][e[1]] < k]
        if not rare:
            return events
        events.remove(random.Random(len(events)).choice(rare))


@QUICK
@given(EVENTS, st.integers(1, 5))
def test_k_core_is_the_largest_fixed_point(events, k):
    kept = k_core_filter(frame(events), k)
    assert kept.rows() == k_core_by_hand(events, k)
    assert k_core_filter(kept, k).equals(kept)


@QUICK
@given(EVENTS.filter(bool), st.sampled_from(sorted(DUPLICATES)))
def test_sequences_are_the_log_sorted_stably(events, policy):
    log = RawLog(frame(events).lazy(), None, reader="test")
    made = domain_of_log(log, LogOptions(duplicates=policy))
    expected = {}
    for user in dict.fromkeys(e[0] for e in events):
        mine = sorted((e for e in events if e[0] == user), key=lambda e: e[2])
        if policy == "identical":
            mine = list(dict.fromkeys(mine))
        elif policy == "first":
            mine = [e for place, e in enumerate(mine) if e[1] not in {x[1] for x in mine[:place]}]
        elif policy == "last":
            mine = [e for place, e in enumerate(mine) if e[1] not in {x[1] for x in mine[place + 1 :]}]
        elif policy == "consecutive":
            mine = [e for place, e in enumerate(mine) if place == 0 or e[1] != mine[place - 1][1]]
        expected[user] = ([e[1] for e in mine], [e[2] for e in mine])
    assert {user: (items, times) for user, items, times in made.sequences.iter_rows()} == expected
    assert made.dropped["duplicate_interactions"] == len(events) - sum(len(items) for items, _ in expected.values())


@QUICK
@given(EVENTS.filter(bool), st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.2, 0.3), (0.34, 0.33, 0.33)]))
def test_splits_lose_nothing_and_time_does_not_leak(events, fractions):
    sequences = domain_of_log(RawLog(frame(events).lazy(), None, reader="test")).sequences
    of_user = {user: items for user, items, _ in sequences.iter_rows()}
    for cut in (by_ratio, by_time, lambda rows, _: leave_one_out(rows)):
        splits = cut(sequences, fractions)
        for name in SPLITS:  # every row is a beginning of its user's sequence
            for user, items, times in splits[name].select("user_id", "item_ids", "timestamps").iter_rows():
                assert items == of_user[user][: len(items)] and len(times) == len(items) > (name != "train")
        trained = {user: len(items) for user, items, _ in splits["train"].iter_rows()}
        for name in SPLITS[1:]:  # a target is not trained on
            assert all(len(items) > trained.get(user, 0) for user, items, _ in splits[name].iter_rows())
    ratio = by_ratio(sequences, fractions)  # every interaction trains or is a target (or is a user's first)
    assert ratio["train"]["item_ids"].list.len().sum() + ratio["validation"].height + ratio["test"].height == len(
        events
    )
    assert leaking_train_events(by_time(sequences, fractions)) in (0, None)


@FILES
@given(st.dictionaries(WORDS, st.lists(st.integers(0, 8), min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_atomic_files_give_the_sequences_back(users, data):
    names = data.draw(st.lists(WORDS, min_size=9, max_size=9, unique=True))
    times = data.draw(st.booleans())
    longest = data.draw(st.integers(2, 60))
    columns = {"user_id": list(users), "item_ids": [[names[i] for i in items] for items in users.values()]}
    if times:
        columns["timestamps"] = [list(range(len(items))) for items in users.values()]
    items = pl.DataFrame({"item_id": names, "text": [f"text of {name}" for name in names]})
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_domain(RawDomain(pl.DataFrame(columns), items, "test", whole_catalogue=True), folder / "d", k_core=0)
        domain = load_domain(folder / "d")

        write_atomic(domain, folder / "recbole", "X", style="recbole")
        (folder / "spool").mkdir()
        log = read_recbole(
            [folder / "recbole" / "X.inter"], Spool(folder / "spool"), items=folder / "recbole" / "X.item",
            text_fields=["text"],
        )  # fmt: skip
        back = domain_of_log(log)
        assert dict(back.sequences.select("user_id", "item_ids").iter_rows()) == {
            user: [names[i] for i in items] for user, items in users.items()
        }
        assert log.items.collect()["item_id"].to_list() == names
        assert set(back.items["item_id"]) == {names[i] for items in users.values() for i in items}

        long = {user: items for user, items in users.items() if len(items) >= 3}
        if not any(len(items) >= 4 for items in long.values()):
            return  # nothing to train on: X.train.inter would have no rows
        write_atomic(domain, folder / "unisrec", "X", longest_history=longest)
        back = read_atomic(folder / "unisrec")
        assert back.items.equals(items)
        whole = {user for user, items in users.items() if len(items) - 2 > 1 or len(items) == 2}  # have training rows
        for split, last in (("train", 2), ("validation", 1), ("test", 0)):
            rows = back.sequences.filter(split=split).select("user_id", "item_ids").iter_rows()
            found = {user: sequence for user, sequence in rows}
            expected = {user: [names[i] for i in users[user]] for user in (whole if split == "train" else long)}
            expected = {u: (s[: len(s) - last] if len(s) > 2 else s) for u, s in expected.items()}
            if longest >= 9:
                assert found == expected, split
            else:  # cut histories come back whole where the files can tell; never more than there was
                assert found.keys() == expected.keys()
                assert all(expected[u][-len(s) :] == s for u, s in found.items())
