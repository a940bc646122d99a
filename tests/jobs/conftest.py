"""A small world that grids and searches run on, and their scripts in this process."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from retr_hf.data.prepare import write_domain
from retr_hf.data.synthetic import cycle_world, write_world
from retr_hf.data.text_embeddings import embed_catalog

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PRETRAIN = {
    "name": "base", "task": "pretrain", "output": "unused", "data": {"domains": ["data/music"], "max_length": 8},
    "model": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_experts": 2, 
              "router": "pathway", "hidden_dropout": 0.1},
    "training": {"max_steps": 2, "batch_size": 32},
    "evaluation": {"cutoffs": [10]},
}  # fmt: skip
FINETUNE = {
    "name": "base", "task": "finetune", "output": "unused/{domain}", "init": "nowhere",
    "data": {"domains": ["data/camping", "data/cycle"], "max_length": 8}, "model": {"hidden_dropout": 0.2},
    "training": {"max_steps": 2, "batch_size": 32, "freeze": "backbone"}, "evaluation": {"cutoffs": [10]},
}  # fmt: skip
ON_TARGET = {
    "name": "S3", "task": "s3rec", "output": "unused",
    "data": {"domain": "data/cycle", "attributes": None, "max_length": 8},
    "model": {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2},
    "training": {"max_steps": 2, "batch_size": 32},
}  # fmt: skip
SYSTEMS = {
    "plain": {"name": "Plain", "model": {"router": "none"}},
    "routed": {"name": "Routed", "model": {"router": "pathway"}},
    "timed": {"name": "Timed", "model": {"attention": "modulating"}},
    "ids": {"name": "Ids", "model": {"item_features": "id"}},
    "s3": {"name": "S3", "model": {"item_features": "id", "score": "dot", "router": "none", "objective": "bce"}},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Recipes, systems and three domains; cycle has no text vectors."""
    folder = tmp_path_factory.mktemp("world")
    sizes = {"source_users": 40, "source_items": 60, "target_users": 30, "target_items": 60}
    for domain in write_world(folder / "data", **sizes):
        embed_catalog(domain, "hashing:16", progress=False)
    write_domain(cycle_world(num_items=12, num_users=20, length=6).to_raw({}), folder / "data" / "cycle", k_core=0)
    for name, content in {
        "pretrain": PRETRAIN,
        "finetune": FINETUNE,
        "on_cycle": ON_TARGET,
        **SYSTEMS,
    }.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A folder of one's own with the world in it."""
    for path in world.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def in_process(monkeypatch):
    """What starts a command in this process, as a process that has ended."""

    class Ended:
        returncode = 0

        def poll(self):
            return self.returncode

    def start(command, log, threads):
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])
        process = Ended()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as stopped:
            process.returncode = stopped.code or 0
        return process

    return start


@pytest.fixture
def script(in_process, monkeypatch, capsys):
    """Runs a script, its jobs in this process too: exit code, and what it printed."""

    def script(name, *arguments):
        monkeypatch.setattr("retr_hf.jobs.queue.start_process", in_process)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
            raise SystemExit(0)
        return stopped.value.code, capsys.readouterr()

    return script
