"""What behaviours do for an item: held against histories scored one at a time, and a world with a known answer."""

import numpy as np
import pandas as pd
import pytest
import torch

from retr_hf.model import occlusion
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.occlusion import behavior_weights
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender

IDS = [f"item-{number}" for number in range(12)]


class Words:
    """An encoder whose vector of a text depends on the text alone."""

    name, revision = "test", "1"

    def encode(self, texts, prompt, normalize):
        return np.stack([np.random.default_rng(len(text)).normal(size=8) for text in texts]).astype(np.float32)


def recommender(padding_side="right", unknown_items="skip", **changes):
    torch.manual_seed(0)
    vectors = np.random.default_rng(0).normal(size=(12, 8)).astype(np.float32)
    catalog = ItemCatalog(IDS, [f"title of {item}" for item in IDS], vectors, {"encoder": "test", "revision": "1"})
    config = RetrConfig(
        hidden_size=16, num_attention_heads=2, text_size=8, text_encoder="test@1", initializer_range=0.4,
        **{"max_position_embeddings": 4, **changes},
    )  # fmt: skip
    processor = RetrProcessor(catalog, 4, unknown_items, padding_side=padding_side)
    return Recommender(RetrForSequentialRecommendation(config), processor)


def log_probability(served, history, item):
    logits = served.model(**served.processor(history), item_embeddings=served.item_embeddings).logits[0, 1:]
    return logits.log_softmax(-1)[IDS.index(item)].item()


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"router": "none"},
        {"direction": "bidirectional", "router": "none"},
        {"repeat_term": True},
    ],
    ids=["pathway", "no router", "bidirectional", "repeat term"],
)
def test_a_weight_is_the_log_probability_that_is_lost_without(side, changes):
    served, history = recommender(side, **changes), [IDS[3], IDS[7], IDS[1]]
    reasons = served.why(history, IDS[9])
    assert [(reason.item_id, reason.title) for reason in reasons] == [(item, f"title of {item}") for item in history]
    whole = log_probability(served, history, IDS[9])
    for place, reason in enumerate(reasons):
        without = log_probability(served, history[:place] + history[place + 1 :], IDS[9])
        assert reason.weight == pytest.approx(whole - without, abs=1e-5)
    assert len({round(reason.weight, 3) for reason in reasons}) == 3


@pytest.mark.parametrize("limit", [("SCORES_AT_ONCE", 2 * 13), ("TOKENS_AT_ONCE", 5)])
def test_many_histories_in_pieces_are_each_alone(monkeypatch, limit):
    served = recommender()
    windows = [np.array(window) for window in ([1, 2], [5, 3, 3, 8], [12, 4, 9])]
    arguments = served.model, served.item_embeddings
    together = behavior_weights(*arguments, windows, [7, 1, 2], served.processor.pad, 4)
    monkeypatch.setattr(occlusion, *limit)
    in_pieces = behavior_weights(*arguments, windows, [7, 1, 2], served.processor.pad, 4)
    alone = [
        behavior_weights(*arguments, [window], [item], served.processor.pad, 4)[0]
        for window, item in zip(windows, [7, 1, 2], strict=True)
    ]
    assert [len(weights) for weights in together] == [2, 4, 3]
    for weights in zip(together, in_pieces, alone, strict=True):
        np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)
        np.testing.assert_allclose(weights[0], weights[2], atol=1e-5)


def test_the_behaviour_that_decides_weighs_most():
    """Items 1 and 5 stand beside one another in every history, and nothing else speaks."""
    served = recommender(item_features="id", vocab_size=13, transition_memory=4, score="cosine", temperature=1.0)
    served.model.transition_memory.count(np.array([2, 6] * 20), np.arange(0, 41, 2))
    reasons = served.why([IDS[1], IDS[8], IDS[10]], IDS[5])
    weights = {reason.item_id: reason.weight for reason in reasons}
    assert weights.pop(IDS[1]) > 0 and max(weights.values()) < 0


def test_the_best_new_item_is_explained_and_the_window_is_what_is_read():
    served = recommender()
    history = [IDS[place] for place in (0, 2, 4, 6, 8, 10)]
    best = served.recommend(history, k=1).items[0].item_id
    assert served.why(history) == served.why(history, best)
    for place, reason in zip(range(2, 6), served.why(history), strict=True):
        without = history[:place] + history[place + 1 :]  # into whose window an older item comes
        lost = log_probability(served, history, best) - log_probability(served, without, best)
        assert reason.weight == pytest.approx(lost, abs=1e-5)
    assert len(served.why(pd.Series(history))) == 4
    assert str(served.why(history)[0]).endswith(f"title of {IDS[4]} [{IDS[4]}]")


def test_a_text_in_the_history_has_a_weight_too():
    served = recommender(unknown_items="text")
    served.processor.text_encoder = Words()
    reasons = served.why([IDS[2], "a text nobody has seen", IDS[5]], IDS[0])
    assert reasons[1].item_id == reasons[1].title == "a text nobody has seen" and reasons[1].weight != 0


def test_what_cannot_be_explained_is_refused_in_words():
    served = recommender()
    for history, item, words in [
        ([IDS[1]], None, "1 of 1 histories are of one behaviour"),
        ([IDS[1], "nobody's"], IDS[3], "1 of 1 histories are of one behaviour"),
        (IDS[:3], "nobody's", r"item_id: expected ids of the catalogue, got \[\"nobody's\"\]"),
        ([IDS[:2], IDS[:3]], None, "got several: call once for each"),
        (IDS, None, "nothing is left to recommend"),
        ([], None, "empty list"),
    ]:
        with pytest.raises(ValueError, match=words):
            served.why(history, item)
    assert len(served.why(IDS, IDS[3])) == 4
    with pytest.raises(ValueError, match="router_sampling=True draws other routes at every call"):
        recommender(router_sampling=True).why(IDS[:3], IDS[5])
