"""The journey as a user walks it: the scripts one after the other, on worlds with a known answer."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world, write_world
from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.data.whole_histories import whole_histories
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.model.recommender import Recommender
from retr_hf.report.results import read_rows
from retr_hf.route_look import ALL, CHANCE, NONE, OWN

ROOT = Path(__file__).resolve().parents[2]
TINY = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_experts": 2}


def script(monkeypatch, name, *arguments):
    """Runs a script of the repository in this process, as ``python scripts/NAME ...`` does."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    except SystemExit as stopped:
        if stopped.code:
            raise


def popularity(monkeypatch, domain):
    """Its rows by protocol."""
    script(monkeypatch, "evaluate.py", "--baseline", "popularity", domain, "--cutoffs", 10, "--results", "pop.jsonl")
    return {row.protocol: row for row in read_rows("pop.jsonl")}


def fails(monkeypatch, capsys, name, *arguments):
    """What a script says of its user's mistake."""
    with pytest.raises(SystemExit) as stopped:
        script(monkeypatch, name, *arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def write_recipe(path, **content):
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cycle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cycle") / "cycle"
    write_domain(cycle_world().to_raw({}), folder, k_core=0)
    embed_catalog(folder, "hashing:64", progress=False)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    domains = write_world(folder, source_users=60, source_items=60, target_users=40, target_items=60)
    for domain in domains:
        embed_catalog(domain, "hashing:64", progress=False)
    return folder


@pytest.mark.parametrize(
    "model",
    [
        {"item_features": "id", "router": "pathway"},
        {"item_features": "id", "router": "none", "objective": "bpr", "score": "dot"},
        {"item_features": "text", "router": "pathway"},
        {"item_features": "text+id", "router": "random", "router_init_keep": 0.9},
    ],
    ids=lambda model: "-".join(map(str, model.values())),
)
def test_cycle_world_reaches_recall_1(cycle, tmp_path, monkeypatch, model):
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        name="cycle",
        task="finetune",
        output=str(tmp_path / "run"),
        results=str(tmp_path / "rows.jsonl"),
        data={"domains": [str(cycle)], "max_length": 8},  # shorter than a training row: every position is trained
        model={
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_experts": 2,
            "hidden_dropout": 0.0,
            "attention_dropout": 0.0,
            **model,
        },
        training={
            "epochs": 100,
            "batch_size": 50,
            "learning_rate": 5e-3,
            "evaluate_every": 100,
            "progress": False,
            "metric": "HR@1",
        },
        evaluation={"cutoffs": [1]},
    )
    script(monkeypatch, "finetune.py", recipe)
    rows = read_rows(tmp_path / "rows.jsonl")
    reached = {row.protocol: row.metrics["HR@1"] for row in rows}
    if model.get("objective") == "bpr":  # its negatives are never items of the own history, so those stay on top
        assert reached.pop("full") < 1.0
    assert reached.pop("full", 1.0) == 1.0 and reached == {"full-unseen": 1.0, "sampled": 1.0}
    assert all(row.synthetic and row.sources == [] for row in rows)


def test_the_whole_journey(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pretrain = write_recipe(
        tmp_path / "pretrain.yaml",
        name="tiny",
        task="pretrain",
        output="runs/{name}",
        data={
            "domains": [str(world / "garden"), str(world / "music")],
            "max_length": 10,
            "window": "random",
            "candidates": "domain",
            "extra_candidates": 40,
        },
        model=TINY,
        training={"epochs": 2, "batch_size": 32, "progress": False},
        evaluation={"cutoffs": [10]},
    )
    script(monkeypatch, "pretrain.py", pretrain)
    assert {"config.json", "model.safetensors", "recipe.yaml", "run.json", "log.jsonl", "README.md"} <= {
        file.name for file in Path("runs/tiny").iterdir()
    }
    finetune = write_recipe(
        tmp_path / "finetune.yaml",
        name="tiny",
        task="finetune",
        init="runs/tiny",
        output="runs/{domain}",
        results="rows.jsonl",
        data={"domains": [str(world / "camping"), str(world / "pets")], "max_length": 10},
        training={"epochs": 1, "batch_size": 32, "progress": False, "freeze": "backbone"},
        evaluation={"cutoffs": [10]},
    )
    script(monkeypatch, "finetune.py", finetune)
    rows = read_rows("rows.jsonl")
    assert {row.domain for row in rows} == {"camping", "pets"}
    assert all(row.sources == ["garden", "music"] and "pathway AUC" in row.settings for row in rows)

    # The frozen body is the pre-trained one; what is saved scores as what was measured.

    before, after = load_file("runs/tiny/model.safetensors"), load_file("runs/camping/model.safetensors")
    assert all((before[name] == after[name]).all() for name in before if ".layers." in name)
    assert any((before[name] != after[name]).any() for name in before if ".item_adaptor." in name)
    script(monkeypatch, "evaluate.py", "runs/camping", world / "camping", "--cutoffs", 10, "--results", "again.jsonl")
    measured = {row.protocol: row.metrics for row in rows if row.domain == "camping"}
    assert {row.protocol: row.metrics for row in read_rows("again.jsonl")} == measured

    # What was pre-trained may learn more slowly than what is new.
    script(monkeypatch, "finetune.py", finetune, f"data.domains=[{world / 'camping'}]", "training.freeze=none",
           "training.pretrained_rate=1e-6", "model.item_features=text+id", "output=runs/slow")  # fmt: skip
    slow = load_file("runs/slow/model.safetensors")
    assert all((slow[name] - before[name]).abs().max() < 1e-7 for name in before)
    assert slow.keys() - before.keys() == {"model.embed_tokens.weight"}

    # A repository of the Hub, here its cache as huggingface_hub lays it out, is a start as good as the folder.
    repository, commit = tmp_path / "hub" / "models--me--tiny", "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(tmp_path / "runs" / "tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    script(monkeypatch, "finetune.py", finetune, "init=me/tiny", "output=runs/hub", "results=hub.jsonl",
           f"data.domains=[{world / 'camping'}]")  # fmt: skip
    assert {row.protocol: row.metrics for row in read_rows("hub.jsonl")} == measured
    script(monkeypatch, "evaluate.py", "me/tiny", world / "pets", "--name", "zero-shot")
    script(monkeypatch, "evaluate.py", "runs/tiny", world / "pets", "--name", "zero-shot")
    script(monkeypatch, "evaluate.py", "--baseline", "popularity", world / "pets", world / "camping")
    script(monkeypatch, "evaluate.py", "--baseline", "text-similarity", world / "pets")
    capsys.readouterr()
    camping = ["evaluate.py", "runs/camping", world / "camping", "--cutoffs", 10, "--against"]
    script(monkeypatch, *camping, "runs/camping")
    told = capsys.readouterr().out
    assert "minus runs/camping" in told and told.count("HR@10 +0.0000 [+0.0000, +0.0000]") == 3

    # Which behaviours the router keeps, printed and drawn; the rows of fine-tuning tell it by popularity.
    script(monkeypatch, *camping[:-1], "--routes", "routes.png", "--results", "routes.jsonl")
    replaced = {row.system for row in read_rows("routes.jsonl")}
    assert replaced == {"tiny", *(f"tiny, routes: {name}" for name in (OWN, ALL, NONE, CHANCE))}
    told = capsys.readouterr().out.split("by training interactions of the item\n")[1]
    by_popularity = {line.split()[0]: [float(share) for share in line.split("  (")[0].split()[1:]]
                     for line in told.split("  behaviours kept")[0].splitlines()}  # fmt: skip
    fine_tuned = next(row for row in rows if row.domain == "camping")
    assert by_popularity == fine_tuned.settings["routes kept by training count"] and len(by_popularity) > 1
    assert all(len(kept) == len(fine_tuned.settings["routes kept"]) for kept in by_popularity.values())
    assert Path("routes.png").stat().st_size
    none = "--baseline", "popularity", world / "pets", "--routes"
    assert "popularity has no router" in fails(monkeypatch, capsys, "evaluate.py", *none, "routes.png")
    assert "written as PNG" in fails(monkeypatch, capsys, "evaluate.py", *none, "routes.pdf")

    bare = tmp_path / "bare"
    shutil.copytree(world / "camping", bare)
    (bare / "item_embeddings.safetensors").unlink()
    against = ["--baseline", "popularity", bare, "--against", "text-similarity", "--results", "none.jsonl"]
    assert "no item embeddings" in fails(monkeypatch, capsys, "evaluate.py", *against)
    assert not Path("none.jsonl").exists()  # what cannot be compared adds no rows
    script(monkeypatch, *camping, "popularity")
    told = capsys.readouterr().out.split("minus popularity")[1]
    gain = measured["full"]["HR@10"] - popularity(monkeypatch, world / "camping")["full"].metrics["HR@10"]
    assert f"  full         HR@10 {gain:+.4f} [" in told
    script(monkeypatch, "report.py", "rows.jsonl", "--output", "table.md", "--figures", "runs/camping")
    assert "SYNTHETIC" in Path("table.md").read_text() and Path("runs/camping/learning_curves.png").stat().st_size
    user = ["--domain", str(world / "camping"), "--user", "camping-user-0000", "-k", "3", "--figure", "p.png"]
    capsys.readouterr()
    assert "--catalog FOLDER" in fails(monkeypatch, capsys, "recommend.py", "runs/tiny", "camping-item-0001")
    script(monkeypatch, "recommend.py", "runs/camping", *user)
    told = capsys.readouterr().out
    assert "user camping-user-0000" in told and "on the pathway" in told and Path("p.png").stat().st_size
    script(monkeypatch, "recommend.py", "runs/camping", *user[:-2], "--why")
    told = capsys.readouterr().out.split("log-probability loses without a behaviour\n")[1].split("\n\n")[0].splitlines()
    assert len(told) > 1 and sorted(told, key=lambda line: -float(line.split()[0])) == told
    script(monkeypatch, "recommend.py", "runs/camping", *user[:-2], "--held-out")
    assert "user camping-user-0000" in capsys.readouterr().out
    everyone = ["recommend.py", "runs/camping", *user[:2], "--everyone"]
    script(monkeypatch, *everyone, "mail/best.csv", "-k", "3", "--quiet")
    told = capsys.readouterr().out
    assert told.startswith("wrote mail/best.csv: 3 items at most for each of ")
    assert len(Path("mail/best.csv").read_text().splitlines()) > 3
    assert "--overwrite replaces it" in fails(monkeypatch, capsys, *everyone, "mail/best.csv")
    assert "ends in .parquet or .csv" in fails(monkeypatch, capsys, *everyone, "best.json")
    with monkeypatch.context() as launched:
        launched.setenv("WORLD_SIZE", "2")
        assert "the work of one process" in fails(monkeypatch, capsys, *everyone, "best.csv")
    assert "not with --everyone" in fails(monkeypatch, capsys, *everyone, "best.csv", "--why")
    assert "need --domain" in fails(monkeypatch, capsys, "recommend.py", "runs/camping", "--everyone", "best.csv")
    known = "camping-item-0001"
    script(monkeypatch, "recommend.py", "runs/camping", known, "--why")
    assert "the history is one behaviour" in capsys.readouterr().out
    refused = fails(monkeypatch, capsys, "recommend.py", "runs/camping", known, "--why-item", "x")
    assert "--why-item: expected ids of the catalogue, got ['x']" in refused
    script(monkeypatch, "recommend.py", "runs/camping", "--why", known, "camping-item-0002")
    told = capsys.readouterr().out.split("log-probability loses without a behaviour\n")[1]
    assert len(told.strip().splitlines()) == 2, "both are the history"
    assert "expected ids of the catalogue" in fails(
        monkeypatch, capsys, "recommend.py", "runs/camping", *user, "--why-item", "x"
    )
    script(monkeypatch, "recommend.py", "runs/camping", known, "nobody's", known, "x")
    assert "2 of 4 ids are not in the catalogue and left out: nobody's, x (--texts" in capsys.readouterr().err
    said = fails(monkeypatch, capsys, "recommend.py", "runs/camping", "nobody's", "x")
    assert "none of [\"nobody's\", 'x'] is in it ('camping-item-0000' is one)" in said and "left out" not in said

    # Run again: refused, then resumed (nothing to do), then replaced.
    assert "holds a run already" in fails(monkeypatch, capsys, "pretrain.py", pretrain)
    script(monkeypatch, "pretrain.py", pretrain, "--resume")
    assert "nothing to do" in capsys.readouterr().out
    said = fails(monkeypatch, capsys, "finetune.py", finetune, "init=rows.jsonl", "training.learning_rat=1")
    assert "learning_rate" in said and "2 mistakes" in said


def test_the_model_to_serve_is_trained_on_what_was_held_out_too(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(
        tmp_path / "recipe.yaml", name="shop", task="finetune", output="runs/shop", results="rows.jsonl",
        data={"domains": [str(world / "camping")], "max_length": 10}, evaluation={"cutoffs": [10]},
        training={"epochs": 3, "batch_size": 16, "progress": False},
        model=TINY | {"item_features": "id", "transition_memory": 2},
    )  # fmt: skip
    script(monkeypatch, "finetune.py", recipe)
    told = re.search(r"runs/shop: best at step (\d+) of 9, epoch (\d)", capsys.readouterr().out)
    assert int(told.group(1)) == 3 * int(told.group(2))  # 40 users, 3 steps an epoch
    rows = Path("rows.jsonl").read_text()

    again = ["finetune.py", "runs/shop/recipe.yaml", "data.train_on=all", "output=runs/served"]
    assert "add training.epochs=N" in fails(monkeypatch, capsys, *again)
    script(monkeypatch, *again, "training.epochs=2")
    told = capsys.readouterr().out
    assert "nothing is held out" in told and "trained on all there is, so nothing is measured" in told
    assert Path("rows.jsonl").read_text() == rows
    assert "Nothing: it was trained on all interactions" in Path("runs/served/README.md").read_text()
    assert [json.loads(line)["step"] for line in Path("runs/served/log.jsonl").read_text().splitlines()] == [3, 6]

    counted = {name: load_file(f"runs/{name}/model.safetensors") for name in ("shop", "served")}
    for name, histories in {
        "shop": load_domain(world / "camping").split("train"),
        "served": whole_histories(load_domain(world / "camping"))[1],
    }.items():
        model = RetrForSequentialRecommendation.from_pretrained("runs/shop")
        model.transition_memory.count(histories.item_ids, histories.offsets)
        for buffer, values in model.transition_memory.named_buffers():
            assert torch.equal(counted[name][f"transition_memory.{buffer}"], values), (name, buffer)
    assert not counted["shop"]["model.embed_tokens.weight"].equal(counted["served"]["model.embed_tokens.weight"])

    Path("once.csv").write_text("user_id,item_id\n" + "".join(f"u{u},i{u % 5}\n" for u in range(9)))
    script(monkeypatch, "prepare.py", "tables", "--interactions", "once.csv", "--output", "once", "--k-core", "0")
    once = ["data.train_on=all", "training.epochs=1", "data.domains=[once]", "output=runs/once"]
    assert "no user has two items to train on" in fails(monkeypatch, capsys, "finetune.py", recipe, *once)
    assert not Path("runs/once").exists()

    # No test can measure it, nor what goes on from it.
    refused = fails(monkeypatch, capsys, "evaluate.py", "runs/served", world / "camping")
    assert "was trained on all of camping (data.train_on=all), what is tested too" in refused
    checkpoint = fails(monkeypatch, capsys, "evaluate.py", "runs/served/checkpoints/best", world / "camping")
    assert "was trained on all of camping" in checkpoint
    refused = fails(monkeypatch, capsys, "evaluate.py", "runs/shop", world / "camping", "--against", "runs/served")
    assert "runs/served was trained on all of camping" in refused
    script(monkeypatch, "evaluate.py", "runs/shop", world / "camping")
    both = ["evaluate.py", "runs/served", world / "pets", world / "camping", "--sources", "--results", "none.jsonl"]
    assert "was trained on all of camping" in fails(monkeypatch, capsys, *both) and not Path("none.jsonl").exists()
    later = ["init=runs/served", "output=runs/after", "results=null", "training.epochs=1", "model.transition_memory=2"]
    refused = fails(monkeypatch, capsys, "finetune.py", recipe, *later)
    assert "init: runs/served was trained on all of camping (data.train_on=all), what is tested too" in refused
    text = ["model.item_features=text", "output=runs/text", "results=null"]
    script(
        monkeypatch, "finetune.py", recipe, *text, "model.transition_memory=0", "data.train_on=all", "training.epochs=1"
    )
    after = [
        "init=runs/text",
        "output=runs/after",
        "results=null",
        "training.epochs=1",
        f"data.domains=[{world / 'pets'}]",
    ]
    script(monkeypatch, "finetune.py", recipe, *after, *text[:1], "model.transition_memory=0")
    assert "warning: runs/text was trained on all of camping" in capsys.readouterr().err
    script(monkeypatch, "evaluate.py", "runs/text", world / "pets")
    assert "warning: runs/text was trained on all of camping: what pets shares" in capsys.readouterr().err
    refused = fails(monkeypatch, capsys, "evaluate.py", "runs/after", world / "camping")
    assert "was trained on all of camping" in refused, "what goes on from it knows it too"
    Recommender.from_pretrained("runs/after").save_pretrained("runs/copy")
    assert json.loads(Path("runs/copy/run.json").read_text())["trained_on_test_items"] == ["camping"]


def test_times_go_all_the_way(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(
        "who,item_id,at\n"
        + "".join(f"u{u},i{(u + n) % 11},{1_600_000_000 + 7_000 * u * n}\n" for u in range(30) for n in range(8))
    )
    Path("items.csv").write_text("item_id,text\n" + "".join(f"i{n},item number {n}\n" for n in range(11)))
    script(monkeypatch, "prepare.py", "tables", "--interactions", "log.csv", "--items", "items.csv", "--output", "shop",
           "--columns", "user_id=who", "timestamp=at")  # fmt: skip
    embed_catalog("shop", "hashing:64", progress=False)
    training = {"epochs": 2, "batch_size": 8, "progress": False}
    recipe = write_recipe(
        tmp_path / "recipe.yaml", name="timed", task="finetune", output="runs/{domain}", results="rows.jsonl",
        data={"domains": ["shop"], "max_length": 6}, training=training, evaluation={"cutoffs": [10]},
        model=TINY | {"item_features": "text+id", "attention": "modulating", "modulating_weight": 0.01},
    )  # fmt: skip
    script(monkeypatch, "finetune.py", recipe)
    script(monkeypatch, "evaluate.py", "runs/shop", "shop", "--cutoffs", 10, "--results", "again.jsonl")
    assert [row.metrics for row in read_rows("again.jsonl")] == [row.metrics for row in read_rows("rows.jsonl")]

    # Without times: told before anything is made, by every script that opens a domain, and where one serves.
    untimed = ["data.domains=[" + str(world / "camping") + "]"]
    said = fails(monkeypatch, capsys, "finetune.py", recipe, *untimed)
    assert "reads timestamps, and domain 'camping' has none" in said and not Path("runs/camping").exists()
    assert "domain 'camping' has none" in fails(
        monkeypatch, capsys, "pretrain.py", recipe, "task=pretrain", "results=null", "model.item_features=text",
        "output=runs/pretrained", f"data.domains=[shop,{world / 'camping'}]",
    )  # fmt: skip
    assert not Path("runs/pretrained").exists()
    script(monkeypatch, "finetune.py", recipe, "model.item_features=text", "output=runs/text", "results=null")
    assert "domain 'camping' has none" in fails(monkeypatch, capsys, "evaluate.py", "runs/text", world / "camping")
    assert "reads when each event was" in fails(monkeypatch, capsys, "recommend.py", "runs/shop", "i1", "i2")
    said = fails(monkeypatch, capsys, "finetune.py", recipe, "model.modulating_marks=3")
    assert "modulating_marks: 3: expected 1" in said


def test_a_pretrained_start_must_fit(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = {"data": {"domains": [str(world / "camping")], "max_length": 10}, "evaluation": {"cutoffs": [10]}}
    training = {"epochs": 1, "batch_size": 32, "progress": False}
    first = write_recipe(
        tmp_path / "first.yaml", name="first", task="finetune", output="runs/first", model=TINY | {"router": "none"},
        training=training, **common,
    )  # fmt: skip
    script(monkeypatch, "finetune.py", first)
    again = write_recipe(
        tmp_path / "again.yaml", name="again", task="finetune", output="runs/again", init="runs/first",
        results="rows.jsonl", training=training, **common,
    )  # fmt: skip
    wrong = "model.hidden_size=32", "model.num_attention_heads=4", "model.router=pathway"
    said = fails(monkeypatch, capsys, "finetune.py", again, *wrong)
    assert "hidden_size: 32, but the pre-trained model has 16" in said and "3 mistakes" in said
    (tmp_path / "empty").mkdir()
    assert "has no config.json and no run.json" in fails(monkeypatch, capsys, "finetune.py", again, "init=empty")
    (tmp_path / "empty" / "run.json").write_text('{"command": "scripts/pretrain.py recipe.yaml"}')
    for name, *arguments in (["finetune.py", again, "init=empty"], ["recommend.py", "empty", "x"]):
        said = fails(monkeypatch, capsys, name, *arguments)
        assert "this run is not finished" in said and "scripts/pretrain.py recipe.yaml --resume" in said
    for unread in ("data.cap=3", "data.candidates=domain"):
        assert "does not read it" in fails(monkeypatch, capsys, "finetune.py", again, unread)
    both = f"data.domains=[{world / 'camping'},{world / 'pets'}]"
    assert "must hold {domain}" in fails(monkeypatch, capsys, "finetune.py", again, both)

    # Shorter histories: what is saved reads as many items as what was measured, and knows where it comes from.
    script(monkeypatch, "finetune.py", again, "data.max_length=4", "model.attention_dropout=null")
    rows = read_rows("rows.jsonl")
    assert all(row.sources == ["camping"] for row in rows)
    script(monkeypatch, "evaluate.py", "runs/again", world / "camping", "--cutoffs", 10, "--results", "measured.jsonl")
    assert [row.metrics for row in read_rows("measured.jsonl")] == [row.metrics for row in rows]
    script(monkeypatch, "evaluate.py", "runs/first", world / "camping",
           "--results", "first.jsonl")  # fmt: skip
    assert all(row.sources == [] for row in read_rows("first.jsonl"))  # fine-tuned here, trained on nothing before
    capsys.readouterr()
    assert "another recipe" in fails(
        monkeypatch, capsys, "finetune.py", again, "seed=7", "data.max_length=4", "--resume"
    )
    assert "there is no such folder here" in fails(monkeypatch, capsys, "evaluate.py", "runs/none", world / "camping")
    assert "there is no such folder here" in fails(monkeypatch, capsys, "recommend.py", "runs/none", "x")


def test_a_shop_that_grows(tmp_path, monkeypatch, capsys):
    """Next month's catalogue has other rows: the model of this month is measured on it, and goes on from there."""
    monkeypatch.chdir(tmp_path)

    def month(name, items):
        steps = [(f"u{user}", items[(user + step) % len(items)], step) for user in range(30) for step in range(6)]
        Path("log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{t}\n" for u, i, t in steps))
        Path("items.csv").write_text("item_id,text\n" + "".join(f"{item},the {item} tent\n" for item in items))
        script(monkeypatch, "prepare.py", "tables", "--interactions", "log.csv", "--items", "items.csv",
               "--output", name, "--k-core", 0)  # fmt: skip
        embed_catalog(name, "hashing:64", progress=False)

    items = [f"i{number}" for number in range(20)]
    month("may", items)
    month("june", ["new", *reversed(items[3:])])
    recipe = write_recipe(
        tmp_path / "shop.yaml", name="shop", task="finetune", output="runs/may", results="rows.jsonl",
        data={"domains": ["may"], "max_length": 5}, model=TINY | {"item_features": "text+id"},
        training={"epochs": 1, "batch_size": 32, "progress": False}, evaluation={"cutoffs": [10]},
    )  # fmt: skip
    script(monkeypatch, "finetune.py", recipe)
    capsys.readouterr()
    found = "17 of 18 items have an id vector, 1 are new to the model, 3 of its own are gone"
    script(monkeypatch, "evaluate.py", "runs/may", "june", "may", "--results", "zero.jsonl", "--cutoffs", 10)
    assert found in capsys.readouterr().err
    zero = read_rows("zero.jsonl")
    assert [row.settings.get("id vectors") for row in zero] == [found] * 3 + [None] * 3
    assert [row.metrics for row in zero if row.domain == "may"] == [row.metrics for row in read_rows("rows.jsonl")]
    june = "data.domains=[june]", "output=runs/june"
    script(monkeypatch, "finetune.py", recipe, *june, "init=runs/may", "training.learning_rate=1e-9")
    assert f"from may; {found}" in capsys.readouterr().out
    # What nothing was learned after is what was measured before.
    before = {row.protocol: row.metrics for row in zero if row.domain == "june"}
    assert {row.protocol: row.metrics for row in read_rows("rows.jsonl") if row.domain == "june"} == before

    # A catalogue that grew by hand is a start too, and knows what its model was trained on.
    from retr_hf import Recommender

    recommender = Recommender.from_pretrained("runs/may")
    recommender.add_items({"new": "the new tent"})
    recommender.save_pretrained("grown")
    script(monkeypatch, "finetune.py", recipe, *june[:1], "output=runs/grown", "init=grown")
    assert "from may; 18 of 18 items have an id vector" in capsys.readouterr().out
    script(monkeypatch, "recommend.py", "grown", *items, "new")
    assert "nothing is left to recommend" in capsys.readouterr().out
    script(monkeypatch, "recommend.py", "runs/may", "--catalog", "june", "new", "i4")
    assert found in capsys.readouterr().err
    assert "holds no run of ours" in fails(
        monkeypatch, capsys, "finetune.py", recipe, *june[:1], "output=grown", "--resume"
    )
    memory = ["model.objective=softmax", "model.transition_memory=4", "output=runs/memory"]
    script(monkeypatch, "finetune.py", recipe, *memory)
    again = "init=runs/memory", "model.transition_memory=8", "output=runs/again"
    said = fails(monkeypatch, capsys, "finetune.py", recipe, *june[:1], *again)
    assert "model.transition_memory: 8, but the pre-trained model has 4" in said
    ids = "model.item_features=id", "training.learning_rate=1e-3"
    script(monkeypatch, "finetune.py", recipe, *ids, "output=runs/ids")
    assert "1 of 18 items of june" in fails(monkeypatch, capsys, "evaluate.py", "runs/ids", "june")
    script(monkeypatch, "finetune.py", recipe, *june[:1], *ids, "init=runs/ids", "output=runs/ids_june")


def test_training_on_some_of_the_users(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(
        tmp_path / "few.yaml", name="few", task="finetune", output="runs/{seed}", results="rows.jsonl",
        data={"domains": [str(world / "camping")], "max_length": 10}, model=TINY | {"objective": "sampled_softmax",
        "negative_sampling": "popularity", "num_negatives": 8, "item_features": "id"},
        training={"epochs": 1, "batch_size": 32, "progress": False}, evaluation={"cutoffs": [10]},
    )  # fmt: skip
    script(monkeypatch, "finetune.py", recipe, "data.train_users=12")
    assert "few on camping: 12 sequences, 60 items" in capsys.readouterr().out
    rows = read_rows("rows.jsonl")
    assert all("data.train_users=12" in row.recipe and row.num_users == 40 for row in rows)  # all are tested
    script(monkeypatch, "finetune.py", recipe, "data.train_users=100", "seed=1")
    assert "few on camping: 40 sequences" in capsys.readouterr().out
    assert "pretrain does not read it" in fails(
        monkeypatch, capsys, "pretrain.py", recipe, "task=pretrain", "data.train_users=12", "results=null"
    )


def test_an_empty_split_is_told_before_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "log.csv").write_text(
        "user_id,item_id\n" + "".join(f"u{n},i{n % 3}\nu{n},i{(n + 1) % 3}\n" for n in range(9))
    )
    arguments = ["tables", "--interactions", tmp_path / "log.csv", "--output", tmp_path / "shop", "--k-core", 0]
    script(monkeypatch, "prepare.py", *arguments)
    recipe = write_recipe(
        tmp_path / "recipe.yaml", name="x", task="finetune", output=str(tmp_path / "run"),
        data={"domains": [str(tmp_path / "shop")], "max_length": 10}, model=TINY | {"item_features": "id"},
    )  # fmt: skip
    assert "validation split is empty" in fails(monkeypatch, capsys, "finetune.py", recipe)
    for split in ("test", "validation"):
        popularity = ["--baseline", "popularity", tmp_path / "shop", "--split", split]
        assert f"the {split} split is empty; users need three" in fails(monkeypatch, capsys, "evaluate.py", *popularity)


def test_every_domain_is_checked_before_the_first_is_trained(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "".join(f"u{n},i{n % 3}\nu{n},i9\n" for n in range(9)))
    log = ["tables", "--interactions", tmp_path / "log.csv", "--k-core", 0]
    script(monkeypatch, "prepare.py", *log, "--output", tmp_path / "bare")
    assert "none of the 4 items has a text" in fails(monkeypatch, capsys, "embed.py", "bare", "--encoder", "hashing:64")
    (tmp_path / "items.csv").write_text("item_id,text\n" + "".join(f"i{n},thing {n}\n" for n in (0, 1, 2, 9)))
    script(monkeypatch, "prepare.py", *log, "--items", tmp_path / "items.csv", "--output", tmp_path / "short")
    embed_catalog("short", "hashing:64", progress=False)
    recipe = write_recipe(
        tmp_path / "recipe.yaml", name="x", task="finetune", output="runs/{domain}",
        model=TINY | {"item_features": "text"},
        data={"domains": [str(world / "camping"), "bare", "short"], "max_length": 10},
    )  # fmt: skip
    told = fails(monkeypatch, capsys, "finetune.py", recipe)
    assert "recipe.yaml: 2 mistakes" in told and "bare: no item embeddings; run scripts/embed.py bare" in told
    assert "short: the validation split is empty" in told
    assert not (tmp_path / "runs").exists()


def test_mistakes_are_told_in_words(world, cycle, tmp_path, monkeypatch, capsys):
    recipe = write_recipe(
        tmp_path / "recipe.yaml",
        name="x",
        task="pretrain",
        output=str(tmp_path / "run"),
        data={"domains": [str(world / "garden"), str(cycle)], "max_length": 10},
        model={"router_context": "global", "router": "pathway"},
    )
    missing = ["model.router_context=causal", "training.trackers=[comet_ml]", f"data.domains=[{world / 'garden'}]"]
    assert "not all of them are" in fails(monkeypatch, capsys, "pretrain.py", recipe, *missing)
    assert not (tmp_path / "run").exists()
    assert "would see" in fails(monkeypatch, capsys, "pretrain.py", recipe)
    assert "scripts/pretrain.py runs this one" in fails(monkeypatch, capsys, "finetune.py", recipe)
    embed_catalog(world / "sewing", "hashing:32", progress=False, overwrite=True)
    overrides = [f"data.domains=[{world / 'garden'},{world / 'sewing'}]", "model.router_context=causal"]
    last = ["model.every_step=false", "data.extra_candidates=9"]
    assert "take out data.candidates and data.extra" in fails(monkeypatch, capsys, "pretrain.py", recipe, *last)
    assert "one encoder in all domains" in fails(monkeypatch, capsys, "pretrain.py", recipe, *overrides)
    assert "make one with" in fails(monkeypatch, capsys, "evaluate.py", "--baseline", "popularity", tmp_path)


def test_results_of_the_repository_are_readable():
    files = sorted((ROOT / "recipes" / "results").glob("*.jsonl"))
    for row in read_rows(files) if files else []:
        assert row.commit and json.dumps(row.metrics)
