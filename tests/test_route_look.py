"""What routes are worth: routers replaced and put back, held against models without a router."""

import numpy as np
import pytest
import torch

from retr_hf import route_look
from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import pathway_auc, synthetic_world
from retr_hf.errors import DataError
from retr_hf.measuring import ranks_of_split
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender
from retr_hf.route_look import ALL, CHANCE, NONE, OWN, look_at_routes, require_router, routes_replaced
from retr_hf.training.settings import EvaluationSettings

SETTINGS = EvaluationSettings(cutoffs=[10])


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "garden"
    world = synthetic_world(source_users=80, source_items=60, target_users=30, target_items=60)
    write_domain(world["garden"].to_raw({}), folder, k_core=0, num_negatives=20)
    return load_domain(folder)


def model_for(domain, **values):
    """Whose routes matter: far from their start, and so is what they gate."""
    torch.manual_seed(1)
    values = {"router": "pathway", "item_features": "id", "score": "dot", "hidden_size": 16, **values}
    config = RetrConfig(vocab_size=domain.num_items + 1, max_position_embeddings=6, initializer_range=0.5, **values)
    model = RetrForSequentialRecommendation(config).eval()
    for layer in model.model.layers if config.router == "pathway" else ():
        torch.nn.init.normal_(layer.router.keep_mlp[-1].weight, std=30.0)
        torch.nn.init.constant_(layer.router.keep_mlp[-1].bias, 1.0)
    return model


def own_ranks(model, domain):
    return ranks_of_split(model, domain, "test", None, SETTINGS, 6)


def test_all_kept_is_the_body_without_router_and_the_routes_come_back(domain):
    model, plain = model_for(domain), model_for(domain, router="none")
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".router." not in name})
    before = own_ranks(model, domain)
    look = look_at_routes(model, domain, "test", SETTINGS)
    after, without = own_ranks(model, domain), own_ranks(plain, domain)
    for protocol, ranks in before.items():
        np.testing.assert_array_equal(ranks, after[protocol])
        np.testing.assert_array_equal(look.ranks[ALL][protocol], without[protocol])
    assert list(look.ranks) == [ALL, NONE, CHANCE]
    told = [look.ranks[name]["full"] for name in look.ranks] + [before["full"]]
    assert all((told[i] != told[j]).any() for i in range(4) for j in range(i)), "routes that make a difference"
    text = look.text(before, [10])
    gain = (without["full"] <= 10).mean() - (before["full"] <= 10).mean()
    line = next(line for line in text.splitlines() if line.split()[:3] == ["all", "kept", "full"])
    assert f"HR@10 {gain:+.4f} [" in line


def test_weights_are_told_by_the_pathway_and_against_the_known_answer(domain, monkeypatch):
    model = model_for(domain)
    look = look_at_routes(model, domain, "test", SETTINGS)
    test, served = domain.split("test"), Recommender(model, RetrProcessor(domain.catalog()))
    on, off, weights, pivotal, of_users, steps = [], [], [], [], [], []
    for user, row in enumerate(test):
        history = [served.processor.catalog.item_ids[item - 1] for item in row[:-1]]
        answer = served.recommend(history)
        reasons = served.why(history, served.processor.catalog.item_ids[row[-1] - 1])
        weights += [reason.weight for reason in reasons]
        pivotal += domain.pivotal("test")[0][test.offsets[user] : test.offsets[user + 1] - 1][-6:].tolist()
        of_users.append(([], []))
        steps.append(answer.pathway[-1])
        for reason, step in zip(reasons, answer.pathway, strict=True):
            of_users[-1][not step.kept[0]].append(reason.weight)  # of two blocks the first: in the last one reads
            (on if step.kept[0] else off).append(reason.weight)
    assert on and off
    np.testing.assert_allclose(np.sort(look.weights[0]), np.sort(on), atol=1e-4)
    np.testing.assert_allclose(np.sort(look.weights[1]), np.sort(off), atol=1e-4)
    assert look.found["weight"] == pytest.approx(pathway_auc(np.array(weights), np.array(pivotal)), abs=1e-3)
    assert set(look.found) == {"weight", "α of block 1", "α of block 2"}
    text = look.text(own_ranks(model, domain), [10])
    assert f"on the pathway {np.mean(on):+.4f} ({len(on):,}), off it {np.mean(off):+.4f} ({len(off):,})" in text
    means = [(np.mean(each[0]), np.mean(each[1])) for each in of_users if each[0] and each[1]]
    within = np.array([mine - theirs for mine, theirs in means])
    assert len(within) > 2 and look.difference[0] == pytest.approx(within.mean(), abs=1e-4)
    assert look.difference[1] == pytest.approx(1.96 * within.std(ddof=1) / len(within) ** 0.5, abs=1e-4)
    assert f"on minus off, within users who have both: {within.mean():+.4f} [" in text
    assert look.settings(OWN)["routes kept"] == look.kept[OWN] and "AUC of weight" in look.settings(OWN)
    assert look.settings(NONE) == {"routes kept": [0.0, 0.0]}
    asked = [step.kept for step in steps]
    assert look.kept[CHANCE] == pytest.approx([look.kept[OWN][0], np.mean([kept[1] for kept in asked])])
    monkeypatch.setattr(route_look, "USERS_OCCLUDED", 5)
    few = look_at_routes(model, domain, "test", SETTINGS)
    assert 5 <= sum(map(len, few.weights)) <= 5 * 6


def test_a_block_keeps_the_share_it_is_given_and_the_way_back_is_sure(domain):
    model = model_for(domain)
    own = [layer.router for layer in model.model.layers]
    ids = torch.arange(1, 41).view(8, 5)
    with pytest.raises(KeyError), routes_replaced(model, [1.0, 0.0]), torch.no_grad():
        first, second = model.model(ids, item_embeddings=model.encode_catalog(), output_routes=True).routes
        assert (first == 1).all() and (second == 0).all()
        raise KeyError
    assert [layer.router for layer in model.model.layers] == own
    many, drawn = ids.repeat(250, 1), []
    for _ in range(2):
        with routes_replaced(model, [0.4, 0.7]), torch.no_grad():
            drawn.append(model.model(many, item_embeddings=model.encode_catalog(), output_routes=True).routes)
    for share, first, again in zip([0.4, 0.7], *drawn, strict=True):
        assert torch.equal(first, again), "the same at every call"
        np.testing.assert_allclose(first.mean(0), share, atol=0.05)  # at every place, the last one too
        assert len(set(first.sum(1).tolist())) > 2, "by chance, not as many of each"
    with pytest.raises(ValueError), routes_replaced(model, [1.0]):
        pass
    assert [layer.router for layer in model.model.layers] == own


def test_without_a_router_there_is_nothing_to_look_at(domain):
    for model in ("popularity", model_for(domain, router="none")):
        with pytest.raises(DataError, match="has no router, so no routes"):
            require_router(model)
    with pytest.raises(DataError, match="has no router"):
        look_at_routes(model, domain, "test", SETTINGS)
    require_router(model_for(domain, router="random"))
