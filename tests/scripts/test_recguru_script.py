"""scripts/recguru.py from end to end, on tiny synthetic domains."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from retr_hf.baselines.recguru import RecGuru
from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world, write_world
from retr_hf.measuring import ranks_of_split
from retr_hf.model.recommender import open_model
from retr_hf.report.results import read_rows
from retr_hf.training.recipe import load_recipe
from retr_hf.training.settings import EvaluationSettings

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "recguru" / "scientific.yaml"
SCRIPT = str(ROOT / "scripts" / "recguru.py")


def script(monkeypatch, *arguments):
    """Runs the script in this process."""
    monkeypatch.setattr(sys, "argv", ["scripts/recguru.py", *map(str, arguments)])
    runpy.run_path(SCRIPT, run_name="__main__")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """The recipe of Scientific, on two synthetic domains and a few steps."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, source_users=60, source_items=60, target_users=40, target_items=60)
    training = {"batch_size": 32, "reconstruction_steps": 4, "warmup_steps": 2, "adversarial_steps": 3,
                "critic_steps": 2, "target_steps": 8, "evaluate_every": 3, "patience": 0}  # fmt: skip
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    return [
        f"data.sources=[{folder / 'garden'},{folder / 'music'}]",
        f"data.target={folder / 'camping'}",
        "data.max_length=10",
        "evaluation.cutoffs=[10]",
        "output=runs/{seed}",
        *(f"training.{key}={value}" for key, value in training.items()),
        *(f"model.{key}={value}" for key, value in sizes.items()),
    ]


def test_a_run_its_repeat_and_its_resumption(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        script(monkeypatch, RECIPE, *overrides, f"output=runs/{name}", f"results={name}.jsonl", "--quiet")
    first, second = (read_rows(f"{name}.jsonl") for name in ("first", "second"))
    assert {row.protocol for row in first} == {"full", "full-unseen", "sampled"}
    assert [row.metrics for row in first] == [row.metrics for row in second]
    assert all(row.sources == ["garden", "music"] and row.synthetic and row.settings["steps"] == 15 for row in first)
    weights = {name: RecGuru.from_pretrained(f"runs/{name}") for name in ("first", "second")}
    assert same(weights["first"], weights["second"])

    # Loaded again it ranks as was measured.
    target = load_domain(next(word for word in overrides if "target=" in word).split("=")[1])
    ranks = ranks_of_split(weights["first"], target, "test", None, EvaluationSettings(cutoffs=[10]), 10)
    measured = {row.protocol: row.metrics["HR@10"] for row in first}
    assert {protocol: float((r <= 10).mean()) for protocol, r in ranks.items()} == pytest.approx(measured)
    monkeypatch.setattr(
        sys, "argv", ["scripts/evaluate.py", "runs/first", str(target.path), "--results", "again.jsonl"]
    )
    runpy.run_path(str(ROOT / "scripts" / "evaluate.py"), run_name="__main__")
    assert {row.protocol: row.metrics["HR@10"] for row in read_rows("again.jsonl")} == pytest.approx(measured)

    with pytest.raises(ValueError, match="'recguru': .* a RecGURU folder is opened by scripts/evaluate.py alone"):
        open_model("runs/first")

    # Broken off in each phase, gone on with: the same weights, the same rows.
    from retr_hf.baselines import recguru_training

    for phase, at in (("Reconstruction", 4), ("Adversarial", 1), ("Target", 5)):
        broken, calls = getattr(recguru_training, phase), []
        whole = broken.step

        def step(self, *arguments, calls=calls, at=at, whole=whole):
            calls.append(None)
            if len(calls) == at:
                raise KeyboardInterrupt
            return whole(self, *arguments)

        run = [RECIPE, *overrides, f"output=runs/{phase}", f"results={phase}.jsonl", "--quiet"]
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
            patch.setattr(broken, "step", step)
            script(monkeypatch, *run)
        assert stopped.value.code == 130 and not Path(f"{phase}.jsonl").exists()
        script(monkeypatch, *run, "--resume")
        assert [row.metrics for row in read_rows(f"{phase}.jsonl")] == [row.metrics for row in first]
        assert same(RecGuru.from_pretrained(f"runs/{phase}"), weights["first"])
        assert Path(f"runs/{phase}/log.jsonl").read_text() == Path("runs/first/log.jsonl").read_text()
    capsys.readouterr()
    script(monkeypatch, *run, "--resume")
    assert "nothing to do" in capsys.readouterr().out


def same(one: RecGuru, other: RecGuru) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_it_learns_what_follows_what(overrides, tmp_path, monkeypatch):
    """In the cycle i is always followed by i + 1; of its 20 items the history holds 11: guessing finds one in 9."""
    monkeypatch.chdir(tmp_path)
    write_domain(cycle_world().to_raw({}), "cycle", k_core=0)
    learn = {"batch_size": 50, "reconstruction_steps": 40, "warmup_steps": 20, "adversarial_steps": 2,
             "target_steps": 60, "evaluate_every": 60, "target_learning_rate": 5e-3}  # fmt: skip
    given = ["data.target=cycle", "model.hidden_size=16", "model.dropout=0.0", "evaluation.cutoffs=[1,10]",
             *(f"training.{key}={value}" for key, value in learn.items()), "results=rows.jsonl"]  # fmt: skip
    script(monkeypatch, RECIPE, *overrides, *given, "--quiet")
    assert {row.protocol: row.metrics["HR@1"] for row in read_rows("rows.jsonl")}["full-unseen"] > 0.5


def test_it_stops_where_nothing_is_gained(overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["training.patience=1", "training.target_learning_rate=1e-12", "training.reconstruction_steps=0",
             "training.adversarial_steps=0", "training.target_steps=30", "results=rows.jsonl"]  # fmt: skip
    script(monkeypatch, RECIPE, *overrides, *short, "--quiet")
    assert all(r.settings["stopped_early"] and r.settings["steps"] == 6 for r in read_rows("rows.jsonl"))


def test_mistakes_are_told_in_words(overrides, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def told(*more):
        with pytest.raises(SystemExit) as stopped:
            script(monkeypatch, RECIPE, *overrides, *more)
        assert stopped.value.code == 2 and not Path("runs").exists()
        return capsys.readouterr().err

    target = next(word for word in overrides if "target=" in word).split("=")[1]
    assert "is the target itself" in told(f"data.sources=[{target}]")
    said = told("training.critic_step=1", "training.metric=NDCG@5", "model.hidden_size=7", "init=.")
    assert "critic_steps" in said and "hidden_size=7" in said and "init: RecGURU" in said
    assert "not computed" in told("training.metric=NDCG@5")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "recguru").glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_well_formed(path):
    schema = runpy.run_path(SCRIPT)["SCHEMA"]
    given = ["data.sources=[x]", "data.target=y"] if path.stem == "base" else []
    load_recipe(path, given, schema, check_paths=False)
    assert "scripts/recguru.py" in path.read_text(encoding="utf-8").split("\nname:")[0]
