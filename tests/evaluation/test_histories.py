"""Grouped evaluation against one history at a time."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.errors import DataError
from retr_hf.evaluation import histories
from retr_hf.evaluation.histories import rank_histories, routings
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation

ITEMS, LENGTH = 40, 6


def sequences(*rows):
    return SimpleNamespace(item_ids=np.concatenate(rows).astype(np.int32), offsets=np.cumsum([0, *map(len, rows)]))


def some_rows(count=60):
    rng = np.random.default_rng(0)
    return [rng.integers(1, ITEMS + 1, length) for length in rng.integers(2, 12, count)]


@pytest.fixture(scope="module", params=["pathway", "none"])
def model(request):
    torch.manual_seed(0)
    config = RetrConfig(item_features="id", vocab_size=ITEMS + 1, hidden_size=16, num_attention_heads=2,
                        max_position_embeddings=LENGTH, initializer_range=0.4, router=request.param,
                        router_init_keep=0.6)  # fmt: skip
    return RetrForSequentialRecommendation(config).train()


@pytest.mark.parametrize(("batch_size", "tokens"), [(512, 8192), (7, 8192), (512, 20), (1, 1)])
def test_ranks_equal_one_history_at_a_time(model, batch_size, tokens, monkeypatch):
    monkeypatch.setattr(histories, "TOKENS_AT_ONCE", tokens)
    rows = some_rows()
    table = model.encode_catalog()
    ranks = rank_histories(model, table, sequences(*rows), max_length=LENGTH, batch_size=batch_size)
    assert model.training, "and back"
    model.eval()
    for user, row in enumerate(rows):
        history = torch.tensor(row[-LENGTH - 1 : -1])[None]
        scores = model(history, item_embeddings=table).logits[0].tolist()
        others = set(range(1, ITEMS + 1)) - {int(row[-1])}
        above = {item for item in others if scores[item] >= scores[row[-1]] - 1e-4}
        surely = {item for item in others if scores[item] >= scores[row[-1]] + 1e-4}
        assert len(surely) < ranks["full"][user] <= len(above) + 1
        assert len(surely - set(row)) < ranks["full-unseen"][user] <= len(above - set(row)) + 1
    model.train()


@torch.no_grad()
def test_keep_probabilities_equal_one_history_at_a_time(model):
    rows = some_rows()
    if model.config.router == "none":
        with pytest.raises(ValueError, match="no router"):
            routings(model, model.encode_catalog(), sequences(*rows), LENGTH)
        return
    table, read = model.encode_catalog(), sequences(*rows)
    read_routes = routings(model, table, read, LENGTH, batch_size=9)
    alphas, places = read_routes.keep_probabilities, read_routes.places
    assert sorted(places.tolist()) == [
        place
        for begin, end in zip(read.offsets, read.offsets[1:], strict=False)
        for place in range(max(begin, end - 1 - LENGTH), end - 1)
    ]
    model.eval()
    found = dict(zip(places.tolist(), alphas.T.tolist(), strict=True))
    kept_routes = dict(zip(places.tolist(), read_routes.routes.T.tolist(), strict=True))
    for begin, row in zip(read.offsets, rows, strict=False):
        kept = model.model(torch.tensor(row[-LENGTH - 1 : -1])[None], item_embeddings=table, output_routes=True)
        first = begin + max(0, len(row) - 1 - LENGTH)
        for nth in range(min(LENGTH, len(row) - 1)):
            alone = [float(alpha[0, nth]) for alpha in kept.keep_probabilities]
            assert found[first + nth] == pytest.approx(alone, abs=1e-5)
            assert kept_routes[first + nth] == [float(route[0, nth]) for route in kept.routes]
    model.train()


@torch.no_grad()
@pytest.mark.parametrize("most", [LENGTH, LENGTH + 1])
def test_routes_of_a_bidirectional_body_are_those_it_answers_with(most):
    """With a [mask] behind each history, which takes the place of the oldest item where the model reads no more."""
    torch.manual_seed(0)
    config = RetrConfig(item_features="id", vocab_size=ITEMS + 1, hidden_size=16, num_attention_heads=2,
                        max_position_embeddings=most, initializer_range=0.4, direction="bidirectional",
                        router_context="global", router_init_keep=0.6)  # fmt: skip
    model, rows = RetrForSequentialRecommendation(config).eval(), some_rows()
    table, read = model.encode_catalog(), sequences(*rows)
    found = routings(model, table, read, LENGTH, batch_size=9)
    alphas = dict(zip(found.places.tolist(), found.keep_probabilities.T.tolist(), strict=True))
    at_mask = []
    for end, row in zip(read.offsets[1:], rows, strict=True):
        history = torch.tensor(row[-LENGTH - 1 : -1])[None]
        asked = model.ask_for_next(history)
        alone = model.model(asked.input_ids, asked.attention_mask, item_embeddings=table, output_routes=True)
        left = asked.input_ids.shape[1] - 1
        assert left == min(len(row) - 1, LENGTH, most - 1)
        for nth in range(left):
            want = [float(alpha[0, nth]) for alpha in alone.keep_probabilities]
            assert alphas.pop(int(end) - 1 - left + nth) == pytest.approx(want, abs=1e-5)
        at_mask.append([float(route[0, left]) for route in alone.routes])
    assert not alphas and sorted(found.at_mask.T.tolist()) == sorted(at_mask)


def test_times_reach_a_model_that_reads_them():
    torch.manual_seed(0)
    config = RetrConfig(item_features="id", vocab_size=ITEMS + 1, hidden_size=16, num_attention_heads=2,
                        max_position_embeddings=LENGTH, initializer_range=0.4, attention="modulating")  # fmt: skip
    model, rows = RetrForSequentialRecommendation(config).eval(), some_rows()
    read = sequences(*rows)
    read.timestamps = 1_600_000_000 + np.random.default_rng(1).integers(0, 400_000, len(read.item_ids)).cumsum()
    table = model.encode_catalog()
    ranks = rank_histories(model, table, read, max_length=LENGTH, batch_size=7)["full"]
    read_routes = routings(model, table, read, LENGTH, batch_size=7)
    alphas, places = read_routes.keep_probabilities, read_routes.places
    for user, (row, end) in enumerate(zip(rows, read.offsets[1:], strict=True)):
        window = slice(max(end - 1 - LENGTH, read.offsets[user]), end - 1)
        ids, times = torch.tensor(row[-LENGTH - 1 : -1])[None], torch.tensor(read.timestamps[window])[None]
        alone = model(ids, times=times, item_embeddings=table, output_routes=True)
        scores = alone.logits[0, 1:]
        target = scores[row[-1] - 1]
        assert int((scores > target + 1e-4).sum()) < ranks[user] <= int((scores >= target - 1e-4).sum())
        mine = (places >= window.start) & (places < window.stop)
        want = torch.cat(alone.keep_probabilities).detach()
        np.testing.assert_allclose(alphas[:, mine], want, atol=1e-5)
    read.timestamps = None
    with pytest.raises(ValueError, match="the batch brought none"):
        rank_histories(model, table, read, max_length=LENGTH)


def test_a_target_without_a_history_is_refused(model):
    with pytest.raises(DataError, match="1 of the sequences hold their target alone"):
        rank_histories(model, model.encode_catalog(), sequences([3, 4], [5]), max_length=LENGTH)
