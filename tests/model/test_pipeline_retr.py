"""The pipeline answers as the Recommender does, one history, many, streamed; and says what is wrong with an input."""

import pytest
from transformers import pipeline

from retr_hf.model.pipeline_retr import SequentialRecommendationPipeline


@pytest.fixture(scope="module")
def pipe(shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipe")
    shop.recommender().save_pretrained(folder)
    return pipeline("sequential-recommendation", model=str(folder), device="cpu")


HISTORIES = [["item-1"], ["item-2", "item-3", "item-4"], ["item-5", "item-0"]]
INPUTS = [{"history": history} for history in HISTORIES]


def test_one_history(shop, pipe):
    answer, expected = pipe(INPUTS[1], top_k=2), shop.recommender().recommend(HISTORIES[1], k=2)
    assert isinstance(pipe, SequentialRecommendationPipeline)
    assert [(i["item_id"], i["title"]) for i in answer["items"]] == [(i.item_id, i.title) for i in expected.items]
    assert [i["score"] for i in answer["items"]] == pytest.approx([i.score for i in expected.items])
    assert [s["item_id"] for s in answer["pathway"]] == HISTORIES[1]
    assert [s["kept"] for s in answer["pathway"]] == [s.kept for s in expected.pathway]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_many_histories(pipe, batch_size):
    one_by_one = [pipe(each, top_k=3) for each in INPUTS]
    for answers in (
        pipe(INPUTS, top_k=3, batch_size=batch_size),
        list(pipe((each for each in INPUTS), top_k=3, batch_size=batch_size)),
    ):
        assert [[i["item_id"] for i in a["items"]] for a in answers] == [
            [i["item_id"] for i in a["items"]] for a in one_by_one
        ]
        assert [len(a["pathway"]) for a in answers] == [1, 3, 2]


def test_what_may_be_asked(pipe):
    everything = pipe(INPUTS[0], top_k=50, exclude_seen=False, pathway=False)
    assert len(everything["items"]) == 9 and everything["pathway"] == []
    chosen = pipe(INPUTS[0], candidates=["item-7", "item-1", "item-3"])["items"]
    order = [i["item_id"] for i in everything["items"] if i["item_id"] in ("item-7", "item-3")]
    assert [i["item_id"] for i in chosen] == order  # seen ones are left out of the candidates too


def test_why_the_best_item_is_recommended(shop, pipe):
    one, many = pipe(INPUTS[1], why=True), pipe(INPUTS, why=True, batch_size=2)
    expected = shop.recommender().why(HISTORIES[1], one["items"][0]["item_id"])
    assert [(r["item_id"], r["title"]) for r in one["why"]] == [(r.item_id, r.title) for r in expected]
    assert [r["weight"] for r in one["why"]] == pytest.approx([r.weight for r in expected], abs=1e-5)
    assert [[r["item_id"] for r in answer["why"]] for answer in many] == [[], *HISTORIES[1:]]
    assert pipe(INPUTS[1], why=True, candidates=["item-3"])["why"] == []  # nothing is left to explain
    assert "why" not in pipe(INPUTS[1])


@pytest.mark.parametrize(
    ("question", "arguments", "message"),
    [
        (["item-1"], {}, r"expected \{\"history\": \[item ids"),
        ({"items": ["item-1"]}, {}, r"got a dict of \['items'\]"),
        ({"history": ["nobody's"]}, {}, "at least one item of the catalogue"),
        ({"history": ["item-1"]}, {"k": 3}, "k: expected one of top_k"),
        ({"history": ["item-1"]}, {"candidates": ["item-1", "?"]}, r"ids of the catalogue, got \['\?'\]"),
        ({"history": ["item-1"]}, {"candidates": []}, "got none"),
        ([], {}, "or a list of such dicts, got an empty list"),
        ({"history": "item-1"}, {}, "expected a list of item ids, got the string 'item-1'"),
        ({"history": 5}, {}, "expected a list of item ids, oldest first, .* got int 5"),
        ({"history": [["item-1"]]}, {}, "got lists in a history"),
        ([{"history": ["item-1"]}], {"batch_size": 0}, "batch_size=0: expected at least 1"),
    ],
)
def test_wrong_questions(pipe, question, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(question, **arguments)


def test_a_pipeline_needs_a_model_and_a_catalogue(shop):
    with pytest.raises(ValueError, match="needs model=, a model folder or a repository"):
        pipeline("sequential-recommendation")
    with pytest.raises(ValueError, match="pass processor="):
        SequentialRecommendationPipeline(shop.recommender().model)
