"""The grid: what is planned, that a pre-trained run and its twin are one model, and a whole one in this process."""

import json
from pathlib import Path

import pytest
import yaml

from retr_hf.errors import RecipeError
from retr_hf.jobs.grid import GridSettings, Plan
from retr_hf.jobs.queue import JobQueue
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.report.results import read_rows
from retr_hf.stage import recipe_as_run
from retr_hf.training.run_folder import RUN_FILE

ROOT = Path(__file__).resolve().parents[2]
GRID = {
    "pretrain": "pretrain.yaml",
    "finetune": ["finetune.yaml"],
    "systems": ["plain.yaml", "timed.yaml"],
    "scratch_only": ["ids.yaml"],
    "seeds": [0, 1],
    "output": "runs/grid",
}


def plan(**change):
    return Plan(GridSettings(**GRID | change), scripts=ROOT / "scripts")


def test_every_run_is_planned_or_left_out_with_its_reason(here):
    it = plan()
    assert [job.name for job in it.jobs] == [
        "camping/popularity", "camping/text-similarity", "cycle/popularity",
        "pretrain/plain",
        "camping/plain/pretrained-0", "camping/plain/scratch-0",
        "camping/plain/pretrained-1", "camping/plain/scratch-1",
        "camping/plain/zero-shot",
        "camping/ids/scratch-0", "camping/ids/scratch-1", "cycle/ids/scratch-0", "cycle/ids/scratch-1",
    ]  # fmt: skip
    needs = {job.name: job.needs for job in it.jobs}
    assert {name for name, need in needs.items() if need == "pretrain/plain"} == {
        "camping/plain/pretrained-0", "camping/plain/pretrained-1", "camping/plain/zero-shot"
    }  # fmt: skip
    timed = "attention modulating reads timestamps, and"
    assert it.left_out == [
        "text-similarity on cycle: its items have no text vectors",
        "Plain on cycle, pretrained: the items of cycle have no text vectors",
        "Plain on cycle, scratch: the items of cycle have no text vectors",
        f"Timed, pre-trained: {timed} music has none",
        f"Timed on camping, scratch: {timed} camping has none",
        "Timed on cycle, scratch: the items of cycle have no text vectors",
    ]
    assert it.systems == ["popularity", "text-similarity", "Plain", "Plain zero-shot", "Timed", "Ids"]


def test_the_twin_is_the_model_that_would_have_been_loaded(here):
    jobs = {job.name: job for job in plan().jobs}
    names = ("pretrain/plain", "camping/plain/pretrained-0", "camping/plain/scratch-0")
    before, carried, scratch = (jobs[name].recipe for name in names)
    assert RetrConfig(**before["model"] | carried["model"]) == RetrConfig(**scratch["model"])
    assert scratch["model"]["hidden_size"] == 16 and scratch["model"]["hidden_dropout"] == 0.2
    one, other = carried.as_dict(), scratch.as_dict()
    assert one["init"] == "runs/grid/pretrain/plain" and other["init"] is None
    assert one["training"].pop("freeze") == "backbone" and other["training"].pop("freeze") == "none"
    differing = {key for key in one if one[key] != other[key]}
    assert differing == {"init", "output"} and recipe_as_run(carried) == recipe_as_run(scratch)
    words = jobs["camping/plain/scratch-0"].command()
    assert words[1:3] == ["finetune.yaml", "plain.yaml"] and {"init=null", "training.freeze=none", "--resume"} <= {
        *words
    }


def test_what_a_search_chose_is_for_fine_tuning_alone(here):
    chosen = Path("runs/search/camping/plain.yaml")
    chosen.parent.mkdir(parents=True)
    content = {"extends": "../../../plain.yaml", "training": {"learning_rate": 0.5}, "model": {"hidden_dropout": 0.3}}
    chosen.write_text(yaml.safe_dump(content))
    only = {"systems": ["plain.yaml"], "scratch_only": [], "finetune_overrides": ["data.domains=[data/camping]"]}
    jobs = {job.name: job for job in plan(**only, searched="runs/search").jobs}
    before, *twins = (
        jobs[name].recipe for name in ("pretrain/plain", "camping/plain/pretrained-0", "camping/plain/scratch-0")
    )
    assert (before["training"].learning_rate, before["model"]["hidden_dropout"]) == (1e-3, 0.1)
    assert {(one["training"].learning_rate, one["model"]["hidden_dropout"]) for one in twins} == {(0.5, 0.3)}
    assert str(chosen) in jobs["camping/plain/scratch-0"].command()
    with pytest.raises(RecipeError, match="searched: runs/search/camping/ids.yaml is not there: let scripts/search"):
        plan(**only | {"systems": ["ids.yaml"]}, searched="runs/search")


def test_variants_beside_a_pretraining_may_have_settings_of_fine_tuning(here):
    variants = [["few", "plain.yaml", "data.train_users=20"], ["-0.3", "plain.yaml", "model.hidden_dropout=0.3"]]
    variants += [["0.3", "plain.yaml", "model.hidden_dropout=0.4"]]
    it = plan(systems=[], scratch_only=[], variants=variants, finetune_overrides=["data.domains=[data/camping]"])
    stems = [job.name.split("/")[1] for job in it.jobs if job.name.endswith("scratch-0")]
    assert stems == ["few", "-0.3", "0.3"]
    few = next(job for job in it.jobs if job.name.startswith("camping/few"))
    assert few.recipe["data"].train_users == 20 and few.recipe["model"]["hidden_size"] == 16


def test_mistakes_are_told_before_anything_runs(here):
    with pytest.raises(RecipeError, match="a grid expects a finetune recipe here, came pretrain"):
        plan(finetune=["pretrain.yaml"])
    with pytest.raises(RecipeError, match="training.epohs"):
        plan(finetune_overrides=["training.epohs=3"])
    with pytest.raises(RecipeError, match="data.train_on: all leaves nothing to measure"):
        plan(finetune_overrides=["data.train_on=all", "training.epochs=3"])
    with pytest.raises(RecipeError, match="camping/popularity: given twice"):
        plan(finetune=["finetune.yaml", "finetune.yaml"])
    with pytest.raises(ValueError, match="seeds: expected at least one"):
        GridSettings(**GRID | {"seeds": []})


def test_without_pretraining_systems_and_variants_run_from_scratch(here):
    only = {"pretrain": None, "starts": ["scratch"], "systems": ["ids.yaml"], "scratch_only": [], "seeds": [0, 1]}
    only |= {"variants": [["two, heads", "ids.yaml", "model.num_attention_heads=2"]], "baselines": []}
    it = plan(**only)
    assert [job.name for job in it.jobs] == [
        f"{domain}/{stem}/scratch-{seed}"
        for stem in ("ids", "two_heads") for domain in ("camping", "cycle") for seed in (0, 1)
    ]  # fmt: skip
    assert it.systems == ["Ids", "two, heads"] and it.left_out == []
    one, other = it.jobs[0].recipe.as_dict(), it.jobs[4].recipe.as_dict()
    assert {key for key in one if one[key] != other[key]} == {"name", "model", "output"}
    assert other["model"] == one["model"] | {"num_attention_heads": 2} and one["init"] is None
    for change, told in [
        ({"starts": ["pretrained", "scratch"]}, r"without a pre-training recipe expected \[scratch\]"),
        ({"variants": [["heads", "model.num_attention_heads=2"]]}, "expected a name, a system file, then overrides"),
        (
            {"variants": [["two", "ids.yaml", "seed=3"]]},
            "variants: two: seed would have no effect, every run has its own",
        ),
        (
            {"finetune_overrides": ["init=null", "output=x"]},
            "init would have no effect.*; finetune_overrides: output would",
        ),
    ]:
        with pytest.raises(ValueError, match=told):
            GridSettings(**GRID | only | change)


S3 = {
    "pretrain": None, "starts": ["scratch"], "systems": ["s3.yaml"], "scratch_only": [], "seeds": [0], "baselines": [],
    "variants": [["S3 routed", "s3.yaml", "model.router=pathway"]],
    "pretrain_on_target": [["s3.yaml", "on_cycle.yaml"]],
    "finetune_overrides": ["training.freeze=none"],
}  # fmt: skip


def test_a_system_pretrained_on_each_target_itself(here):
    it = plan(**S3)
    assert [(job.name, job.needs) for job in it.jobs] == [
        ("cycle/s3/pretraining", None), ("cycle/s3/pretrained-0", "cycle/s3/pretraining"),
        ("cycle/s3_routed/pretraining", None), ("cycle/s3_routed/pretrained-0", "cycle/s3_routed/pretraining"),
    ]  # fmt: skip
    assert it.left_out == [
        f"{name} on camping: no recipe of pretrain_on_target reads data/camping" for name in ("S3", "S3 routed")
    ]
    before, after = (job.recipe for job in it.jobs[2:])
    assert before["model"]["router"] == after["model"]["router"] == "pathway"
    assert before.name == after.name == "S3 routed" and after.run.init == before.run.output
    with pytest.raises(ValueError, match="pretrain_on_target: expected a system file, then recipes"):
        GridSettings(**GRID | S3 | {"pretrain_on_target": [["s3.yaml"]]})


def test_a_whole_grid(here, in_process, capsys):
    change = {"systems": ["plain.yaml"], "seeds": [0], "finetune_overrides": ["data.domains=[data/camping]"]}

    def run():
        it = plan(**change)
        queue = JobQueue(it.jobs, it.output / "logs", start=in_process, tell=lambda line: None)
        left = [job.name for job in queue.waiting]
        queue.run()
        assert not queue.failed
        return left

    assert len(run()) == 7
    rows = read_rows("runs/grid/rows.jsonl")
    measured = {(row.system, tuple(row.sources)) for row in rows}
    assert measured == {
        ("popularity", ()), ("text-similarity", ()),
        ("Plain", ("music",)), ("Plain", ()), ("Plain zero-shot", ("music",)), ("Ids", ()),
    }  # fmt: skip
    twins = {row.recipe for row in rows if row.system == "Plain"}
    shape = [f"model.{key}=" for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_experts")]
    assert len(twins) == 1 and all(part in min(twins) for part in ["finetune.yaml + plain.yaml + ", *shape])
    assert run() == []

    # A run that was broken off is done again, and so is all that hangs on an older pre-trained model.
    about = Path("runs/grid/camping/ids/scratch-0") / RUN_FILE
    about.write_text(json.dumps(json.loads(about.read_text()) | {"finished": None}))
    assert run() == ["camping/ids/scratch-0"]
    about = Path("runs/grid/pretrain/plain") / RUN_FILE
    late = {"started": "2999-01-01T00:00:00+00:00", "finished": "2999-01-01T01:00:00+00:00"}
    about.write_text(json.dumps(json.loads(about.read_text()) | late))
    queue = JobQueue(plan(**change).jobs, Path("logs"))
    assert [job.name for job in queue.waiting] == ["camping/plain/pretrained-0", "camping/plain/zero-shot"]
    assert queue.waiting[0].command()[-1] == "--overwrite"

    # Rows that are gone are told, with what measures again.
    kept = Path("runs/grid/rows.jsonl").read_text()
    lines = [line for line in kept.splitlines() if json.loads(line)["model"] != "runs/grid/camping/ids/scratch-0"]
    Path("runs/grid/rows.jsonl").write_text("\n".join(lines))
    told = JobQueue(plan(**change).jobs, Path("logs"), tell=lambda line: None).failed
    assert list(told) == ["camping/ids/scratch-0"]
    command = "scripts/evaluate.py runs/grid/camping/ids/scratch-0 data/camping --name Ids --results runs/grid/rows"
    assert f"no row of it is in runs/grid/rows.jsonl: python {command}" in told["camping/ids/scratch-0"]
    Path("runs/grid/rows.jsonl").write_text(kept)

    # Measured at other cutoffs is not measured.
    cutoffs = change["finetune_overrides"] + ["evaluation.cutoffs=[10, 20]"]
    waiting = JobQueue(plan(**change | {"finetune_overrides": cutoffs}).jobs, Path("logs"), tell=lambda line: None)
    assert {"camping/popularity", "camping/text-similarity"} <= {job.name for job in waiting.waiting}

    # Made with another recipe: told, not taken for the same.
    queue = JobQueue(plan(**change | {"pretrain_overrides": ["training.max_steps=3"]}).jobs, Path("logs"))
    assert "cannot be resumed with another recipe" in queue.failed["pretrain/plain"]


def test_a_pretraining_on_the_target_is_run_and_its_model_goes_on(here, script):
    Path("s3_grid.yaml").write_text(yaml.safe_dump(GRID | S3))
    code, told = script("grid.py", "s3_grid.yaml")
    assert code == 0, told
    rows = read_rows("runs/grid/rows.jsonl")
    assert {(row.system, *row.sources) for row in rows} == {("S3", "cycle"), ("S3 routed", "cycle")}
    assert {row.settings["router"] for row in rows if row.system == "S3 routed"} == {"pathway"}
    assert JobQueue(plan(**S3).jobs, Path("logs")).waiting == []
    table = Path("runs/grid/table.md").read_text()
    assert "sampled HR@10 |" in table and "full HR@10 |" in table and "body GFLOPs |" in table
    assert "S3 on camping: no recipe" in table and "\n| S3 routed | " in table


def test_the_script_prints_what_is_left_and_writes_the_table(here, script):
    Path("grid.yaml").write_text(yaml.safe_dump(GRID))
    only = ["systems=[plain.yaml]", "scratch_only=[]", "seeds=[0]"]
    code, told = script("grid.py", "grid.yaml", *only, "--dry-run")
    commands = [line for line in told.out.splitlines() if line.startswith("python ")]
    assert code == 0 and len(commands) == 7 and "'data.domains=[data/camping]'" in told.out
    assert "left out: text-similarity on cycle" in told.out and not Path("runs").exists()
    code, told = script("grid.py", "grid.yaml", "sytems=[plain.yaml]")
    assert code == 2 and "did you mean systems?" in told.err

    overrides = [*only, "finetune_overrides=['data.domains=[data/camping]']", "baselines=[popularity]", "output=runs/x"]
    plain = Path("plain.yaml").read_text()
    Path("plain.yaml").unlink()
    Path("plain.yaml").write_text(plain + "training: {learning_rate: 1.0e+30}")
    code, told = script("grid.py", "grid.yaml", *overrides)
    assert code == 1 and "FAILED" in told.out and "failed: " in told.err
    assert "popularity" in Path("runs/x/table.md").read_text()
    Path("plain.yaml").write_text(plain)
    code, told = script("grid.py", "grid.yaml", *overrides, "output=runs/y", "--figure", "d.png")
    assert code == 0 and "[5/5]" in told.out and "FAILED" not in told.out and Path("d.png").stat().st_size
    table = Path("runs/y/table.md").read_text()
    assert "SYNTHETIC" in table and "| Plain zero-shot" in table and "n=1)" in table

    # What another recipe left is told, and is no row of this one's table.
    longer = f"finetune_overrides={overrides[len(only)].partition('=')[2][:-1]}, training.epochs=9]"
    code, told = script("grid.py", "grid.yaml", *overrides, longer, "output=runs/y")
    assert code == 1 and "another recipe" in told.err
    table = Path("runs/y/table.md").read_text()
    assert "| Plain zero-shot" in table and "(n=1)" not in table and "another recipe" in table
