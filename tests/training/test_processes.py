"""Two processes train and rank as one does: gradients, gathered negatives, evaluation, checkpoints.

This file is also the program of the processes: ``torchrun tests/training/test_processes.py FOLDER`` trains every case
and leaves what it got in FOLDER. Dropout is off and the routers' noise is held at its median, for each process draws
its own; gradient descent is plain, for Adam forgives a gradient of the wrong scale.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from retr_hf.data.candidate_sampling import CandidateSampling
from retr_hf.data.collators import NextItemCollator, PreTrainingCollator, TextTables
from retr_hf.data.domain import Sequences
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.evaluation.histories import rank_histories
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation
from retr_hf.training.loop import train
from retr_hf.training.run_folder import LOG_FILE, RunFolder
from retr_hf.training.settings import TrainingSettings

ROOT = Path(__file__).parents[2]
NUM_ITEMS, TEXT, LENGTH = (14, 11), 6, 6
LAST_ONLY = {"every_step": False, "router_context": "global"}
IDS = {"item_features": "id", "vocab_size": NUM_ITEMS[0] + 1}
# name -> head, micro-batches, config
CASES = {
    "pretrain-none": (RetrForPreTraining, 1, {"router": "none"}),
    "pretrain-pathway": (RetrForPreTraining, 1, {}),
    "pretrain-last-step": (RetrForPreTraining, 1, LAST_ONLY),
    "pretrain-candidates": (RetrForPreTraining, 2, {"router": "none"}),  # drawn ones too, of the target's domain
    "pretrain-dot-accumulated": (RetrForPreTraining, 2, {"score": "dot"}),
    "recommend-none": (RetrForSequentialRecommendation, 2, IDS | {"router": "none"}),
    "recommend-pathway": (RetrForSequentialRecommendation, 1, IDS),
    "recommend-denoising": (RetrForSequentialRecommendation, 1, IDS | {"attention": "denoising"}),
    "recommend-text-bpr": (RetrForSequentialRecommendation, 1, {"objective": "bpr"}),
}


def make_model(head, config: dict):
    """Far from the usual start, so that routes differ between tokens."""
    torch.manual_seed(0)
    values = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": LENGTH,
        "text_size": TEXT,
        "num_experts": 2,
        "text_scale": None,  # at 20, with weights this large, the order of a sum shows in the fifth digit
        "router_init_keep": 0.6,
        "initializer_range": 0.3,
        "temperature": 0.3,
        "sequence_loss_weight": 1.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "adaptor_dropout": 0.0,
    }
    return head(RetrConfig(**values | config))


def histories(rng: np.random.Generator, num_items: int) -> Sequences:
    lengths = rng.integers(2, 10, 19)
    return Sequences(rng.integers(1, num_items + 1, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)]))


def run_case(name: str, folder: Path) -> None:
    """Trains and ranks; leaves losses, weights, ranks and routes in FOLDER/NAME.pt and a run in FOLDER/NAME."""
    head, accumulation, config = CASES[name]
    AcceleratorState._reset_state(reset_partial_state=False)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True)
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(items + 1, TEXT)).astype(np.float32) for items in NUM_ITEMS]
    domains = [histories(rng, items) for items in NUM_ITEMS]
    model = make_model(head, config)
    constants = {}
    domains = domains if head is RetrForPreTraining else domains[:1]
    sequences = TrainingSequences(domains, NUM_ITEMS[: len(domains)], LENGTH, model.config.every_step)
    mixture = Mixture(sequences.domain_sizes, seed=1)
    if head is RetrForPreTraining:
        drawn = CandidateSampling(sequences, mixture.quotas, 5, 20) if name == "pretrain-candidates" else None
        word_drop = TextTables([table + 0.5 for table in tables])
        collate = PreTrainingCollator(
            TextTables(tables),
            word_drop,
            model.config.every_step,
            lay_out=layout_named("packed", LENGTH),
            item_drop_batches=0.5,
            sampling=drawn,
            within_domains=drawn is not None,
        )
    else:
        collate = NextItemCollator(
            NUM_ITEMS[0], negatives=model.config.objective == "bpr", lay_out=layout_named("packed", LENGTH)
        )
        if model.config.uses_text:
            constants = {"text_embeddings": torch.from_numpy(tables[0])}
    batches = Batches(
        sequences,
        mixture,
        collate,
        batch_size=11,
        accumulation=accumulation,
        process=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )

    def ranks(model) -> dict[str, np.ndarray]:
        with torch.no_grad():
            table = model.encode_items(None, torch.from_numpy(tables[0]))
        return rank_histories(model, table, domains[0], max_length=LENGTH, batch_size=4)

    train(
        model,
        batches,
        TrainingSettings(epochs=3, learning_rate=0.05, patience=0, max_grad_norm=2.0, progress=False),
        RunFolder(folder / name),
        accelerator,
        seed=0,
        evaluate=lambda model: metrics_from_ranks(ranks(model)["full"], [10]),
        constants=constants,
    )
    result = {"ranks": {key: torch.from_numpy(value) for key, value in ranks(model).items()}}
    if accelerator.is_main_process:
        lines = (folder / name / LOG_FILE).read_text(encoding="utf-8").splitlines()
        result |= {"weights": model.state_dict(), "log": [json.loads(line) for line in lines]}
    torch.save(result, folder / f"{name}-{accelerator.process_index}-of-{accelerator.num_processes}.pt")


def main(folder: Path) -> None:
    """Every case, with all noise at its median."""
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(1)
    with (
        patch.object(torch.optim, "AdamW", lambda parameters, lr, weight_decay, fused: torch.optim.SGD(parameters, lr)),
        patch.object(torch, "rand", lambda size, **kwargs: torch.full(size, 0.5)),  # the routers'
        patch.object(torch, "randn_like", torch.zeros_like),  # the gates' of the item adaptor
    ):
        for name in CASES:
            run_case(name, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folders that one process and that two left."""
    threads = torch.get_num_threads()
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    pair = subprocess.Popen(
        [*command, __file__, str(two)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        main(one)
        output, _ = pair.communicate(timeout=180)
    finally:
        pair.kill()
        torch.set_num_threads(threads)
    assert pair.returncode == 0, output
    return one, two


def load(folder: Path, name: str, process: int, processes: int) -> dict:
    return torch.load(folder / f"{name}-{process}-of-{processes}.pt")


@pytest.mark.parametrize("name", CASES)
class TestTwoProcesses:
    def test_there_were_two(self, runs, name):
        one, two = runs
        assert sorted(path.name for path in one.glob(f"{name}-*")) == [f"{name}-0-of-1.pt"]
        assert sorted(path.name for path in two.glob(f"{name}-*")) == [f"{name}-0-of-2.pt", f"{name}-1-of-2.pt"]
        states = sorted(path.name for path in RunFolder(two / name).last.glob("random_states*"))
        assert states == ["random_states_0.pkl", "random_states_1.pkl"], "each process's random state is saved"

    def test_losses_and_metrics(self, runs, name):
        one, two = (load(folder, name, 0, number)["log"] for number, folder in enumerate(runs, 1))
        assert len(one) == len(two) == 3
        for entry, other in zip(one, two, strict=True):
            for key in ("epoch", "step", "NDCG@10", "HR@10"):
                assert entry[key] == other[key], key
            assert other["loss"] == pytest.approx(entry["loss"], abs=1e-5)
        assert one[-1]["loss"] < one[0]["loss"]

    def test_weights(self, runs, name):
        """Of the last step, and the best ones that the model is left with."""
        best = [load(folder, name, 0, number)["weights"] for number, folder in enumerate(runs, 1)]
        last = [load_file(RunFolder(folder / name).last / "model.safetensors") for folder in runs]
        start = make_model(CASES[name][0], CASES[name][2]).state_dict()
        assert max(float((last[0][key] - start[key]).abs().max()) for key in start) > 0.02, "they were trained"
        for one, two in (best, last):
            assert one.keys() == two.keys() == start.keys()
            for key in start:
                torch.testing.assert_close(two[key], one[key], atol=1e-5, rtol=1e-4, msg=key)

    def test_ranks(self, runs, name):
        expected = load(runs[0], name, 0, 1)["ranks"]
        for process in range(2):
            ranks = load(runs[1], name, process, 2)["ranks"]
            assert ranks.keys() == expected.keys() == {"full", "full-unseen"}
            assert all(torch.equal(ranks[protocol], expected[protocol]) for protocol in expected)


@pytest.mark.parametrize("name", [name for name, (*_, config) in CASES.items() if config.get("router") != "none"])
def test_the_routes_are_mixed(runs, name):
    """Otherwise the cases with a router would be those without."""
    head, _, config = CASES[name]
    model = make_model(head, config).eval()
    model.load_state_dict(load(runs[1], name, 0, 2)["weights"])
    with torch.no_grad():
        texts = torch.from_numpy(np.random.default_rng(0).normal(size=(NUM_ITEMS[0] + 1, TEXT)))
        items = model.encode_items(None, texts)
        histories = torch.randint(1, len(items), (20, LENGTH), generator=torch.Generator().manual_seed(0))
        routes = model.model(histories, item_embeddings=items, output_routes=True).routes
    assert 0 < torch.stack(routes).mean() < 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
