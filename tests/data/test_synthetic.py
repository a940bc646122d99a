"""The synthetic worlds: their law is in the texts alone, holds everywhere, and the pivotal marks obey it."""

import json

import numpy as np
import polars as pl
import pytest

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import (
    KINDS,
    SOURCE_DOMAINS,
    TARGET_DOMAINS,
    cycle_world,
    oracle_ranks,
    pathway_auc,
    synthetic_world,
    write_world,
)
from retr_hf.data.synthetic_words import BRANDS, OBJECTS, STYLES, THEMES
from retr_hf.errors import DataError
from retr_hf.model.text_encoders import load_encoder


@pytest.fixture(scope="module")
def world():
    return synthetic_world(seed=3)


def theme_and_style(texts):
    """Read off the texts, not off the generator's own labels: brand, style, theme, object."""
    words = [text.split() for text in texts]
    return np.array([word[2] for word in words]), np.array([word[1] for word in words])


def test_same_seed_same_world_other_seed_other_law(world):
    again, other = synthetic_world(seed=3), synthetic_world(seed=4)
    for name, domain in world.items():
        assert domain.texts == again[name].texts
        np.testing.assert_array_equal(domain.item_rows, again[name].item_rows)
        np.testing.assert_array_equal(domain.pivotal, again[name].pivotal)
    assert not np.array_equal(world["garden"].successor, other["garden"].successor)


def test_sizes_and_kinds(world):
    assert list(world) == [*SOURCE_DOMAINS, *TARGET_DOMAINS]
    for name, domain in world.items():
        users, items = (600, 300) if name in SOURCE_DOMAINS else (250, 150)
        assert (domain.num_users, len(domain.texts), len(set(domain.texts))) == (users, items, items)
        lengths = np.diff(domain.offsets)
        assert lengths.min() >= 8
        assert lengths.mean() == pytest.approx(14, abs=1)
        assert {kind: domain.kinds.count(kind) // (users // 3) for kind in KINDS} == dict.fromkeys(KINDS, 1)
        rows = pl.DataFrame({"user": np.repeat(np.arange(users), lengths), "item": domain.item_rows})
        assert rows.is_unique().all(), "a user has no item twice"


def test_domains_share_styles_and_themes_and_nothing_else(world):
    words = {name: {word for text in domain.texts for word in text.split()} for name, domain in world.items()}
    for name, own in words.items():
        assert set(STYLES) | set(THEMES) <= own
        others = set().union(*(words[other] for other in words if other != name))
        assert not set(BRANDS[name]) & others
    assert all(len(set(things[name])) == 8 for things in (BRANDS, OBJECTS) for name in words)


def test_one_law_of_the_texts_holds_in_all_domains(world):
    """The latest pivotal behaviour and the next one have the same style; their themes are the same pair everywhere."""
    follows = {}
    for domain in world.values():
        theme, style = theme_and_style(domain.texts)
        pivotal = np.flatnonzero(domain.pivotal)
        user = np.searchsorted(domain.offsets, pivotal, side="right")
        same_user = user[1:] == user[:-1]
        before, after = domain.item_rows[pivotal[:-1][same_user]], domain.item_rows[pivotal[1:][same_user]]
        np.testing.assert_array_equal(style[before], style[after])
        for one, next_one in set(zip(theme[before], theme[after], strict=True)):
            assert follows.setdefault(one, next_one) == next_one
    assert set(follows) == set(follows.values()) == set(THEMES)
    walk = [THEMES[0]]
    while follows[walk[-1]] != walk[0]:
        walk.append(follows[walk[-1]])
    assert len(walk) == len(THEMES), "one cycle through all themes"


def test_noise_never_has_the_style_of_the_present_interest(world):
    domain = world["camping"]
    user = np.repeat(np.arange(domain.num_users), np.diff(domain.offsets))
    style = domain.styles[domain.item_rows]
    present = style[domain.offsets[1:] - 1]
    np.testing.assert_array_equal(style == present[user], domain.pivotal)


def test_the_three_kinds_of_pathway(world):
    domain = world["garden"]
    gaps = {kind: [] for kind in KINDS}
    for user, kind in enumerate(domain.kinds):
        marks = domain.pivotal[domain.offsets[user] : domain.offsets[user + 1]]
        assert marks[-1] and marks[:-1].sum() >= 3
        positions = np.flatnonzero(marks[:-1])
        gaps[kind].append((np.diff(positions).max(), len(marks) - 2 - positions[-1], positions[0] / len(marks)))
    assert {gap for gap, _, _ in gaps["correlated"]} == {1}, "one burst"
    assert {rest for _, rest, _ in gaps["correlated"]} == {0, 1, 2, 3}, "then up to three others"
    assert max(gap for gap, _, _ in gaps["casual"]) > 2
    assert min(first for _, _, first in gaps["drifted"]) >= 0.35, "nothing pivotal before the interest turned"


def test_drifted_users_leave_an_interest_that_obeys_the_law_too(world):
    domain = world["garden"]
    for user in [user for user, kind in enumerate(domain.kinds) if kind == "drifted"][:50]:
        rows = domain.item_rows[domain.offsets[user] : domain.offsets[user + 1]]
        early = rows[: (len(rows) - 1) // 2]
        style = np.bincount(domain.styles[early]).argmax()
        former = domain.themes[early[domain.styles[early] == style]]
        if len(former) >= 3:  # otherwise two noise behaviours may have won the vote
            np.testing.assert_array_equal(former[1:], domain.successor[former[:-1]])


def test_popularity_is_poor_and_the_optimum_is_one(world):
    for name, domain in world.items():
        popularity = np.bincount(domain.item_rows, minlength=len(domain.texts))
        scores = popularity[domain.item_rows[domain.offsets[1:] - 1]]
        ranks = (popularity >= scores[:, None]).sum(axis=1)
        assert np.mean(ranks <= 10) < 0.15, name
        assert np.mean(oracle_ranks(domain) <= 10) == 1.0, name
        # Chance within a cell of 5 (300 items / 60 cells): the mean rank is (1 + ... + 5) / 5 = 3.
        if name in SOURCE_DOMAINS:
            assert oracle_ranks(domain).mean() == pytest.approx(3, abs=0.2)


def test_the_latest_behaviour_alone_does_not_tell_the_answer(world):
    for domain in world.values():
        assert 0.35 < domain.pivotal[domain.offsets[1:] - 2].mean() < 0.65


def test_the_pathway_can_be_found_from_text(world):
    """Agreement with the mean of the history, the router's own context, tells most pivotal behaviours."""
    domain, encoder = world["camping"], load_encoder("hashing")
    vectors = encoder.encode(domain.texts, prompt="", normalize=True)[domain.item_rows]
    agreement = np.concatenate(
        [
            vectors[first : last - 1] @ vectors[first : last - 1].mean(axis=0)
            for first, last in zip(domain.offsets[:-1], domain.offsets[1:], strict=True)
        ]
    )
    history = np.ones(len(domain.pivotal), dtype=bool)
    history[domain.offsets[1:] - 1] = False
    auc = {}
    for kind in KINDS:
        here = np.repeat(np.array(domain.kinds) == kind, np.diff(domain.offsets))
        auc[kind] = pathway_auc(agreement[here[history]], domain.pivotal[history & here])
    assert min(auc["correlated"], auc["casual"]) > 0.75
    assert auc["drifted"] < min(auc["correlated"], auc["casual"])


def test_pathway_auc_by_hand():
    # Pairs (pivotal, noise): 0.9 beats 0.1 and 0.4; 0.4 beats 0.1 and ties with 0.4 -> (1 + 1 + 1 + 0.5) / 4.
    assert pathway_auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False]) == 3.5 / 4
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, marks = rng.integers(20, size=500) / 20, rng.random(500) < 0.3
    assert pathway_auc(scores, marks) == pytest.approx(metrics.roc_auc_score(marks, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "marks", "message"),
    [
        ([0.1, 0.2], [True], "2 .* for 1 behaviours"),
        ([0.1, np.nan], [True, False], "1 finite"),
        ([0.1, 0.2], [True, True], "2 and 0"),
    ],
)
def test_pathway_auc_refuses(scores, marks, message):
    with pytest.raises(DataError, match=message):
        pathway_auc(scores, marks)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"target_items": 59}, "60 .* got 59"),
        ({"source_items": 4000}, "got 4000"),
        ({"mean_length": 5}, "at least 8"),
        ({"target_users": 0}, "users at least 1"),
        ({"mean_length": 80}, "too few for histories"),
    ],
)
def test_impossible_sizes(sizes, message):
    with pytest.raises(DataError, match=message):
        synthetic_world(**sizes)


def test_cycle_world():
    domain = cycle_world(num_items=5, num_users=40, length=4, seed=1)
    rows = domain.item_rows.reshape(40, 4)
    np.testing.assert_array_equal(rows[:, 1:], (rows[:, :-1] + 1) % 5)
    assert set(rows[:, 0]) == set(range(5)), "every transition occurs in the training part"
    assert len(set(domain.texts)) == 5
    np.testing.assert_array_equal(oracle_ranks(domain), 1)
    with pytest.raises(DataError, match="length 2"):
        cycle_world(length=2)


def test_written_world_is_ten_prepared_domains_that_say_they_are_synthetic(tmp_path):
    sizes = {"source_users": 30, "target_users": 12}
    folders = write_world(tmp_path, seed=5, **sizes)
    assert [folder.name for folder in folders] == [*SOURCE_DOMAINS, *TARGET_DOMAINS]
    expected = synthetic_world(5, **sizes)
    for folder in folders:
        domain, truth = load_domain(folder), expected[folder.name]
        assert domain.provenance["reader"] == "synthetic"
        assert domain.provenance["options"]["target_items"] == 150
        assert "synthetic" in (folder / "README.md").read_text(encoding="utf-8")
        assert domain.catalog(embeddings=False).texts == truth.texts
        marks, kinds = domain.pivotal("test")
        np.testing.assert_array_equal(domain.split("test").item_ids, truth.item_rows + 1)
        np.testing.assert_array_equal(marks, truth.pivotal)
        assert kinds == truth.kinds
        # In training and validation the marks keep their meaning: what decides the user's last item.
        validation, _ = domain.pivotal("validation")
        np.testing.assert_array_equal(validation, np.delete(truth.pivotal, truth.offsets[1:] - 1))
    made = {folder: json.loads((folder / "domain.json").read_text())["provenance"]["created"] for folder in folders}
    write_world(tmp_path, seed=5, **sizes)
    assert made == {folder: load_domain(folder).provenance["created"] for folder in folders}
    with pytest.raises(DataError, match="overwrite"):
        write_world(tmp_path, seed=6, **sizes)


def test_cycle_world_can_be_prepared(tmp_path):
    write_domain(cycle_world(num_items=6, num_users=8, length=5).to_raw({}), tmp_path / "cycle", k_core=0)
    domain = load_domain(tmp_path / "cycle")
    assert (len(domain.split("test")), domain.num_items) == (8, 6)
