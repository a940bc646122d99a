"""Kinds of behaviours and what a router keeps of each, counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from retr_hf.evaluation.histories import Routings
from retr_hf.evaluation.route_profile import by_age, by_popularity

# Two users; behaviours at places 0, 1, 2 and 4, 5; the last item of each row is the target.
ROWS = SimpleNamespace(item_ids=np.array([1, 2, 3, 9, 1, 4, 9], np.int32), offsets=np.array([0, 4, 7]))
COUNTS = np.array([0, 50, 3, 3, 7, 0, 0, 0, 0, 100])


def found(places, *routes):
    routes = np.array(routes, np.float32)
    return Routings(routes, routes / 2 + 0.25, np.ones_like(routes), np.array(places))


def test_by_age_the_last_before_the_target_is_1():
    parts = by_age(found([5, 0, 2, 1, 4], [1, 0, 0, 1, 1], [1, 0, 0, 0, 1]), ROWS)
    assert [(part.label, part.behaviours, part.kept) for part in parts] == [
        ("1", 2, [0.5, 0.5]),
        ("2", 2, [1.0, 0.5]),
        ("3", 1, [0.0, 0.0]),
    ]
    assert parts[0].keep_probability == [0.5, 0.5]


def test_old_behaviours_share_a_part():
    rows = SimpleNamespace(item_ids=np.ones(80, np.int32), offsets=np.array([0, 80]))
    parts = by_age(found(range(79), np.arange(79) >= 70), rows)  # the nine last ones
    assert [(part.label, part.behaviours) for part in parts] == [
        ("1", 1), ("2", 1), ("3", 1), ("4", 1), ("5", 1), ("6-10", 5), ("11-20", 10), ("21-50", 30), ("51-79", 29),
    ]  # fmt: skip
    assert parts[5].kept == [0.8] and parts[6].kept == [0.0]


def test_by_popularity_one_item_is_in_one_part():
    parts = by_popularity(found([0, 1, 2, 4, 5], [1, 0, 0, 1, 0]), ROWS, COUNTS)
    assert [(part.label, part.behaviours, part.kept) for part in parts] == [
        ("3", 2, [0.0]),
        ("7", 1, [0.0]),
        ("50", 2, [1.0]),
    ]


def test_by_popularity_parts_are_fifths_of_the_behaviours():
    rng = np.random.default_rng(0)
    items = rng.integers(1, 1001, 5001).astype(np.int32)
    rows = SimpleNamespace(item_ids=items, offsets=np.array([0, len(items)]))
    counts = np.arange(1001)  # an item's number is its popularity
    parts = by_popularity(found(range(5000), items[:5000] > 600), rows, counts)
    assert [part.behaviours for part in parts] == pytest.approx([1000] * 5, abs=20)
    assert sum(part.behaviours for part in parts) == 5000
    assert parts[0].label.startswith("1-") and parts[-1].label.endswith("-1000")
    assert parts[0].kept == [0.0] and parts[-1].kept == [1.0]
