"""Every finding fires on a domain made to have the fault, with figures counted by hand, and on no other."""

import re
from collections import Counter

import numpy as np
import pytest

from retr_hf.data.profile.domain_profile import profile_domain
from retr_hf.data.profile.findings import NOTE, advice_on_seen_items, findings
from retr_hf.model.item_catalog import ItemCatalog

LEAK = {"future-in-training"}  # leave-one-out has it always
START, DAY = 1_500_000_000, 86_400


def found(domain):
    return {finding.kind: finding for finding in findings(profile_domain(domain))}


def identical(world):
    for user in range(10):
        for columns in (world.items, world.times):
            columns[f"u{user}"].insert(3, columns[f"u{user}"][2])
    return {"identical-interactions": "10 of 7,240 (0.1 %) interactions have the same user, item and second"}


def dates(world):
    for user, times in world.times.items():
        world.times[user] = [time - time % 86_400 for time in times]
    world.items["u0"].insert(3, world.items["u0"][2])
    world.times["u0"].insert(3, world.times["u0"][2])
    return {"dates-without-time": "all times are dates: what a user did on one day is in the order of the file"}


def same_again(world):
    for user in range(0, 1205, 2):  # 603 users
        world.items[f"u{user}"][1] = world.items[f"u{user}"][0]
    return {
        "same-item-again": "603 of 6,025 (10.0 %) steps of histories go to the very same item; it is the target of 0"
    }


def twins(world):
    for user in range(10):
        world.items[f"u{user + 10}"] = world.items[f"u{user}"]
    return {"doubled-users": "20 of 1,205 (1.7 %) users with five or more"}


def heavy_user(world):
    world.items["crawler"] = [f"i{place % 241}" for place in range(700)]
    world.times["crawler"] = [world.times["u0"][0] + place for place in range(700)]
    return {"heavy-user": "one user has 700 of 7,930 (8.8 %) interactions; the median user has 6"}


def nothing_to_train(world):
    for user in range(400):
        for columns in (world.items, world.times):
            del columns[f"u{user}"][3:]
    return {"nothing-to-train": "400 of 1,205 (33.2 %) training rows hold one item"}


def long_histories(world):
    for user in range(10):  # 349 of 400 are never read: 51 are, the target included; 299 with 100, 199 with 200
        world.items[f"u{user}"] = [f"i{(user * 7 + place) % 241}" for place in range(400)]
        world.times[f"u{user}"] = [world.times["u0"][0] + place for place in range(400)]
    told = "never reads 3,490 of 11,170 (31.2 %) interactions; with 100 it is 26.8 %, with 200 17.8 %"
    return {"cut-histories": told}


def popularity(world):
    for items in world.items.values():
        items[0], items[2], items[4] = "i0", "i1", "i0"
    count = Counter(item for items in world.items.values() for item in items)
    head = sum(number for _, number in count.most_common(2))  # 1 % of 241 items
    return {"popularity-collapse": f"{head:,} of 7,230", "targets-seen-before": "1,205 of 1,205 (100.0 %) validation"}


def small_and_even(world):
    """Thirty items drawn uniformly: ten of them are a third of the targets, and nothing is wrong with that."""
    draw = np.random.default_rng(0)
    for items in world.items.values():
        items[:] = [f"i{item}" for item in draw.permutation(30)[:6]]
    world.texts = {f"i{item}": world.texts[f"i{item}"] for item in range(30)}
    return {}


def small_and_uneven(world):
    small_and_even(world)
    for items in world.items.values():
        items[:] = ["i0", items[1].replace("i0", "i1"), "i0", items[3].replace("i0", "i1"), "i0", "i1"]
    told = "3,615 of 7,230 (50.0 %) interactions fall on the most popular items, 1 of 30 (3.3 %), and the 10 most"
    alike = "users with five or more interactions"  # of two items left to choose, many choose the same
    return {"popularity-collapse": told, "targets-seen-before": "100.0 %) validation", "doubled-users": alike}


def untested(world):
    for columns in (world.items, world.times):
        for user in columns:
            del columns[user][2:]
    return {"no-test-rows": "nothing can be measured here; the longest history has 2 interactions"}


def cold(world):
    for user in range(0, 1205, 10):  # 121 users
        world.items[f"u{user}"][-1] = f"new{user}"
        world.texts[f"new{user}"] = f"delta{user} epsilon{user}"
    return {"items-only-in-test": "121 of 1,205 (10.0 %) test and 0 of 1,205 (0.0 %) validation rows, 121 items"}


def few(world):
    world.items = dict(list(world.items.items())[:241])
    return {"few-test-rows": "241 test rows: at HR@10 = 0.1 the 95 % interval is ± 0.038"}  # 1.96 sqrt(.09 / 241)


def seen_before(world):
    for user in range(0, 1205, 10):  # 121 of 2,410 targets: 5.02 %
        world.items[f"u{user}"][-1] = world.items[f"u{user}"][0]
    return {"targets-seen-before": "for 121 of 1,205 (10.0 %) test and 0 of 1,205 (0.0 %) validation"}


def impossible_times(world):
    for user in range(5):
        world.times[f"u{user}"] = [1000 * time for time in world.times[f"u{user}"]]
    return {"impossible-times": "30 of 7,230 (0.4 %) times are before 1990 or after 2099"}


def unordered(world):
    times = world.times["u7"]
    times[1], times[2] = times[2], times[1]
    return {"not-in-order": "1 of 6,025 (< 0.1 %) steps of histories go back"}


def tied(world):
    for times in world.times.values():
        times[1] = times[2] = times[0]
    return {"tied-times": "2,410 of 6,025 (40.0 %) steps of histories take no time"}


def text_missing(world):
    for item in range(24):  # 30 interactions each
        world.texts[f"i{item}"] = ("", " . ", "nan", "N/A")[item % 4]
    return {"text-missing": "24 of 241 (10.0 %) items have no text, 10.0 % of the interactions are theirs"}


def no_text(world):
    world.texts = dict.fromkeys(world.texts, "")
    return {"text-missing": "none of the 241 items has a text"}


def same_text(world):
    for item in range(0, 24, 2):
        world.texts[f"i{item}"] = f"Alpha{item}: BETA."
        world.texts[f"i{item + 1}"] = f" alpha{item}  beta"
    return {"same-text": "24 of 241 (10.0 %) items with a text share it with another, without regard to case and "
            "punctuation: 12 texts, the most frequent of 2 items"}  # fmt: skip


def near_text(world):
    words = " ".join(f"word{n}" for n in range(60))
    for item in range(0, 60, 2):  # of 123 words and pairs of them all but three or four agree
        world.texts[f"i{item}"] = f"zeta{item} {words.replace('word', f'w{item}x')}"
        world.texts[f"i{item + 1}"] = f"eta{item} {words.replace('word', f'w{item}x')}"
    return {"near-duplicate-texts": "60 of 241 (24.9 %) items asked are nearly another: cosine at least 0.95"}


def long_text(world):
    for item in range(24):
        world.texts[f"i{item}"] = " ".join(f"x{item}y{n}" for n in range(257))
    return {"long-texts": "24 of 241 (10.0 %) texts are longer than 256 words"}


FAULTS = [
    identical, dates, same_again, twins, heavy_user, nothing_to_train, long_histories, popularity, small_and_even,
    small_and_uneven, untested, cold, few, seen_before,
    impossible_times, unordered, tied, text_missing, no_text, same_text, near_text, long_text,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_with_its_figures_and_nothing_else(clean, tmp_path, fault):
    expected = fault(clean)
    told = found(clean.write(tmp_path / "domain"))
    assert set(told) - LEAK == set(expected)
    for kind, words in expected.items():
        assert words in told[kind].what
        assert told[kind].remedy


def test_a_clean_domain_has_no_warning(clean, tmp_path):
    (leak,) = findings(profile_domain(clean.write(tmp_path / "domain")))
    # the first target is u0's, on day 4; train rows of the users 0 .. 4 begin before: u0 has 4 such days, u4 none
    assert (leak.kind, leak.level) == ("future-in-training", NOTE)
    assert leak.what.startswith(f"{4 * 1205 - (4 + 3 + 2 + 1):,} of 4,820 (99.8 %) training interactions")


def test_a_clean_domain_split_by_time_has_no_finding_at_all(clean, tmp_path):
    """All users act on the same six days: four train, one validates, one tests."""
    clean.times = {user: [START + DAY * place for place in range(6)] for user in clean.items}
    domain = clean.write(tmp_path / "domain", split="global-time", fractions=(0.7, 0.15, 0.15))
    assert domain.statistics["test_rows"] == 1205
    assert findings(profile_domain(domain)) == []


def test_a_domain_of_ids_without_times_has_neither_finding(clean, tmp_path):
    clean.times = None
    assert found(clean.write(tmp_path / "domain")) == {}


def test_examples_name_what_is_at_fault(clean, tmp_path):
    clean.items["u3"] = clean.items["u2"]
    clean.items["u5"][-1] = "new"
    clean.texts["new"] = "x" * 80
    profile = profile_domain(clean.write(tmp_path / "domain"))
    assert profile.histories.examples["twins"] == ["user u2", "user u3"]
    assert profile.targets.examples["cold"] == ["item new “" + "x" * 59 + "…”"]


def test_vectors_of_the_catalogue_are_asked_where_it_has_some(clean, tmp_path):
    domain = clean.write(tmp_path / "domain")
    vectors = np.random.default_rng(0).standard_normal((241, 64)).astype(np.float32)
    vectors[1:60:2] = vectors[0:60:2] + 0.01
    plain = domain.catalog()
    ItemCatalog(plain.item_ids, plain.texts, vectors, {"encoder": "toy"}).save_pretrained(domain.path)
    told = found(domain)["near-duplicate-texts"]
    assert told.what.startswith("60 of 241 (24.9 %) items asked") and "(toy)" in told.what
    assert told.examples == ("item i0 “alpha0 beta0 gamma0”", "item i1 “alpha1 beta1 gamma1”")


@pytest.mark.parametrize(
    ("read_as", "parts", "remedy"),
    [
        ("ms", 1, "read as ms, and as s these would be possible: .* prepare again with --timestamp-unit s; else drop"),
        ("s", 1000, "read as s, and as ms these .* --timestamp-unit ms; else"),
        ("s", 0, "^drop rows whose time is a placeholder"),
        (None, 1, "^drop rows"),  # a reader without that option
    ],
)
def test_the_unit_that_was_given_is_no_remedy(clean, tmp_path, read_as, parts, remedy):
    given = {"s": 1, "ms": 1000, None: 1000}[read_as]
    clean.times = {user: [time * parts // given for time in times] for user, times in clean.times.items()}
    options = {"timestamp_unit": read_as} if read_as else {}
    told = found(clean.write(tmp_path / "domain", reader_options=options))["impossible-times"].remedy
    assert re.search(remedy, told), told


@pytest.mark.parametrize(("every", "advice"), [(10, "keep seen"), (30, "seen items matter a little"), (200, "leave")])
def test_seen_items_are_kept_where_targets_are_among_them(clean, tmp_path, every, advice):
    for user in range(0, 1205, every):  # 121, 41, 7 of 2,410 targets: 5.02 %, 1.7 %, 0.3 %
        clean.items[f"u{user}"][-1] = clean.items[f"u{user}"][0]
    assert advice_on_seen_items(profile_domain(clean.write(tmp_path / "domain"))).startswith(advice)
