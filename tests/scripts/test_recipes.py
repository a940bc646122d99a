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
from retr_hf.grid import GridSettings
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.report.published import published_numbers
from retr_hf.report.results import read_rows
from retr_hf.stage import SCHEMA
from retr_hf.training.recipe import builds, load_recipe
from retr_hf.training.settings import VALIDATORS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "recipes"
SYSTEMS = sorted((FOLDER / "systems").glob("*.yaml"))
GRIDS = sorted((FOLDER / "grids").glob("*.yaml"))
STAGES = ("pretrain", "finetune", "synthetic")
RECIPES = sorted(path for stage in STAGES for path in (FOLDER / stage).glob("*.yaml") if path.stem != "base")
TINY = ["hidden_size=16", "intermediate_size=16", "num_attention_heads=2", "num_experts=2"]


def load(path, *systems, overrides=()):
    rules = [*VALIDATORS, builds("model", RetrConfig)]
    return load_recipe(path, list(overrides), SCHEMA, rules, check_paths=False, systems=systems)


def stem(path):
    return path.stem if path.parent.name != "synthetic" else f"synthetic-{path.stem}"


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


@pytest.mark.parametrize("path", GRIDS, ids=stem)
def test_every_grid_is_well_formed(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # what it names is there
    assert load_recipe(path, [], {"": GridSettings}).run.description
    assert f"scripts/grid.py {path.relative_to(ROOT)}" in opening(path)


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


@pytest.mark.parametrize("path", RECIPES, ids=stem)
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


def test_a_system_goes_over_both_stages(shop, tmp_path, monkeypatch, capsys):
    """Pre-trained and fine-tuned with the same file; another one is refused, and ids cannot be pre-trained."""
    system, other, ids = (FOLDER / "systems" / name for name in ("x_locker.yaml", "x_retr.yaml", "sasrec_id.yaml"))
    common = [f"data.domains=[{shop}]", "training.max_steps=2", "training.progress=false"]
    pretrain = [FOLDER / "pretrain" / "open_five.yaml", *common, *(f"model.{line}" for line in TINY)]
    script(monkeypatch, "pretrain.py", *pretrain, system, f"output={tmp_path}/model")
    finetune = [FOLDER / "finetune" / "scientific.yaml", *common, f"init={tmp_path}/model"]
    rows = tmp_path / "rows.jsonl"
    script(monkeypatch, "finetune.py", *finetune, system, f"output={tmp_path}/run", f"results={rows}")
    assert {(row.system, row.recipe) for row in read_rows(rows)} == {("X-Locker", f"{finetune[0]} + {system}")}
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
