"""The index: against sums and sorts by hand, with what a history adds, and on disk."""

import faiss
import numpy as np
import pytest

from retr_hf.errors import DataError
from retr_hf.export.index import KINDS, ItemIndex, recall

ITEMS, WIDTH = 400, 8


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def queries():
    return np.random.default_rng(1).normal(size=(30, WIDTH)).astype(np.float32)


def best(scores, k):
    """Catalogue indices (from 1) and scores of the k highest of each row; -inf is no answer."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, 1)
    return np.where(np.isfinite(values), order + 1, 0), values


def with_history(scores, rows, added):
    """Scores [B, I] after adding, or without, what the histories hold: a loop over users and places."""
    scores = scores.copy()
    for user, history in enumerate(rows):
        for place, item in enumerate(history):
            if item:
                scores[user, item - 1] += -np.inf if added is None else added[user, place]
    return scores


def test_flat_is_exact_and_ids_are_catalogue_indices(vectors, queries):
    found, scores = ItemIndex.build(vectors, "flat").search(queries, 7)
    expected, values = best(queries @ vectors.T, 7)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-5)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
@pytest.mark.parametrize("gives", [True, False])
def test_a_history_is_taken_out_or_scored_anew(vectors, queries, kind, gives):
    rng = np.random.default_rng(2)
    near = np.argsort(-(queries @ vectors.T), axis=1)[:, :3] + 1  # among the answers, and one of them twice
    far = np.argsort(queries @ vectors.T, axis=1)[:, :3] + 1  # never among the answers, unless it is given much
    rows = np.hstack([near, far, near[:, :1], np.zeros((len(queries), 2), np.int64)])
    rows[5] = 0  # no history
    added = rng.normal(scale=20, size=rows.shape).astype(np.float32) if gives else None
    effort = ITEMS if kind == "hnsw" else 100  # enough to find everything
    found, scores = ItemIndex.build(vectors, kind, effort).search(queries, 10, rows, added)
    expected, values = best(with_history(queries @ vectors.T, rows, added), 10)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, values, rtol=1e-4, atol=1e-4)
    if gives:
        assert (found[:, :1] == far).any(), "no far item was brought to the top: the case is not tested"


def test_where_nothing_is_left_the_answer_is_item_0(vectors, queries):
    index = ItemIndex.build(vectors[:3], "flat")
    found, scores = index.search(queries[:1], 9, np.array([[3, 1, 0]]))
    assert found.tolist() == [[2, 0, 0]] and scores[0, 1:].tolist() == [-np.inf, -np.inf]


def test_histories_of_another_integer_type_are_read(vectors, queries):
    index, rows = ItemIndex.build(vectors, "flat"), np.array([[3, 1]], dtype=np.longlong)  # as onnxruntime gives them
    added = np.array([[1000.0, 2000.0]], dtype=np.float32)
    assert index.search(queries[:1], 2, rows, added)[0].tolist() == [[1, 3]]


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_what_is_written_answers_the_same_and_faiss_opens_it(vectors, queries, kind, tmp_path):
    index, rows = ItemIndex.build(vectors, kind), np.full((30, 1), 4)
    index.write(tmp_path / "items.faiss")
    again = ItemIndex.read(tmp_path / "items.faiss", kind)
    for arguments in ((), (rows,), (rows, np.ones((30, 1), np.float32))):
        for ours, theirs in zip(
            index.search(queries, 5, *arguments), again.search(queries, 5, *arguments), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(
        faiss.read_index(str(tmp_path / "items.faiss")).search(queries, 5)[1], index.search(queries, 5)[0]
    )


def test_more_effort_finds_more(vectors, queries):
    exact = ItemIndex.build(vectors, "flat").search(queries, 10)[0]
    little, much = (
        recall(ItemIndex.build(vectors, "ivf", effort).search(queries, 10)[0], exact) for effort in (1, 100)
    )
    assert little < 0.9 and much == 1.0


def test_auto_is_exact_while_the_catalogue_is_small(vectors, monkeypatch):
    monkeypatch.setattr("retr_hf.export.index.FLAT_UP_TO", 300)
    assert ItemIndex.build(vectors[:300]).kind == "flat" and ItemIndex.build(vectors[:301]).kind == "hnsw"


def test_recall_by_hand():
    exact = np.array([[1, 2, 3], [4, 5, 0]])
    assert recall(np.array([[3, 9, 1], [5, 0, 0]]), exact) == 3 / 5  # 0 is no item, neither found nor missed


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda x: ItemIndex.build(x, "tree"), "expected one of " + ", ".join(KINDS)),
        (lambda x: ItemIndex.build(x, "hnsw", 0), "effort 0"),
        (lambda x: ItemIndex.build(x[:0]), "at least one item"),
        (lambda x: ItemIndex.build(x * np.inf), "finite"),
        *(
            (lambda x, k=k: ItemIndex.build(x).search(x[:2], k), f"k={k!r}: expected a whole number, at least 1")
            for k in (0, "3", 2.0, None, True)
        ),
        (lambda x: ItemIndex.build(x).search(x[:2, :3], 1), r"\[B, 8\]"),
    ],
)
def test_mistakes_are_told(vectors, build, told):
    with pytest.raises(DataError, match=told):
        build(vectors)
