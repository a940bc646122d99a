"""The folder of a run: what it refuses, what it keeps, what an interruption leaves."""

import json
import shutil
import subprocess
import sys

import pytest

from retr_hf.errors import RecipeError
from retr_hf.training.recipe import load_recipe
from retr_hf.training.run_folder import LOG_FILE, RECIPE_FILE, RUN_FILE, RunFolder, newest, replace_folder
from retr_hf.training.settings import SETTINGS

RECIPE = """
name: pantry
task: finetune
output: runs/pantry
data:
  domains: [data/pantry]
training:
  epochs: 3
"""


@pytest.fixture
def recipe(tmp_path):
    """(overrides) -> a recipe."""
    file = tmp_path / "pantry.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return lambda *overrides: load_recipe(file, overrides, SETTINGS, check_paths=False)


@pytest.fixture
def run(tmp_path, recipe):
    """A run that was begun and left a checkpoint."""
    folder = RunFolder(tmp_path / "run")
    folder.open(recipe(), {"command": "the first", "finished": None})
    folder.last.mkdir(parents=True)
    return folder


def about(folder: RunFolder) -> dict:
    return json.loads((folder.path / RUN_FILE).read_text(encoding="utf-8"))


def test_a_new_folder(tmp_path, recipe):
    folder = RunFolder(tmp_path / "far" / "away")
    folder.open(recipe(), {"command": "train", "finished": None})
    assert sorted(file.name for file in folder.path.iterdir()) == [RECIPE_FILE, RUN_FILE]
    assert load_recipe(folder.path / RECIPE_FILE, [], SETTINGS, check_paths=False) == recipe()
    assert not folder.finished
    folder.write_json(RUN_FILE, {"finished": "today"})
    assert folder.finished


def test_what_is_not_the_runs_is_not_overwritten(run, recipe):
    (run.path / "rows.jsonl").write_text("of all seeds")
    (run.path / "longer").mkdir()
    (run.path / "longer" / RUN_FILE).write_text("{}")
    kept = [f"results={run.path / 'rows.jsonl'}", f"init={run.path}"]
    with pytest.raises(RecipeError) as told:
        run.open(recipe(*kept), {"command": "anew"}, overwrite=True)
    assert [problem.split(":")[0] for problem in told.value.problems] == [
        f"--overwrite would delete {each}"
        for each in (
            f"the result rows {run.path / 'rows.jsonl'}",
            f"the model to begin with, {run.path}",
            f"another run, {run.path / 'longer'}",
        )
    ]
    assert (run.path / "rows.jsonl").is_file() and about(run)["command"] == "the first"
    shutil.rmtree(run.path / "longer")
    (run.path / "rows.jsonl").unlink()
    run.open(recipe(kept[0]), {"command": "anew"}, overwrite=True)
    assert about(run)["command"] == "anew" and not run.last.exists()


def test_a_broken_run_file_is_named(run):
    (run.path / RUN_FILE).write_text("")
    with pytest.raises(RecipeError, match=f"(?s){RUN_FILE}.*is not JSON.*move it away"):
        _ = run.finished


def test_a_run_is_neither_overwritten_nor_continued_by_accident(run, recipe):
    with pytest.raises(RecipeError, match="holds a run already: --resume .* --overwrite"):
        run.open(recipe(), {"command": "the second"})
    assert about(run)["command"] == "the first" and run.last.is_dir()


def test_overwrite_starts_anew(run, recipe):
    run.open(recipe("training.epochs=9"), {"command": "the second"}, overwrite=True)
    assert about(run)["command"] == "the second" and not run.last.exists()
    assert "epochs: 9" in (run.path / RECIPE_FILE).read_text(encoding="utf-8")


def test_resume_goes_on(run, recipe):
    run.open(recipe(), {"command": "the second", "finished": None}, resume=True)
    assert about(run)["command"] == "the first" and run.last.is_dir()
    assert [part["command"] for part in about(run)["resumed"]] == ["the second"]


def test_resume_needs_as_many_processes(run, recipe):
    with pytest.raises(RecipeError, match="began on 1 processes, resumed on 2"):
        run.open(recipe(), {"command": "the second", "num_processes": 2}, resume=True)


def test_resume_of_nothing_is_a_new_run(tmp_path, recipe):
    folder = RunFolder(tmp_path / "none")
    folder.open(recipe(), {"command": "the first"}, resume=True)
    assert (folder.path / RECIPE_FILE).is_file()


def test_resume_tells_every_difference(run, recipe):
    other = recipe("training.learning_rate=0.5", "training.epochs=4", "seed=7", "training.progress=false")
    with pytest.raises(RecipeError, match="another recipe") as told:
        run.open(other, {"command": "the second"}, resume=True)
    assert told.value.problems == [
        "seed: the run has 0, now 7",
        "training.epochs: the run has 3, now 4",
        "training.learning_rate: the run has 0.001, now 0.5",
    ]
    assert about(run)["command"] == "the first", "nothing was touched"


def test_a_run_from_before_a_setting_was_there_goes_on(run, recipe):
    saved = run.path / RECIPE_FILE
    text = saved.read_text(encoding="utf-8")
    older = [line for line in text.splitlines() if "candidates:" not in line]
    assert len(older) < len(text.splitlines())
    saved.write_text("\n".join(older) + "\n", encoding="utf-8")
    with pytest.raises(RecipeError) as told:
        run.open(recipe("data.extra_candidates=9"), {"command": "the second"}, resume=True)
    assert told.value.problems == ["data.extra_candidates: the run has 0, now 9"]
    run.open(recipe(), {"command": "the second"}, resume=True)
    assert [part["command"] for part in about(run)["resumed"]] == ["the second"]


def test_what_does_not_change_the_result_may_differ(run, recipe):
    other = recipe(
        "training.progress=false",
        "training.trackers=[tensorboard]",
        "description=once more",
        "results=r",
        "training.save_every=3",
    )
    run.open(other, {"command": "the second"}, resume=True)
    assert [part["command"] for part in about(run)["resumed"]] == ["the second"]


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_others_is_left_alone(tmp_path, recipe, options):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RecipeError, match="not empty and holds no run of ours"):
        RunFolder(tmp_path / "thesis").open(recipe(), {}, **options)
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("output", ["notes.txt", "notes.txt/run"])
def test_a_file_is_no_place_for_a_run(tmp_path, recipe, output):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"notes\.txt is a file: expected a folder, set another output"):
        RunFolder(tmp_path / output).open(recipe(), {})
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine" and not list(tmp_path.glob(".*"))


def test_an_empty_folder_is_taken(tmp_path, recipe):
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").open(recipe(), {})
    assert (tmp_path / "empty" / RECIPE_FILE).is_file()


def test_rewinding_the_log_drops_later_and_torn_lines(run):
    for step in (2, 4, 6):
        run.log(step=step, loss=1 / step)
    with open(run.path / LOG_FILE, "a", encoding="utf-8") as file:
        file.write('{"step": 3, "lo')
    run.rewind_log(4)
    run.log(step=6, loss=0.5)
    lines = (run.path / LOG_FILE).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 2, "loss": 0.5},
        {"step": 4, "loss": 0.25},
        {"step": 6, "loss": 0.5},
    ]
    assert not list(run.path.glob(f".{LOG_FILE}*")), "no temporary file stays"


def test_rewinding_no_log(run):
    run.rewind_log(4)
    assert not (run.path / LOG_FILE).exists()


def folder_with(path, text):
    path.mkdir(parents=True)
    (path / "weights").write_text(text, encoding="utf-8")
    return path


def test_replacing_a_folder(tmp_path):
    final = folder_with(tmp_path / "last", "old")
    folder_with(tmp_path / "last.old", "left by an interruption")
    replace_folder(folder_with(tmp_path / "last.tmp", "new"), final)
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert (newest(final) / "weights").read_text(encoding="utf-8") == "new"


def test_between_the_two_renames_the_older_one_is_found(tmp_path):
    final = tmp_path / "last"
    assert newest(final) is None
    folder_with(tmp_path / "last.tmp", "perhaps half-written")
    assert newest(final) is None
    old = folder_with(tmp_path / "last.old", "old")
    assert newest(final) == old
    replace_folder(tmp_path / "last.tmp", final)
    assert newest(final) == final and not old.exists()


@pytest.mark.parametrize("name", ["best", "best.old"])  # the second: an interruption between two renames
def test_publish_copies_the_best_model_to_the_top(run, name):
    folder_with(run.best.with_name(name), "new")
    (run.path / "weights").write_text("of an earlier try", encoding="utf-8")
    run.publish(run.best)
    assert (run.path / "weights").read_text(encoding="utf-8") == "new"
    assert not list(run.path.glob(".weights*"))


def test_another_process_waits_outside(tmp_path, recipe):
    code = "import sys, pathlib; from retr_hf.training.folder_lock import hold; lock = hold(pathlib.Path(sys.argv[1]))"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('held', flush=True); input()", tmp_path / "run"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RecipeError, match="another process works in this folder"):
            RunFolder(tmp_path / "run").open(recipe(), {"finished": None}, resume=True)
        assert not (tmp_path / "run").exists()
    finally:
        other.kill()
        other.communicate()
    RunFolder(tmp_path / "run").open(recipe(), {"finished": None}, resume=True)  # a killed process holds nothing
