"""The training loop in one process: resuming, failing, stopping. Two processes: test_processes.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from retr_hf.data.collators import NextItemCollator
from retr_hf.data.domain import Sequences
from retr_hf.data.mixture import Batches, Mixture
from retr_hf.data.ragged import layout_named
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.errors import TrainingError
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.training import loop
from retr_hf.training.run_folder import LOG_FILE, RunFolder, newest
from retr_hf.training.settings import TrainingSettings

ITEMS, HISTORIES, BATCH = 20, 42, 16  # 3 steps an epoch, the last of 10 histories
STEPS = 3


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """So that sums are added in one order."""
    transformers_logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(seed: int = 0, **changes) -> RetrForSequentialRecommendation:
    """With a sampling router and dropout, so that the state of the random generator matters."""
    torch.manual_seed(seed)
    values = {
        "item_features": "id",
        "vocab_size": ITEMS + 1,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 8,
        "router": "pathway",
        "router_init_keep": 0.6,
        "hidden_dropout": 0.3,
        "attention_dropout": 0.3,
    }
    return RetrForSequentialRecommendation(RetrConfig(**values | changes))


def make_batches(**options) -> Batches:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, HISTORIES)
    rows = Sequences(rng.integers(1, ITEMS + 1, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)]))
    sequences = TrainingSequences([rows], [ITEMS], max_length=8)
    collate = NextItemCollator(ITEMS, lay_out=layout_named("packed", 8))
    return Batches(sequences, Mixture(sequences.domain_sizes, seed=1), collate, **{"batch_size": BATCH, **options})


def norm(model) -> dict[str, float]:
    """A metric that tells weights apart."""
    return {"NDCG@10": sum(float(weight.detach().square().sum()) for weight in model.parameters())}


def train(
    folder: Path, model=None, batches=None, evaluate=norm, resume=False, rate_of=lambda name: 1.0, **settings
) -> loop.Progress:
    """One run as a process of its own would do it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    settings = {"epochs": 3, "learning_rate": 0.01, "scheduler": "linear", "progress": False, **settings}
    return loop.train(
        make_model() if model is None else model,
        make_batches() if batches is None else batches,
        TrainingSettings(**settings),
        RunFolder(folder),
        Accelerator(cpu=True),
        seed=3,
        evaluate=evaluate,
        rate_of=rate_of,
        resume=resume,
    )


def log_of(folder: Path) -> list[dict]:
    """The log without the clock."""
    lines = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()
    clock = {"seconds", "targets_per_second"}
    return [{name: value for name, value in json.loads(line).items() if name not in clock} for line in lines]


def assert_equal_weights(model, other) -> None:
    """To the last bit."""
    expected = other if isinstance(other, dict) else other.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def copy_of(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_weights_learn_at_their_share_of_the_rate(tmp_path):
    """The first step of Adam moves a weight by its rate, whatever the gradient, unless that is next to nothing."""
    model = make_model()
    before = copy_of(model)
    slow = lambda name: 0.01 if ".layers." in name else 1.0  # noqa: E731
    train(tmp_path, model, rate_of=slow, max_steps=1, scheduler="constant")
    moved = {name: float((weight - before[name]).abs().max()) for name, weight in model.named_parameters()}
    for share in (0.01, 1.0):
        farthest = max(distance for name, distance in moved.items() if slow(name) == share)
        assert farthest == pytest.approx(0.01 * share, rel=0.01)
    assert log_of(tmp_path)[-1]["learning_rate"] == 0.01


class Interrupted(Exception):
    """The power cut of these tests."""


class Breaking:
    """Batches until the power goes after a number of steps."""

    def __init__(self, batches: Batches, after: int):
        self.batches, self.left, self.steps_per_epoch = batches, after, batches.steps_per_epoch

    def epoch(self, epoch, start=0):
        for micro_batches in self.batches.epoch(epoch, start):
            if self.left == 0:
                raise Interrupted
            self.left -= 1
            yield micro_batches


def breaking_at_call(function, number: int):
    """``function`` until the power goes at its call of that number (from 1)."""
    calls = iter(range(1, 1000))

    def broken(*args):
        if next(calls) == number:
            raise Interrupted
        return function(*args)

    return broken


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The model, log and progress of a run that nothing interrupts."""
    folder, model = tmp_path_factory.mktemp("unbroken"), make_model()
    progress = train(folder, model, save_every=2)
    return model, log_of(folder), progress


class TestResuming:
    def resumed_equals(self, unbroken, folder: Path) -> None:
        model = make_model(seed=99)  # everything comes from the checkpoint, or from the seed of the run
        if not (folder / "checkpoints").exists():
            model = make_model()
        progress = train(folder, model, resume=True, save_every=2)
        assert_equal_weights(model, unbroken[0])
        assert log_of(folder) == unbroken[1]
        assert progress == unbroken[2]
        assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best", "last"]

    def test_cut_between_the_line_of_an_epoch_and_its_checkpoint(self, unbroken, tmp_path, monkeypatch):
        """Also where ``save_every`` names the last step of the epoch: the line stands once."""
        logged = RunFolder.log

        def cut(folder, **entry):
            logged(folder, **entry)
            raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "log", cut)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, save_every=3)
        monkeypatch.undo()
        train(tmp_path, make_model(), resume=True, save_every=3)
        assert log_of(tmp_path) == unbroken[1]

    def test_the_unbroken_run(self, unbroken, tmp_path):
        model, log, progress = unbroken
        assert [(entry["epoch"], entry["step"]) for entry in log] == [(1, 3), (2, 6), (3, 9)]
        assert log[-1]["learning_rate"] == 0 and progress.step == 9
        again = make_model()
        train(tmp_path, again, save_every=2)
        assert_equal_weights(again, model)
        assert log_of(tmp_path) == log
        other = make_model()  # without dropout it is another run: the random state of the resumed ones is put to use
        other.eval().train = lambda mode=True: other
        train(tmp_path / "other", other, save_every=2)
        assert log_of(tmp_path / "other") != log

    @pytest.mark.parametrize("after", [1, 3, 4, 5])
    def test_power_cut_after_a_step(self, unbroken, tmp_path, after):
        """1: before any checkpoint; 3: between epochs; 4 and 5: inside one, at a checkpoint and past it."""
        with pytest.raises(Interrupted):
            train(tmp_path, batches=Breaking(make_batches(), after), save_every=2)
        self.resumed_equals(unbroken, tmp_path)

    @pytest.mark.parametrize("name", ["_save", "_save_best"])
    @pytest.mark.parametrize("call", [1, 2])
    def test_power_cut_at_a_checkpoint(self, unbroken, tmp_path, monkeypatch, name, call):
        """The first ``_save`` is after step 2; the log of an epoch is written just before the second."""
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(loop, name, breaking_at_call(getattr(loop, name), call))
            train(tmp_path, save_every=2)
        self.resumed_equals(unbroken, tmp_path)

    def test_power_cut_before_the_first_checkpoint_of_a_run_that_logged(self, tmp_path, monkeypatch):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(loop, "_save", breaking_at_call(loop._save, 1))
            train(tmp_path)
        assert len(log_of(tmp_path)) == 1
        train(tmp_path, resume=True)
        assert [entry["step"] for entry in log_of(tmp_path)] == [3, 6, 9], "no line twice"

    def test_several_power_cuts(self, unbroken, tmp_path):
        for resume in (False, True, True):  # after steps 2, 4 and 6
            with pytest.raises(Interrupted):
                train(tmp_path, batches=Breaking(make_batches(), 2), resume=resume, save_every=2)
        self.resumed_equals(unbroken, tmp_path)

    def test_power_cut_between_the_two_renames(self, unbroken, tmp_path):
        with pytest.raises(Interrupted):
            train(tmp_path, batches=Breaking(make_batches(), 5), save_every=2)
        run = RunFolder(tmp_path)
        run.last.rename(run.last.with_name("last.old"))
        run.last.with_name("last.tmp").mkdir()  # the new one, of which nothing need be whole
        (run.last.with_name("last.tmp") / "progress.json").write_text('{"step', encoding="utf-8")
        run.best.with_name("best.tmp").mkdir()
        self.resumed_equals(unbroken, tmp_path)

    def test_a_finished_run_does_no_step(self, unbroken, tmp_path):
        train(tmp_path, save_every=2)
        model = make_model(seed=99)
        assert train(tmp_path, model, Breaking(make_batches(), 0), resume=True, save_every=2) == unbroken[2]
        assert_equal_weights(model, unbroken[0])


class TestAccumulation:
    def test_micro_batches_make_the_step_of_the_large_batch(self, tmp_path, monkeypatch):
        # plain gradient descent: Adam forgives a gradient of the wrong scale
        monkeypatch.setattr(
            torch.optim, "AdamW", lambda parameters, lr, weight_decay, fused: torch.optim.SGD(parameters, lr)
        )
        runs = []
        for accumulation in (1, 2, 5):
            model = make_model(router="none", hidden_dropout=0.0, attention_dropout=0.0, initializer_range=0.3)
            start = copy_of(model)
            folder = tmp_path / str(accumulation)
            train(folder, model, make_batches(accumulation=accumulation), learning_rate=0.05)
            runs.append((model, [entry["loss"] for entry in log_of(folder)]))
        assert any((weight - start[name]).abs().max() > 0.01 for name, weight in runs[0][0].state_dict().items())
        for model, losses in runs[1:]:
            assert losses == pytest.approx(runs[0][1], rel=1e-5)
            for name, weight in model.state_dict().items():
                torch.testing.assert_close(weight, runs[0][0].state_dict()[name], atol=1e-5, rtol=1e-4, msg=name)


class Poisoned(Breaking):
    """Batches of which one has a loss that is not finite."""

    def __init__(self, batches: Batches, after: int, value: float):
        super().__init__(batches, after)
        self.value = value

    def epoch(self, epoch, start=0):
        for micro_batches in self.batches.epoch(epoch, start):
            self.left -= 1
            if self.left < 0:
                micro_batches[0]["num_items_in_batch"] *= self.value
            yield micro_batches


class TestLossThatIsNotFinite:
    @pytest.mark.parametrize("value", [float("nan"), 0.0])  # 0.0: an infinite loss
    def test_it_ends_the_run_and_spares_weights_and_checkpoint(self, unbroken, tmp_path, value):
        model = make_model()
        poisoned = Poisoned(make_batches(), 4, value)
        with pytest.raises(TrainingError, match=r"epoch 2, batch 2 \(step 5\)"):
            train(tmp_path, model, poisoned, save_every=2)
        assert_equal_weights(model, load_file(newest(RunFolder(tmp_path).last) / "model.safetensors"))  # of step 4
        healthy = make_model(seed=99)
        train(tmp_path, healthy, resume=True, save_every=2)
        assert_equal_weights(healthy, unbroken[0])

    def test_in_any_micro_batch(self, tmp_path):
        model = make_model()
        poisoned = Poisoned(make_batches(accumulation=3), 0, float("nan"))
        with pytest.raises(TrainingError, match=r"epoch 1, batch 1 \(step 1\)"):
            train(tmp_path, model, poisoned)
        assert_equal_weights(model, make_model())


class Judge:
    """An evaluation with given results, which remembers the weights it saw."""

    def __init__(self, *values: float):
        self.values, self.seen = list(values), []

    def __call__(self, model) -> dict[str, float]:
        self.seen.append(copy_of(model))
        return {"NDCG@10": self.values[len(self.seen) - 1]}


class TestBestWeights:
    def assert_best(self, model, folder: Path, expected: dict) -> None:
        assert_equal_weights(model, expected)
        saved = RetrForSequentialRecommendation.from_pretrained(RunFolder(folder).best)
        assert_equal_weights(saved, expected)

    def test_early_stopping(self, tmp_path):
        model, judge = make_model(), Judge(0.1, 0.5, 0.5, 0.4, 0.9)
        progress = train(tmp_path, model, evaluate=judge, epochs=10, patience=2)
        assert progress.stopped_early and len(judge.seen) == 4 and progress.step == 4 * STEPS
        assert (progress.best, progress.best_step) == (0.5, 2 * STEPS)
        self.assert_best(model, tmp_path, judge.seen[1])
        again = train(tmp_path, make_model(), Breaking(make_batches(), 0), judge, True, epochs=10, patience=2)
        assert again == progress, "a stopped run does not go on"

    def test_a_gain_starts_the_patience_anew(self, tmp_path):
        judge = Judge(0.1, 0.0, 0.2, 0.1, 0.3, 0.2, 0.1)
        assert train(tmp_path, evaluate=judge, epochs=9, patience=2).step == 7 * STEPS

    def test_patience_survives_an_interruption(self, tmp_path):
        judge = Judge(0.5, 0.4, 0.3, 0.9)
        with pytest.raises(Interrupted):
            train(tmp_path, None, Breaking(make_batches(), 2 * STEPS), judge, epochs=9, patience=2)
        model = make_model(seed=99)
        progress = train(tmp_path, model, None, judge, resume=True, epochs=9, patience=2)
        assert progress.stopped_early and progress.best_step == STEPS
        self.assert_best(model, tmp_path, judge.seen[0])

    def test_no_patience_reads_all_epochs(self, tmp_path):
        model, judge = make_model(), Judge(0.5, 0.4, 0.3, 0.2)
        assert not train(tmp_path, model, evaluate=judge, epochs=4, patience=0).stopped_early
        self.assert_best(model, tmp_path, judge.seen[0])

    def test_without_evaluation_the_last_weights_are_kept(self, tmp_path):
        model = make_model()
        progress = train(tmp_path, model, evaluate=None)
        assert progress.best is None and progress.best_step == 9
        other = make_model()
        train(tmp_path / "other", other, evaluate=norm)  # the norm grows, so the last is the best there too
        self.assert_best(model, tmp_path, other.state_dict())


class TestLength:
    @pytest.mark.parametrize(("max_steps", "steps"), [(2, [2]), (3, [3]), (5, [3, 5])])
    def test_max_steps(self, tmp_path, max_steps, steps):
        judge = Judge(0.1, 0.2, 0.3)
        progress = train(tmp_path, evaluate=judge, max_steps=max_steps)
        assert progress.step == steps[-1] and len(judge.seen) == len(steps)
        assert [entry["step"] for entry in log_of(tmp_path)] == steps
        assert log_of(tmp_path)[-1]["learning_rate"] == pytest.approx(0.0), "the schedule ends with the run"

    @pytest.mark.parametrize(("evaluate_every", "evaluations"), [(2, 3), (9, 1)])
    def test_every_few_epochs_and_at_the_end(self, tmp_path, evaluate_every, evaluations):
        judge = Judge(*np.arange(5.0))
        train(tmp_path, evaluate=judge, epochs=5, evaluate_every=evaluate_every)
        assert len(judge.seen) == evaluations
        entries = log_of(tmp_path)
        assert len(entries) == 5 and sum("NDCG@10" in entry for entry in entries) == evaluations

    def test_warm_up_and_constant_rate(self, tmp_path):
        train(tmp_path, epochs=2, scheduler="constant", warmup_steps=6, learning_rate=0.3)
        assert [entry["learning_rate"] for entry in log_of(tmp_path)] == pytest.approx([0.15, 0.3])

    def test_the_loss_falls(self, unbroken):
        losses = [entry["loss"] for entry in unbroken[1]]
        assert losses == sorted(losses, reverse=True)

    def test_the_loss_of_an_epoch_is_the_mean_of_its_own_steps(self, tmp_path, monkeypatch):
        step, losses = loop._step, []
        monkeypatch.setattr(loop, "_step", lambda *args: losses.append(step(*args)) or losses[-1])
        train(tmp_path)
        epochs = [np.mean(losses[start : start + STEPS]) for start in range(0, 3 * STEPS, STEPS)]
        assert [entry["loss"] for entry in log_of(tmp_path)] == pytest.approx(epochs)
