"""The search: the same tries for every system, chosen on validation items, left as system files."""

import json
from pathlib import Path

import pytest
import yaml

from retr_hf.errors import RecipeError
from retr_hf.jobs.grid import GridSettings, Plan
from retr_hf.jobs.search import Search, SearchSettings
from retr_hf.training.run_folder import LOG_FILE, RUN_FILE

ROOT = Path(__file__).resolve().parents[2]
SEARCH = {
    "finetune": ["finetune.yaml"],
    "systems": ["plain.yaml", "ids.yaml"],
    "values": ["training.learning_rate=[1e-3, 1e-2]", "model.hidden_dropout=[0.2, 0.5]"],
    "overrides": ["data.domains=[data/camping]", "training.freeze=none", "model.num_experts=2"],
    "output": "runs/search",
}


def search(**change):
    return Search(SearchSettings(**SEARCH | change), scripts=ROOT / "scripts")


def leave(job, scores, finished=True):
    """What a run leaves behind, its validation metrics by epoch."""
    job.folder.path.mkdir(parents=True)
    lines = [{"epoch": epoch, "step": epoch, "NDCG@10": score} for epoch, score in enumerate(scores, 1)]
    lines.insert(1, {"epoch": 1, "step": 1, "loss": 9.0})  # an epoch without evaluation
    (job.folder.path / LOG_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    about = {"recipe": "r", "commit": "0123456789", "versions": {"torch": "2"}, "date": "2026-11-23T01:02:03+00:00"}
    (job.folder.path / RUN_FILE).write_text(json.dumps(about))


def test_every_system_tries_the_same_and_is_not_tested(here):
    it = search(seeds=[0, 1])
    tried = {}
    for job in it.jobs:
        recipe = job.recipe
        assert recipe["evaluation"].test is False and recipe.run.init is None
        values = recipe["training"].learning_rate, recipe["model"]["hidden_dropout"], recipe.run.seed
        tried.setdefault(recipe["model"].get("item_features"), []).append(values)
    expected = [(rate, dropout, seed) for rate in (1e-3, 1e-2) for dropout in (0.2, 0.5) for seed in (0, 1)]
    assert tried == {None: expected, "id": expected}
    assert len({job.name for job in it.jobs}) == 16


def test_the_best_mean_over_seeds_is_chosen_and_goes_over_recipes_and_into_grids(here):
    it = search(seeds=[0, 1])
    for number, job in enumerate(it.jobs):
        leave(job, [0.1, 0.2 + 0.01 * (number % 8 in (4, 5)), 0.05])  # the third try of four
    leave_worse = it.jobs[0].folder.path / LOG_FILE  # a lucky seed does not make its try the best
    leave_worse.write_text(json.dumps({"epoch": 7, "step": 7, "NDCG@10": 0.215}) + "\n")
    written = it.conclude({job.name for job in it.jobs})
    assert written == [Path("runs/search/camping/plain.yaml"), Path("runs/search/camping/ids.yaml")]
    content = yaml.safe_load(written[0].read_text())
    assert content == {
        "extends": "../../../plain.yaml", "training": {"learning_rate": 0.01}, "model": {"hidden_dropout": 0.2}
    }  # fmt: skip
    first = written[0].read_text().splitlines()[0]
    assert first == "# plain, chosen on camping: validation NDCG@10 0.2100, seeds [0, 1], 2026-11-23, commit 0123456"

    grid = {"finetune": ["finetune.yaml"], "systems": list(map(str, written)), "starts": ["scratch"], "seeds": [3]}
    grid |= {"output": "runs/grid", "baselines": [], "finetune_overrides": SEARCH["overrides"]}
    plain, ids = (job.recipe for job in Plan(GridSettings(**grid), ROOT / "scripts").jobs)
    assert (plain.name, plain["training"].learning_rate, plain["model"]["hidden_dropout"]) == ("Plain", 0.01, 0.2)
    assert ids.name == "Ids" and ids["model"]["item_features"] == "id" and ids["evaluation"].test

    tries = [json.loads(line) for line in Path("runs/search/tries.jsonl").read_text().splitlines()]
    assert len(tries) == 16 and tries[0] == {
        "domain": "camping", "system": "plain", "training.learning_rate": 1e-3, "model.hidden_dropout": 0.2, "seed": 0,
        "validation NDCG@10": 0.215, "epoch": 7, "recipe": "r", "commit": "0123456789", "versions": {"torch": "2"},
        "date": "2026-11-23T01:02:03+00:00",
    }  # fmt: skip
    table = [line for line in Path("runs/search/table.md").read_text().splitlines() if line.startswith("| camping")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert cells[2] == ["camping", "plain", "0.01", "0.2", "0.2100 ± 0.0000 (n=2)", "2, 2", "yes"]
    assert [line[-1] for line in cells] == ["", "", "yes", ""] * 2


def test_a_system_with_a_try_that_failed_is_not_chosen(here):
    it = search()
    for job in it.jobs:
        leave(job, [0.1])
    assert len(it.conclude({job.name for job in it.jobs})) == 2
    done = {job.name for job in it.jobs[1:]}
    assert it.conclude(done) == [Path("runs/search/camping/ids.yaml")]
    assert not Path("runs/search/camping/plain.yaml").exists()  # what was chosen before
    assert len(Path("runs/search/tries.jsonl").read_text().splitlines()) == 7
    table = Path("runs/search/table.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("| camping")]
    assert [(line[2], line[-2]) for line in lines] == [("plain", "")] * 4 + [("ids", "yes")] + [("ids", "")] * 3


def test_a_system_with_a_try_that_was_left_out_is_not_chosen(here):
    it = search(values=["model.score=[cosine, dot]", "model.text_path=[false, true]"])  # ids alone have no text path
    for job in it.jobs:
        leave(job, [0.1])
    assert any("text_path=True reads text vectors" in sentence for sentence in it.left_out)
    assert it.conclude({job.name for job in it.jobs}) == [Path("runs/search/camping/plain.yaml")]
    Path("runs/search/camping/ids.yaml").write_text("name: older")  # chosen of other values
    it = search(values=["model.text_path=[true]"])
    assert {job.recipe.name.split()[0] for job in it.jobs} == {"plain"}
    it.conclude(set())
    assert not Path("runs/search/camping/ids.yaml").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"values": []}, "values: expected at least one"),
        ({"values": ["training.learning_rate=1e-3"]}, r"expected section.key=\[value, value, ...\], came training"),
        ({"values": ["training.learning_rate=[1e-3"]}, r"expected section.key=\[value, value, ...\], came training"),
        ({"values": ["seed=[1, 2]"]}, "expected a key of model or training, which a system file may give, came seed"),
        ({"values": ["model.hidden_dropout=[0.2, 0.2]"]}, "every value of model.hidden_dropout once"),
        ({"values": ["training.metric=[HR@10, MRR]"]}, "training.metric cannot be searched: tries are compared by it"),
        ({"values": ["training.pretrained_rate=[0.1]"]}, "cannot be searched: from scratch nothing is pre-trained"),
        ({"values": ["model.hidden_dropout=[0.2]"] * 2}, "values: model.hidden_dropout: given twice"),
        ({"overrides": ["evaluation.test=true"]}, "overrides: evaluation.test would have no effect"),
        ({"overrides": ["model.hidden_dropout=0.1"]}, "overrides: model.hidden_dropout would have no effect"),
    ],
)
def test_mistakes_of_a_search_file(change, told):
    with pytest.raises(ValueError, match=told):
        SearchSettings(**SEARCH | change)


def test_mistakes_in_what_is_tried_are_told_before_anything_runs(here):
    with pytest.raises(RecipeError, match="learning_rte .*: unknown key; did you mean training.learning_rate"):
        search(values=["training.learning_rte=[1, 2]"])
    with pytest.raises(RecipeError, match="systems: plain: given twice"):
        search(systems=["plain.yaml", "plain.yaml"])
    ids = Path("ids.yaml").read_text()
    Path("ids.yaml").unlink()  # a link to the world's
    Path("ids.yaml").write_text(ids + "training: {metric: MRR}\n")
    with pytest.raises(RecipeError, match="training.metric: MRR and NDCG@10: tries are compared by one"):
        search()


def test_values_of_opposite_sign_are_two_tries(here):
    it = search(values=["model.repeat_term_start=[-0.3, 0.3]"], systems=["plain.yaml"])
    assert len({job.name for job in it.jobs}) == 2


def test_the_script_searches_and_goes_on(here, script):
    Path("search.yaml").write_text(yaml.safe_dump(SEARCH | {"values": ["training.learning_rate=[1e-3, 1e-2]"]}))
    code, told = script("search.py", "search.yaml", "--dry-run")
    assert code == 0 and told.out.count("evaluation.test=false") == 4 and not Path("runs").exists()
    code, told = script("search.py", "search.yaml")
    assert code == 0, told
    assert "| camping | plain " in told.out and "wrote runs/search/table.md, runs/search/camping/plain.y" in told.out
    assert not Path("runs/search/rows.jsonl").exists()  # nothing was tested
    chosen = yaml.safe_load(Path("runs/search/camping/plain.yaml").read_text())["training"]["learning_rate"]
    tries = [json.loads(line) for line in Path("runs/search/tries.jsonl").read_text().splitlines()]
    of_plain = {row["training.learning_rate"]: row["validation NDCG@10"] for row in tries if row["system"] == "plain"}
    assert chosen == max(of_plain, key=of_plain.get)
    code, told = script("search.py", "search.yaml")
    assert code == 0 and "4 jobs, 4 of them done already" in told.out
    code, told = script("search.py", "search.yaml", "values=[model.hidden_dropout=5]")
    assert code == 2 and "error: " in told.err
