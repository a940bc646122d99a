"""Domains of what is on and off the pathway, held against routes of single histories."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world, synthetic_world
from retr_hf.errors import DataError
from retr_hf.jobs.grid import GridSettings, Plan
from retr_hf.measuring import is_synthetic
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.pathway_inputs import INPUTS, write_pathway_inputs
from retr_hf.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("train", "validation", "test")
LENGTH = 4  # what the model reads; histories are longer, and of some nothing or all is kept


@pytest.fixture(scope="module")
def domain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "garden"
    world = synthetic_world(source_users=80, source_items=60, target_users=30, target_items=60)
    write_domain(world["garden"].to_raw({}), folder, k_core=0, num_negatives=20)
    return load_domain(folder)


def model_for(domain, **values):
    """Whose routes are of every kind: its router decides by weights far from its start."""
    torch.manual_seed(1)
    values = {"router": "pathway", "item_features": "id", "score": "dot", "hidden_size": 16, **values}
    config = RetrConfig(
        vocab_size=domain.num_items + 1, max_position_embeddings=LENGTH, catalog_hash=domain.catalog().hash, **values
    )
    model = RetrForSequentialRecommendation(config).eval()
    with torch.no_grad():
        for layer in model.model.layers if config.router == "pathway" else ():
            layer.router.keep_mlp[-1].weight.normal_(std=30.0)
            layer.router.keep_mlp[-1].bias.fill_(1.0)
    return model


@pytest.fixture(scope="module")
def made(domain, tmp_path_factory):
    """(model, input -> domain)."""
    folder, model = tmp_path_factory.mktemp("made"), model_for(domain)
    model.save_pretrained(folder / "model")
    folders = write_pathway_inputs(model, folder / "model", domain, folder)
    return model, {kind: load_domain(path) for kind, path in folders.items()}


def rows(domain, split):
    """user -> raw ids."""
    ids, sequences = domain.catalog().item_ids, domain.split(split)
    users = domain.user_ids(split)
    return {user: [ids[index - 1] for index in sequences[nth]] for nth, user in enumerate(users)}


def routed_alone(model, domain, split):
    """user -> (history, what the model reads of it, the kept of these, target or nothing), a history at a time."""
    ids, sequences, told = domain.catalog().item_ids, domain.split(split), {}
    for nth, user in enumerate(domain.user_ids(split)):
        history, target = (sequences[nth], []) if split == "train" else (sequences[nth][:-1], [sequences[nth][-1]])
        read = history[-LENGTH:]
        with torch.no_grad():
            route = model.model(torch.from_numpy(read.astype(np.int64))[None], output_routes=True).routes[-1][0]
        named = [[ids[index - 1] for index in some] for some in (history, read, read[route.numpy() > 0.5])]
        told[user] = (*named, [ids[index - 1] for index in target])
    return told


@pytest.mark.parametrize("split", SPLITS)
def test_histories_are_cut_at_their_own_routes_and_targets_are_left_alone(domain, made, split):
    model, inputs = made
    expected = {kind: {} for kind in ("whole", "pathway", "off-pathway")}
    beyond = False
    for user, (history, read, kept, target) in routed_alone(model, domain, split).items():
        dropped = [item for item in read if item not in kept]
        assert len(set(read)) == len(read)  # so an item says which behaviour it is
        beyond |= len(read) < len(history)
        if split == "train" or (kept and dropped):
            parts = {"whole": history, "pathway": kept, "off-pathway": dropped}
            for kind, part in parts.items():
                expected[kind] |= {user: part + target} if part else {}
    assert beyond and any(len(users) < len(domain.split(split)) for users in expected.values())
    for kind, users in expected.items():
        assert rows(inputs[kind], split) == users, kind


@pytest.mark.parametrize("split", SPLITS)
def test_by_chance_as_many_and_the_others(made, split):
    _, inputs = made
    pathway, off, chance, others = (
        rows(inputs[kind], split) for kind in ("pathway", "off-pathway", "random", "off-random")
    )
    assert {user: len(row) for user, row in pathway.items()} == {user: len(row) for user, row in chance.items()}
    assert {user: len(row) for user, row in off.items()} == {user: len(row) for user, row in others.items()}
    last = 0 if split == "train" else 1
    for user in chance.keys() & others.keys():
        parts = [set(half[user][: len(half[user]) - last]) for half in (pathway, off, chance, others)]
        assert parts[0] | parts[1] == parts[2] | parts[3] and not parts[2] & parts[3]
    assert chance != pathway


def test_the_five_rank_the_same_users_targets_and_candidates(domain, made):
    _, inputs = made
    touched = {user: set(row) for user, row in rows(domain, "test").items()}
    for split in ("validation", "test"):
        users = [inputs[kind].user_ids(split) for kind in INPUTS]
        targets = [{user: row[-1] for user, row in rows(inputs[kind], split).items()} for kind in INPUTS]
        negatives = [inputs[kind].negatives(split) for kind in INPUTS]
        assert all(other == users[0] for other in users) and all(other == targets[0] for other in targets)
        for other in negatives:
            np.testing.assert_array_equal(other.item_ids, negatives[0].item_ids)
            np.testing.assert_array_equal(other.lengths, np.full(len(users[0]), 20))
        ids = domain.catalog().item_ids
        for nth, user in enumerate(users[0]):  # what a history has lost is no candidate
            assert not touched[user] & {ids[index - 1] for index in negatives[0][nth]}
    assert len({one.catalog().hash for one in (domain, *inputs.values())}) == 1


def test_no_route_sees_a_target(domain, made, tmp_path):
    """Other last items, the same histories of the test; other last two, the same of validation and training."""
    model, inputs = made
    world = synthetic_world(source_users=80, source_items=60, target_users=30, target_items=60)["garden"]
    for last, same in ((1, SPLITS), (2, ("train", "validation"))):
        item_rows = world.item_rows.copy()
        for back in range(1, last + 1):
            item_rows[world.offsets[1:] - back] = (item_rows[world.offsets[1:] - back] + 7) % domain.num_items
        raw = type(world)(**vars(world) | {"item_rows": item_rows}).to_raw({})
        write_domain(raw, tmp_path / f"changed-{last}" / "garden", k_core=0, num_negatives=20)
        other = load_domain(tmp_path / f"changed-{last}" / "garden")
        model.save_pretrained(tmp_path / "model")
        folders = write_pathway_inputs(model, tmp_path / "model", other, tmp_path / f"made-{last}")
        for split in same:
            cut = None if split == "train" else -1
            for kind in ("pathway", "off-pathway"):
                one, two = rows(inputs[kind], split), rows(load_domain(folders[kind]), split)
                assert {user: row[:cut] for user, row in one.items()} == {user: row[:cut] for user, row in two.items()}


def test_what_is_known_of_a_domain_goes_with_it(domain, made):
    _, inputs = made
    for kind, one in inputs.items():
        assert is_synthetic(one) and one.name == f"garden-{kind}"
        assert one.provenance["options"] | {"of domain": "garden", "histories": kind} == one.provenance["options"]
        assert "model.safetensors" in [file["path"] for file in one.provenance["inputs"]]
        for split in SPLITS:
            assert len(one.pivotal(split)[0]) == len(one.split(split).item_ids)
            assert len(one.pivotal(split)[1]) == len(one.split(split))
    test, nth = domain.split("test"), {user: nth for nth, user in enumerate(domain.user_ids("test"))}
    for one in inputs.values():
        some, (pivotal, kinds) = one.split("test"), one.pivotal("test")
        here = nth[one.user_ids("test")[0]]
        begin, end = test.offsets[here], test.offsets[here + 1]
        of_item = dict(zip(test[here].tolist(), domain.pivotal("test")[0][begin:end].tolist(), strict=True))
        assert pivotal[: some.offsets[1]].tolist() == [of_item[item] for item in some[0].tolist()]
        assert kinds[0] == domain.pivotal("test")[1][here]


def test_what_is_there_is_left_alone_and_another_model_asks(domain, made, tmp_path):
    model, _ = made
    model.save_pretrained(tmp_path / "model")
    folders = write_pathway_inputs(model, tmp_path / "model", domain, tmp_path)
    before = {path: (path / "domain.json").stat().st_mtime_ns for path in folders.values()}
    write_pathway_inputs(model, tmp_path / "model", domain, tmp_path)
    assert before == {path: (path / "domain.json").stat().st_mtime_ns for path in folders.values()}
    with pytest.raises(DataError, match="--overwrite"):
        write_pathway_inputs(model, tmp_path / "model", domain, tmp_path, block=1)


def test_what_has_no_pathway_is_refused(domain, tmp_path):
    def write(model, block=None):
        model.save_pretrained(tmp_path / "model")
        write_pathway_inputs(model, tmp_path / "model", domain, tmp_path, block)

    with pytest.raises(DataError, match="causal pathway router, came router='none'"):
        write(model_for(domain, router="none"))
    with pytest.raises(DataError, match="would see the targets"):
        write(model_for(domain, router_context="global", every_step=False))
    with pytest.raises(DataError, match="block 3: expected one of the model's, 1 to 2"):
        write(model_for(domain), block=3)
    opened = model_for(domain)
    for layer in opened.model.layers:
        torch.nn.init.constant_(layer.router.keep_mlp[-1].bias, 1e6)
    with pytest.raises(DataError, match="there is nothing to compare"):
        write(opened)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing half done


def test_times_go_with_their_behaviours(tmp_path):
    import polars as pl

    from retr_hf.data.readers.raw import RawDomain

    raw = cycle_world(num_items=12, num_users=20, length=8).to_raw({})
    times = [[100 * user + step for step in range(8)] for user in range(20)]
    frame = raw.sequences.select("user_id", "item_ids").with_columns(pl.Series("timestamps", times))
    write_domain(RawDomain(frame, raw.items, reader="test"), tmp_path / "timed", k_core=0, num_negatives=3)
    domain = load_domain(tmp_path / "timed")
    model = model_for(domain)
    model.save_pretrained(tmp_path / "model")
    folders = write_pathway_inputs(model, tmp_path / "model", domain, tmp_path)
    source = domain.split("test")
    place = {user: nth for nth, user in enumerate(domain.user_ids("test"))}
    for kind in ("pathway", "off-pathway"):
        one = load_domain(folders[kind])
        some = one.split("test")
        for nth, user in enumerate(one.user_ids("test")):
            steps = some.timestamps[some.offsets[nth] : some.offsets[nth + 1]] % 100
            assert source[place[user]][steps].tolist() == some[nth].tolist()


def test_from_the_script_to_the_grid(domain, tmp_path, monkeypatch, capsys):
    """The documented two commands, on another domain."""
    model_for(domain).save_pretrained(tmp_path / "model")
    words = [tmp_path / "model", "--domain", domain.path, "--output", tmp_path / "data"]
    monkeypatch.setattr(sys, "argv", ["pathway_inputs.py", *map(str, words)])
    runpy.run_path(str(ROOT / "scripts" / "pathway_inputs.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "garden-off-random" in told and "test users with nothing off the pathway" in told

    monkeypatch.chdir(ROOT)
    paths = [str(tmp_path / "data" / f"garden-{kind}") for kind in INPUTS]
    change = [f"finetune_overrides=['data.domains=[{', '.join(paths)}]']", f"output={tmp_path}/grid", "seeds=[0]"]
    grid = load_recipe("recipes/grids/pathway_inputs.yaml", change, {"": GridSettings}).run
    plan = Plan(grid, scripts=ROOT / "scripts")
    names = {job.name for job in plan.jobs}
    assert names == {
        f"garden-{kind}/{job}" for kind in INPUTS for job in ("popularity", "sasrec/scratch-0", "retr/scratch-0")
    }
    shipped = load_recipe("recipes/grids/pathway_inputs.yaml", [], {"": GridSettings}).run
    assert all(f"beauty-{kind}" in shipped.finetune_overrides[0] for kind in INPUTS)
