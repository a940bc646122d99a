"""The recommender: best items first, seen ones left out, and the pathway behind them."""

import numpy as np
import pandas as pd
import pytest
import torch

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommendation import Recommendation
from retr_hf.model.recommender import Recommender

IDS = [f"item-{number}" for number in range(12)]


def catalogue(count=12, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    ids = IDS if seed == 0 else [f"other-{number}" for number in range(count)]
    return ItemCatalog(ids, [f"title of {item}" for item in ids], vectors, {"encoder": "test", "revision": "1"})


def model(router="pathway", **changes):
    torch.manual_seed(0)
    config = RetrConfig(
        hidden_size=16, num_attention_heads=2, text_size=8, router=router, text_encoder="test@1",
        **{"max_position_embeddings": 4, **changes},
    )  # fmt: skip
    return RetrForSequentialRecommendation(config)


def test_items_are_sorted_and_scores_are_the_models():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    answer = recommender.recommend(IDS[:3], k=12, exclude_seen=False)
    assert len(answer.items) == 12 and len({item.item_id for item in answer.items}) == 12
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    batch = recommender.processor(IDS[:3])
    logits = recommender.model(**batch, text_embeddings=recommender.processor.item_table()).logits[0]
    for item in answer.items:
        assert item.score == pytest.approx(logits[IDS.index(item.item_id) + 1].item(), abs=1e-5)
        assert item.title == f"title of {item.item_id}"


@pytest.mark.parametrize("terms", [[], ["text_path"], ["repeat_term"], ["transition_memory"]], ids="".join)
def test_vectors_tell_the_score_unless_the_head_adds_to_it(terms):
    """What README's "Export vectors" says, and whom it excepts."""
    changes = {name: value for name, value in TERMS.items() if name in terms or name not in OURS}
    decided = model(initializer_range=0.3, repeat_term_start=0.5, **changes)
    if decided.transition_memory is not None:
        decided.transition_memory.count(np.arange(1, 11), range(0, 11, 5))
    recommender = Recommender(decided, RetrProcessor(catalogue(), 4))
    batch, table = recommender.processor([IDS[:3], IDS[2:4]]), recommender.item_embeddings
    with torch.no_grad():
        users = decided.encode_users(**batch, item_embeddings=table)
        apart = users @ decided.candidate_vectors(table)[1:].T - decided(**batch, item_embeddings=table).logits[:, 1:]
    assert decided.adds_scores == ("repeat_term" in terms or "transition_memory" in terms)
    assert (float(apart.abs().max()) > 1e-2) == decided.adds_scores


def test_items_without_text_are_called_by_their_ids():
    known = catalogue()
    texts = [
        "" if item in IDS[:2] else " " if item == IDS[5] else text for item, text in zip(IDS, known.texts, strict=True)
    ]
    blank = ItemCatalog(IDS, texts, known.embeddings, {"encoder": "test", "revision": "1"})
    recommender = Recommender(model(), RetrProcessor(blank, 4))
    answer = recommender.recommend(IDS[:3], k=12, exclude_seen=False)
    titles = {item.item_id: item.title for item in answer.items}
    assert [titles[item] for item in (IDS[1], IDS[5], IDS[6])] == [IDS[1], IDS[5], "title of item-6"]
    assert [step.title for step in answer.pathway] == [IDS[0], IDS[1], "title of item-2"]
    lines = [line.split(maxsplit=1)[1] for line in str(answer).splitlines()[:-1]]
    assert "item-5" in lines and "title of item-6 [item-6]" in lines


def test_seen_items_are_left_out_also_those_too_old_to_be_read():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    history = IDS[:7]
    answer = recommender.recommend(history, k=12)
    assert {item.item_id for item in answer.items} == set(IDS[7:])
    assert [step.item_id for step in answer.pathway] == history[-4:]


@pytest.mark.parametrize(("direction", "reads"), [("causal", 4), ("bidirectional", 3)])
def test_a_processor_without_a_length_reads_as_much_as_the_model_does(tmp_path, direction, reads):
    """Of the four places of a bidirectional one the last is the [mask]'s. Another catalogue changes nothing."""
    given = Recommender(model(direction=direction), RetrProcessor(catalogue(), reads))
    told = Recommender(model(direction=direction), RetrProcessor(catalogue()))
    told.save_pretrained(tmp_path / "model")
    RetrProcessor(catalogue(), 2).save_pretrained(tmp_path / "other")
    opened = [Recommender.from_pretrained(tmp_path / "model", *other) for other in ([], [tmp_path / "other"])]
    answer = given.recommend(IDS[:9])
    assert [step.item_id for step in answer.pathway] == IDS[9 - reads : 9]
    for each in (told, *opened):
        assert each.processor.max_length == reads and each.recommend(IDS[:9]) == answer


def test_two_models_share_a_processor():
    processor = RetrProcessor(catalogue())
    short, long = Recommender(model(), processor), Recommender(model(max_position_embeddings=9), processor)
    assert processor.max_length is None
    assert short.processor.max_length == 4 and long.processor.max_length == 9
    assert len(long.recommend(IDS[:9]).pathway) == 9


def test_pathway_is_what_the_router_decided():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    for layer in recommender.model.model.layers:
        torch.nn.init.constant_(layer.router.keep_mlp[-1].bias, -9.0)
    answer = recommender.recommend(IDS[:3])
    assert [step.kept for step in answer.pathway] == [(False, False)] * 3
    assert all(alpha < 0.01 for step in answer.pathway for alpha in step.keep_probabilities)
    assert "on the pathway 0 of 3" in str(answer)
    assert Recommender(model("none"), RetrProcessor(catalogue(), 4)).recommend(IDS[:3]).pathway == []


def test_every_block_shows_its_own_route():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    for layer, bias in zip(recommender.model.model.layers, (9.0, -9.0), strict=True):
        torch.nn.init.constant_(layer.router.keep_mlp[-1].bias, bias)
    steps = recommender.recommend(IDS[:3]).pathway
    assert [step.kept for step in steps] == [(True, False)] * 3 and not any(step.on_pathway for step in steps)


def test_a_batch_equals_its_histories_one_by_one():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    histories = [IDS[:1], IDS[3:9], IDS[5:7]]
    for whole, history in zip(recommender.recommend(histories, k=3), histories, strict=True):
        alone = recommender.recommend(history, k=3)
        assert [item.item_id for item in whole.items] == [item.item_id for item in alone.items]
        assert [step.on_pathway for step in whole.pathway] == [step.on_pathway for step in alone.pathway]


def test_histories_may_come_as_arrays_and_series():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    one, both = recommender.recommend(IDS[:2], k=3), recommender.recommend([IDS[:2], IDS[3:6]], k=3)
    late = pd.Series(IDS[:2], index=[7, 5])  # its label 0 is not its first item
    assert recommender.recommend(late, k=3) == recommender.recommend(np.array(IDS[:2]), k=3) == one
    assert recommender.recommend([late, np.array(IDS[3:6])], k=3) == both
    assert recommender.recommend(pd.Series([IDS[:2], IDS[3:6]], index=[4, 3]), k=3) == both
    assert_same_answers(recommender.session(map(np.array, [IDS[:2], IDS[3:6]])).recommend(k=3), both)
    assert recommender.recommend(IDS[:2], k=3, candidates={IDS[5]}).items[0].item_id == IDS[5]
    texts = Recommender(model(), RetrProcessor(catalogue(), 4, unknown_items="text"))
    assert texts.recommend([late, np.array(IDS[3:6])], k=3) == both


def test_another_catalogue_is_zero_shot(tmp_path):
    model().save_pretrained(tmp_path / "model")
    catalogue().save_pretrained(tmp_path / "model")
    catalogue(30, seed=1).save_pretrained(tmp_path / "other")
    recommender = Recommender.from_pretrained(tmp_path / "model", catalog=tmp_path / "other")
    assert recommender.recommend(["other-3"], k=2).items[0].item_id.startswith("other-")
    own = Recommender.from_pretrained(tmp_path / "model")
    assert own.processor.max_length == 4 and own.recommend(IDS[:2], k=1).items[0].item_id in IDS


def test_wrong_questions():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    for k in (0, "3", 2.0, None, True):
        with pytest.raises(ValueError, match=f"k={k!r}: expected a whole number, at least 1"):
            recommender.recommend(IDS[:2], k=k)
    assert len(recommender.recommend(IDS[:2], k=np.int64(3)).items) == 3
    for history in (None, 5, {"a": 1}, {IDS[0], IDS[1]}, iter(IDS)):
        with pytest.raises(ValueError, match=f"or a list of such lists, got {type(history).__name__}"):
            recommender.recommend(history)
    for candidates, told in ((IDS[5], "the string 'item-5'"), (5, "int 5")):
        with pytest.raises(ValueError, match=f"candidates: expected a list of item ids, got {told}"):
            recommender.recommend(IDS[:2], candidates=candidates)
    with pytest.raises(ValueError, match="empty list"):
        recommender.recommend([])
    with pytest.raises(ValueError, match="item ids are strings, got int 3"):
        recommender.recommend([3, 4])
    with pytest.raises(ValueError, match="got the string"):
        recommender.recommend("item-3", exclude_seen=False)


def test_an_answer_without_pathway():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    session = recommender.session([IDS[:2], IDS[3:6]])
    whole, bare = recommender.recommend([IDS[:2], IDS[3:6]]), session.recommend(pathway=False)
    assert all(answer.pathway for answer in whole) and not any(answer.pathway for answer in bare)
    for answers in (bare, recommender.recommend([IDS[:2], IDS[3:6]], pathway=False)):
        assert_same_answers(answers, [Recommendation(answer.items, []) for answer in whole])


def assert_same_answers(found, wanted):
    for got, want in zip(found, wanted, strict=True):
        assert [(item.item_id, item.title) for item in got.items] == [(item.item_id, item.title) for item in want.items]
        scores = [[item.score for item in answer.items] for answer in (got, want)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
        shown = [[(step.item_id, step.title, step.kept) for step in answer.pathway] for answer in (got, want)]
        assert shown[0] == shown[1]
        alphas = [[alpha for step in answer.pathway for alpha in step.keep_probabilities] for answer in (got, want)]
        assert alphas[0] == pytest.approx(alphas[1], abs=1e-5)


OURS = {"text_path", "repeat_term", "transition_memory"}
TERMS = {"text_path": True, "repeat_term": True, "score_gain": 0.5, "transition_memory": 3}
TERMS |= {"item_features": "text+id", "vocab_size": len(IDS) + 1, "catalog_hash": catalogue().hash}


@pytest.mark.parametrize(
    ("router", "max_length", "changes"),
    [("pathway", 4, {}), ("random", 4, {}), ("none", 4, {}), ("pathway", 3, {}), ("none", 3, TERMS)],
)
def test_a_session_answers_as_the_recommender_does_on_the_whole_histories(router, max_length, changes):
    # Routes that differ between behaviours.
    decided = model(router, initializer_range=0.3, router_init_keep=0.5, **changes)
    if changes:
        decided.transition_memory.count(np.random.default_rng(1).integers(1, 9, 60), range(0, 61, 5))
    recommender, rng = Recommender(decided, RetrProcessor(catalogue(), max_length)), np.random.default_rng(0)
    histories = [IDS[:2], ["nobody's", IDS[4], IDS[4]], IDS[1:6], []]
    session = recommender.session(histories)
    assert_same_answers(
        session.recommend(k=3, users=[2, 0, 1]), recommender.recommend([histories[u] for u in (2, 0, 1)], 3)
    )
    session.append({3: IDS[7]})
    histories[3], kept = [IDS[7]], set()
    for step in range(8):
        items = {int(user): str(rng.choice([*IDS[:8], "unknown"])) for user in rng.permutation(4)[: step % 4 + 1]}
        session.append(items)
        for user, item in items.items():
            histories[user] = [*histories[user], item]
        answers = session.recommend(k=5)
        assert_same_answers(answers, recommender.recommend(histories, k=5))
        kept |= {route for answer in answers for step in answer.pathway for route in step.kept}
    seen_too = {"k": 12, "exclude_seen": False}
    assert_same_answers(session.recommend(**seen_too), recommender.recommend(histories, **seen_too))
    assert kept == (set() if router == "none" else {True, False}) and len(session.histories[2]) > 4


def test_a_session_may_begin_with_nothing():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4))
    session = recommender.session([[], ["unknown"]])
    with pytest.raises(ValueError, match="user 0 has no item of the catalogue yet"):
        session.recommend()
    session.append({0: IDS[1], 1: "unknown too"})
    with pytest.raises(ValueError, match="user 1 has no item"):
        session.recommend(users=[0, 1])
    assert_same_answers(session.recommend(users=[0]), [recommender.recommend([IDS[1]])])
    session.append({})
    assert session.cache.lengths.tolist() == [1, 0]


def test_wrong_sessions():
    recommender = Recommender(model(), RetrProcessor(catalogue(), 4, unknown_items="error"))
    with pytest.raises(ValueError, match="got the string 'item-1'"):
        recommender.session(IDS[1:3])
    with pytest.raises(ValueError, match="1 of 3 items are not in the catalogue"):
        recommender.session([IDS[:2], ["unknown"]])
    with pytest.raises(ValueError, match="expected those of at least one user, got none"):
        recommender.session([])
    for histories, came in ((None, "NoneType None"), ([IDS[:2], None], "NoneType None"), ("item-1", "the string")):
        with pytest.raises(ValueError, match=f"histories: expected a list of .* got {came}"):
            recommender.session(histories)
    session = recommender.session([IDS[:2], []])
    for items, told in (
        ({0: IDS[3], 1: "unknown"}, "not in the catalogue"),
        ({0: IDS[3], 2: IDS[3]}, "numbers from 0 to 1"),
        ({0: 3}, "item ids are strings"),
        ([IDS[3]], r"append: expected {user number: item id}, got list \['item-3'\]"),
        ({"0": IDS[3]}, r"users \['0'\]: expected a list of numbers from 0 to 1"),
        ({0.0: IDS[3]}, r"users \[0.0\]: expected"),
    ):
        with pytest.raises(ValueError, match=told):
            session.append(items)
    for question, told in (({"users": [2]}, "numbers from 0 to 1"), ({"k": 0, "users": [0]}, "k=0")):
        with pytest.raises(ValueError, match=told):
            session.recommend(**question)
    for users in (0, [], [0.0], [True], ["0"], [[0]], torch.tensor([0.0]), np.array([], int), pd.Series([0.5])):
        with pytest.raises(ValueError, match="expected a list of numbers from 0 to 1"):
            session.recommend(users=users)
    for users in (iter([0]), range(1), torch.tensor([0]), np.array([0], np.uint8), pd.Series([0], index=[3])):
        assert session.recommend(users=users, k=1) == session.recommend(users=[0], k=1)
    assert session.histories == [[1, 2], []] and session.cache.lengths.tolist() == [2, 0]
