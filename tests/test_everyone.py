"""Recommendations for every user, against the recommender asked for one user at a time."""

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

import retr_hf  # noqa: F401, tells transformers of the baselines
from retr_hf.baseline_models import Gru4RecConfig, Gru4RecForSequentialRecommendation
from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import synthetic_world
from retr_hf.data.whole_histories import whole_histories
from retr_hf.errors import DataError
from retr_hf.evaluation import best_items
from retr_hf.everyone import SCHEMA, recommend_everyone
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "garden"
    world = synthetic_world(source_users=80, source_items=60, target_users=70, target_items=60)
    write_domain(world["garden"].to_raw({}), folder, k_core=0, num_negatives=5)
    return load_domain(folder)


def recommender(catalog, kind="pathway"):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "vocab_size": len(catalog) + 1, "item_features": "id"}
    shape["max_position_embeddings"] = 14  # histories are 9 to 20 long: some are cut, and batches are of other users
    if kind == "gru4rec":
        return Recommender(Gru4RecForSequentialRecommendation(Gru4RecConfig(**shape)), RetrProcessor(catalog))
    changes = {
        "pathway": {"router_init_keep": 0.6},
        "added scores": {"repeat_term": True, "transition_memory": 3},
        "bidirectional": {"direction": "bidirectional", "router": "none"},
        "bias": {"item_bias": True, "score": "dot"},
    }[kind]
    model = RetrForSequentialRecommendation(
        RetrConfig(**shape, num_attention_heads=2, initializer_range=0.4, **changes)
    )
    if model.transition_memory is not None:
        model.transition_memory.count(np.arange(1, len(catalog) + 1).repeat(2), np.array([0, 2 * len(catalog)]))
    return Recommender(model, RetrProcessor(catalog))


def histories(domain):
    ids = domain.catalog(embeddings=False).item_ids
    users, rows = whole_histories(domain)
    return {user: [ids[row - 1] for row in rows[place]] for place, user in enumerate(users)}


def by_user(table):
    lists = {}
    for row in table.to_pylist():
        lists.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
        assert row["rank"] == len(lists[row["user_id"]])
    return lists


def assert_same(found, answers):
    assert list(found) == [user for user, answer in answers.items() if answer.items]
    for user, items in found.items():
        np.testing.assert_allclose(
            [score for _, score in items], [item.score for item in answers[user].items], rtol=2e-4
        )
        assert [item for item, _ in items] == [item.item_id for item in answers[user].items]


@pytest.mark.parametrize("kind", ["pathway", "added scores", "bidirectional", "bias", "gru4rec"])
def test_each_user_gets_what_they_would_get_alone(domain, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(best_items, "SCORES_AT_ONCE", 61 * 9)  # many batches, and chunks of 17 users
    served = recommender(domain.catalog(), kind)
    answered = recommend_everyone(served, domain, tmp_path / "best.parquet", k=4, progress=False)
    table = pq.read_table(tmp_path / "best.parquet")
    whole = histories(domain)
    assert answered == (len(whole), 0, 0) and table.schema.equals(SCHEMA) and len(table) == 4 * len(whole)
    assert_same(by_user(table), {user: served.recommend(history, k=4) for user, history in whole.items()})
    assert not any(item in whole[user] for user, items in by_user(table).items() for item, _ in items)


def test_candidates_and_what_was_seen(domain, tmp_path):
    served, whole = recommender(domain.catalog()), histories(domain)
    some = [*dict.fromkeys(item for history in whole.values() for item in history)][:3]
    for seen in (True, False):
        answers = {
            user: served.recommend(history, k=5, exclude_seen=seen, candidates=some) for user, history in whole.items()
        }
        path = tmp_path / f"{seen}.csv"
        answered, left_out, _ = recommend_everyone(served, domain, path, 5, seen, some, progress=False)
        assert answered == sum(bool(answer.items) for answer in answers.values())
        assert answered + left_out == len(whole) and bool(left_out) == seen, "some have had all three"
        assert_same(by_user(pyarrow.csv.read_csv(path)), answers)


def test_items_of_another_catalogue_are_found_by_their_ids(domain, tmp_path):
    ids = domain.catalog(embeddings=False).item_ids
    served, whole = recommender(ItemCatalog(["new", *ids[:4:-1]], [""] * (len(ids) - 4))), histories(domain)
    answered, left_out, unknown = recommend_everyone(served, domain, tmp_path / "best.parquet", 3, progress=False)
    known = {user: [item for item in history if item not in ids[:5]] for user, history in whole.items()}
    assert answered == sum(map(bool, known.values())) and answered + left_out == len(whole)
    assert unknown == sum(map(len, whole.values())) - sum(map(len, known.values())) > 0
    answers = {user: served.recommend(history, k=3) for user, history in known.items() if history}
    assert_same(by_user(pq.read_table(tmp_path / "best.parquet")), answers)
    strange = recommender(ItemCatalog(["x", "y"], ["", ""]))
    with pytest.raises(DataError, match="no user has an item"):
        recommend_everyone(strange, domain, tmp_path / "none.parquet", progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["best.parquet"]


def test_a_file_is_whole_or_not_there_and_never_replaced_unasked(domain, tmp_path):
    served, path = recommender(domain.catalog()), tmp_path / "new" / "best.csv"
    with pytest.raises(DataError, match="expected a file that ends in .parquet or .csv"):
        recommend_everyone(served, domain, tmp_path / "best.json", progress=False)
    with pytest.raises(ValueError, match="k=0"):
        recommend_everyone(served, domain, path, k=0, progress=False)
    with pytest.raises(ValueError, match="candidates: expected ids"):
        recommend_everyone(served, domain, path, candidates=["nobody's"], progress=False)
    path.write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder, expected the name of a file"):
        recommend_everyone(served, domain, tmp_path / "folder.csv", overwrite=True, progress=False)
    with pytest.raises(DataError, match=r"best\.csv is a file, expected a folder"):
        recommend_everyone(served, domain, path / "more.csv", progress=False)
    with pytest.raises(DataError, match="is there already; --overwrite replaces it"):
        recommend_everyone(served, domain, path, progress=False)
    torch.nn.init.constant_(served.model.model.layers[-1].ffn_norm.weight, float("nan"))
    with pytest.raises(DataError, match="not finite"):
        recommend_everyone(served, domain, path, overwrite=True, progress=False)
    assert path.read_text() == "mine" and [file.name for file in path.parent.iterdir()] == ["best.csv"]
    recommend_everyone(recommender(domain.catalog()), domain, path, 1, overwrite=True, progress=False)
    assert pyarrow.csv.read_csv(path).column_names == SCHEMA.names
