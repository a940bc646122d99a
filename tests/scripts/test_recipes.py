"""What lies in recipes/: every file is well-formed, twins differ in the model alone, and every recipe runs."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world
from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.errors import RecipeError
from retr_hf.jobs.grid import GridSettings, Plan
from retr_hf.jobs.search import SearchSettings
from retr_hf.model_section import model_config
from retr_hf.report.published import published_numbers
from retr_hf.report.results import read_rows
from retr_hf.s3rec_pretraining import S3REC_SCHEMA
from retr_hf.stage import SCHEMA
from retr_hf.training.recipe import builds, load_recipe
from retr_hf.training.settings import VALIDATORS
from retr_hf.training.settings_s3rec import S3REC_VALIDATORS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes"
SYSTEMS = sorted((FOLDER / "systems").glob("*.yaml"))
GRIDS = sorted((FOLDER / "grids").glob("*.yaml"))
SEARCHES = sorted((FOLDER / "searches").glob("*.yaml"))
INTRA_SYSTEMS = sorted((FOLDER / "intra" / "systems").glob("*.yaml"))
S3REC = sorted((FOLDER / "s3rec").glob("*.yaml"))
STAGES = ("pretrain", "finetune", "synthetic", "intra")
RECIPES = sorted(path for stage in STAGES for path in (FOLDER / stage).glob("*.yaml") if path.stem != "base")
INTRA = [path for path in RECIPES if path.parent.name == "intra"]
TINY = ["hidden_size=16", "intermediate_size=16", "num_attention_heads=2", "num_experts=2"]


def load(path, *systems, overrides=()):
    rules = [*VALIDATORS, builds("model", model_config)]
    return load_recipe(path, list(overrides), SCHEMA, rules, check_paths=False, systems=systems)


def stem(path):
    return path.stem if path.parent.name not in ("synthetic", "intra") else f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_every_recipe_is_well_formed_and_says_its_command(path):
    recipe = load(path)
    assert f"scripts/{recipe.run.task}.py {path.relative_to(ROOT)}" in opening(path) or "(this recipe;" in opening(path)


@pytest.mark.parametrize("path", SYSTEMS, ids=stem)
def test_every_system_says_its_command_and_goes_over_every_recipe(path):
    assert re.search(rf"scripts/\w+\.py recipes/\S+ {path.relative_to(ROOT)}", opening(path))
    for recipe in RECIPES:
        ids = load(recipe)["model"].get("item_features") == "id"
        if path.stem == "retr_plus" and ids:  # it reads texts, and says so
            with pytest.raises(RecipeError, match="text_path=True reads text vectors"):
                load(recipe, path)
        else:
            load(recipe, path)


@pytest.mark.parametrize("path", INTRA_SYSTEMS, ids=stem)
def test_every_intra_domain_system_says_how_it_departs_and_goes_over_every_domain(path):
    assert re.search(rf"scripts/\w+\.py recipes/intra/\w+\.yaml {path.relative_to(ROOT)}", opening(path))
    assert "# Departs: " in opening(path)
    printed = published_numbers()
    names = set(printed["intra_domain_poster"]["Beauty"]) | set(printed["intra_domain_paper"]["Yelp"])
    names |= {"RETR (poster)", "SASRec (softmax)"}
    for recipe in INTRA:
        one, other = load(recipe).as_dict(), load(recipe, path).as_dict()
        assert other["name"] in names
        differing = {key for key in one if one[key] != other[key]}
        assert differing <= {"name", "description", "model", "training"} and "model" in differing


def test_intra_domain_recipes_differ_in_their_domain_alone():
    one = load(FOLDER / "intra" / "beauty.yaml").as_dict()
    for path in INTRA:
        other = load(path).as_dict()
        differing = {key for key in one if one[key] != other[key]}
        assert differing <= {"description", "results", "data"} or path.stem == "movielens_1m"
        assert other["data"]["max_length"] == (200 if path.stem == "movielens_1m" else 100)


@pytest.mark.parametrize("path", GRIDS, ids=stem)
def test_every_grid_is_well_formed(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # what it names is there
    assert load_recipe(path, [], {"": GridSettings}).run.description
    assert f"scripts/grid.py {path.relative_to(ROOT)}" in opening(path)


@pytest.mark.parametrize("path", SEARCHES, ids=stem)
def test_every_search_is_well_formed(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load_recipe(path, [], {"": SearchSettings}).run.description
    assert f"scripts/search.py {path.relative_to(ROOT)}" in opening(path)


def test_the_intra_domain_search_has_the_budget_of_its_grid():
    grid = load_recipe(FOLDER / "grids" / "intra_small.yaml", [], {"": GridSettings}, check_paths=False).run
    search = load_recipe(FOLDER / "searches" / "intra.yaml", [], {"": SearchSettings}, check_paths=False).run
    assert search.systems == grid.systems and search.overrides == grid.finetune_overrides


@pytest.mark.parametrize("system", SYSTEMS, ids=stem)
def test_a_system_changes_the_model_alone(system):
    """The same recipe under two systems: name, description and model lines differ, nothing else."""
    for recipe in (FOLDER / "finetune" / "scientific.yaml", FOLDER / "pretrain" / "open_five.yaml"):
        one, other = (load(recipe, over).as_dict() for over in (FOLDER / "systems" / "x_retr.yaml", system))
        differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
        same = system.stem == "x_retr"
        assert differing <= {"name", "description", "model"} and bool(differing) != same


def test_the_published_systems_have_their_printed_names():
    names = {load(FOLDER / "finetune" / "arts.yaml", system).name for system in SYSTEMS}
    printed = published_numbers()["cross_domain"]["Scientific"].keys()
    assert printed - names == {"RecGURU"}  # another model file
    assert names - printed == {"RETR+", "SASRec-id", "SASRec-text", "RETR-id"}


@pytest.mark.parametrize(
    ("recipe", "twin"),
    [("pretrain", "pretrain_no_router"), ("finetune", "finetune_scratch"), ("finetune", "finetune_no_router")],
)
def test_twins_differ_in_the_model_alone(recipe, twin):
    one, other = (load(FOLDER / "synthetic" / f"{name}.yaml").as_dict() for name in (recipe, twin))
    differing = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert differing <= {"name", "description", "expected", "output", "init", "model"} and differing & {"init", "model"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A domain of the right layout: splits, negatives, text vectors, and those with words dropped."""
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_domain(cycle_world(num_items=12, num_users=20, length=6).to_raw({}), folder, k_core=0)
    for word_drop in (0.0, 0.15):
        embed_catalog(folder, "hashing:16", progress=False, word_drop=word_drop)
    return folder


@pytest.mark.parametrize("path", sorted({*RECIPES} - {*INTRA}) + [FOLDER / "intra" / "movielens_1m.yaml"], ids=stem)
def test_every_recipe_runs(path, shop, tmp_path, monkeypatch, capsys):
    """Its own settings, two steps, on a tiny domain."""
    recipe = load(path)
    overrides = [f"data.domains=[{shop}]", f"output={tmp_path}/run", "training.max_steps=2", "training.progress=false"]
    overrides += [f"model.{line}" for line in TINY]
    overrides += ["init=null", f"results={tmp_path}/rows.jsonl"] if recipe.run.task == "finetune" else []
    script(monkeypatch, f"{recipe.run.task}.py", path, *overrides)
    assert (tmp_path / "run" / "model.safetensors").is_file()
    if recipe.run.task == "finetune":
        assert {row.protocol for row in read_rows(tmp_path / "rows.jsonl")} == {"full", "full-unseen", "sampled"}


@pytest.mark.parametrize("path", INTRA_SYSTEMS, ids=stem)
def test_every_intra_domain_system_runs(path, shop, tmp_path, monkeypatch, capsys):
    """Its own settings but for the width, two steps on a tiny domain, and the folder evaluated once more."""
    words = [FOLDER / "intra" / "beauty.yaml", path, f"data.domains=[{shop}]", f"output={tmp_path}/run"]
    words += ["training.max_steps=2", "training.progress=false", "model.hidden_size=16", f"results={tmp_path}/a.jsonl"]
    script(monkeypatch, "finetune.py", *words)
    script(monkeypatch, "evaluate.py", tmp_path / "run", shop, "--results", tmp_path / "b.jsonl", "--cutoffs", 10)
    one, other = (read_rows(tmp_path / name) for name in ("a.jsonl", "b.jsonl"))
    assert [row.metrics for row in one] == [row.metrics for row in other] and len(one) == 3


@pytest.mark.parametrize("name", ["intra", "intra_small", "ablations", "ablations_synthetic"])
def test_grids_without_pretraining_are_planned(name, shop, tmp_path, monkeypatch):
    """All their runs, on a domain of the layout: none is ruled out, and no two are the same run."""
    monkeypatch.chdir(ROOT)
    change = ["seeds=[0]", f"output={tmp_path}/grid"]
    change += ["finetune=[recipes/intra/beauty.yaml]"] if name.startswith("intra") else []
    own = load_recipe(FOLDER / "grids" / f"{name}.yaml", [], {"": GridSettings}).run.finetune_overrides
    change += [f"finetune_overrides={[*own, f'data.domains=[{shop}]']}"]
    s3rec = "recipes/intra/systems/s3rec.yaml"
    on_shop = tmp_path / "shop.yaml"
    on_shop.write_text(f"extends: {S3REC[0]}\ndata:\n  domain: {shop}\n", encoding="utf-8")
    change += [f"pretrain_on_target=[[{s3rec}, {on_shop}]]"]
    grid = load_recipe(FOLDER / "grids" / f"{name}.yaml", change, {"": GridSettings}).run
    plan = Plan(grid, scripts=ROOT / "scripts")
    two_stages = grid.systems.count(s3rec) + sum(variant[1] == s3rec for variant in grid.variants)
    runs = len({*grid.systems}) + len(grid.variants) + len(grid.baselines) + two_stages
    assert plan.left_out == [] and len(plan.jobs) == runs
    assert two_stages == {"intra": 1, "intra_small": 0, "ablations": 2, "ablations_synthetic": 0}[name]
    recipes = [str(job.recipe["model"]) + str(job.recipe["data"]) for job in plan.jobs if hasattr(job, "recipe")]
    assert len(set(recipes)) == len(recipes)
    every = {str(path.relative_to(ROOT)) for path in INTRA_SYSTEMS}
    assert name != "intra" or every == {*grid.systems}


@pytest.mark.parametrize("path", S3REC, ids=lambda path: path.stem)
def test_every_pretraining_on_a_target_is_of_an_intra_domain_recipe(path):
    """The same domain, history and size as the fine-tuning that goes on from it, and in both grids."""
    ours = load_recipe(path, [], S3REC_SCHEMA, S3REC_VALIDATORS, check_paths=False)
    theirs = load(FOLDER / "intra" / path.name, FOLDER / "intra" / "systems" / "s3rec.yaml")
    assert f"scripts/s3rec.py {path.relative_to(ROOT)}" in opening(path)
    assert [ours["data"].domain] == theirs["data"].domains and ours["data"].max_length == theirs["data"].max_length
    assert all(ours["model"][key] == theirs["model"][key] for key in ("hidden_size", "positions_from"))
    for grid in ("intra", "ablations"):
        assert str(path.relative_to(ROOT)) in (FOLDER / "grids" / f"{grid}.yaml").read_text(encoding="utf-8")


def test_a_system_goes_over_both_stages(shop, tmp_path, monkeypatch, capsys):
    """Pre-trained and fine-tuned with the same file; another one is refused, and ids cannot be pre-trained."""
    system, other, ids = (FOLDER / "systems" / name for name in ("x_locker.yaml", "x_retr.yaml", "sasrec_id.yaml"))
    common = [f"data.domains=[{shop}]", "training.max_steps=2", "training.progress=false"]
    pretrain = [FOLDER / "pretrain" / "open_five.yaml", *common, *(f"model.{line}" for line in TINY)]
    script(monkeypatch, "pretrain.py", *pretrain, system, f"output={tmp_path}/model")
    finetune = [FOLDER / "finetune" / "scientific.yaml", *common, f"init={tmp_path}/model"]
    rows = tmp_path / "rows.jsonl"
    script(monkeypatch, "finetune.py", *finetune, system, f"output={tmp_path}/run", f"results={rows}")
    as_run = f"{finetune[0]} + {system} + training.max_steps=2"
    assert {(row.system, row.recipe) for row in read_rows(rows)} == {("X-Locker", as_run)}
    capsys.readouterr()
    for name, arguments, told in [
        ("finetune.py", [*finetune, other, f"output={tmp_path}/other"], "attention: 'full', but the pre-trained"),
        ("pretrain.py", [*pretrain, ids, f"output={tmp_path}/ids"], "item_features"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            script(monkeypatch, name, *arguments)
        assert stopped.value.code == 2 and told in capsys.readouterr().err


def opening(path):
    """The comments a file begins with."""
    return re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))[0]


def script(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    except SystemExit as stopped:
        if stopped.code:
            raise
