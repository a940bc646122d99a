"""transformers.Trainer on both heads: the same weights however a batch is cut, exact resuming, ranks as ours.

This file is also the program of two processes: ``torchrun tests/test_trainer.py DOMAINS OUTPUT``.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset, load_dataset
from transformers import Trainer, TrainingArguments

from retr_hf.data.domain import load_domain
from retr_hf.data.prepare import write_domain
from retr_hf.data.readers.raw import RawDomain
from retr_hf.data.rows import interleaved, last_as_label
from retr_hf.data.text_embeddings import embed_catalog
from retr_hf.errors import DataError
from retr_hf.evaluation.histories import rank_histories
from retr_hf.evaluation.metrics import metrics_from_ranks
from retr_hf.evaluation.trainer_metrics import RankingMetrics, ranks_of_targets
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation
from retr_hf.model.processing_retr import RetrProcessor
from retr_hf.model.recommender import Recommender
from retr_hf.model.text_whitening import text_table
from retr_hf.trainer_catalog import give_catalog
from retr_hf.trainer_collators import NextItemDataCollator, PreTrainingDataCollator

TEXT, LENGTH = 12, 6
ENCODER = f"hashing:{TEXT}@1"
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": LENGTH,
    "text_size": TEXT,
    "num_experts": 2,
    "initializer_range": 0.2,
    "temperature": 0.3,
}
STILL = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "adaptor_dropout": 0.0, "router": "none"}


def make_domain(folder: Path, users: int, items: int, seed: int):
    rng = np.random.default_rng(seed)
    rows = [[f"i{item}" for item in rng.integers(0, items, rng.integers(4, 12))] for _ in range(users)]
    times = [(1_000_000 + 60 * np.arange(len(row))).tolist() for row in rows]
    columns = {"user_id": [f"u{user}" for user in range(users)], "item_ids": rows, "timestamps": times}
    texts = {f"i{item}": f"{folder.name} thing {item} {'red' if item % 2 else 'blue'}" for item in range(items)}
    table = pl.DataFrame({"item_id": list(texts), "text": list(texts.values())})
    write_domain(RawDomain(pl.DataFrame(columns), table, reader="test"), folder, k_core=0, num_negatives=5)
    embed_catalog(folder, f"hashing:{TEXT}", progress=False)
    return load_domain(folder)


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domains")
    return [make_domain(folder / "shop", 64, 20, 0), make_domain(folder / "club", 24, 11, 1)]


@pytest.fixture(scope="module")
def splits(domains, tmp_path_factory):
    return load_dataset(str(domains[0].path), cache_dir=str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)  # 5 s after every stream that ends


def recommender(domain, **config) -> RetrForSequentialRecommendation:
    torch.manual_seed(0)
    ids = {"vocab_size": domain.num_items + 1} if "id" in config.get("item_features", "text") else {}
    model = RetrForSequentialRecommendation(RetrConfig(**SMALL | STILL | ids | config))
    give_catalog(model, domain)
    return model


def arguments(folder, **more) -> TrainingArguments:
    values = {
        "output_dir": str(folder),
        "remove_unused_columns": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 10,
    }
    return TrainingArguments(**values | more)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def farthest(one: dict, other: dict) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


OBJECTIVES = {
    "text": {},
    "id-bpr": {"item_features": "id", "objective": "bpr"},
    "popularity": {"objective": "sampled_softmax", "negative_sampling": "popularity", "num_negatives": 4},
    "last-step": {"every_step": False, "router": "pathway", "router_context": "global"},
    "times": {"attention": "modulating"},
    "repeats": {"text_path": True, "repeat_term": True, "text_whitening": 0.1, "item_features": "text+id"},
    "memory": {"transition_memory": 3, "item_features": "id"},
}


class TestRecommendation:
    @pytest.mark.parametrize(
        ("name", "layout"), [*((name, "padded") for name in OBJECTIVES), ("text", "grouped"), ("text", "packed")]
    )
    def test_trains_and_ranks_as_our_protocol(self, domains, splits, tmp_path, name, layout):
        model = recommender(domains[0], **OBJECTIVES[name])
        trainer = Trainer(
            model,
            arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch"),
            data_collator=NextItemDataCollator(model.config, domains[0].num_items, layout),
            train_dataset=splits["train"],
            eval_dataset=last_as_label(splits["validation"]),
            preprocess_logits_for_metrics=ranks_of_targets,
            compute_metrics=RankingMetrics([1, 5]),
        )
        assert trainer.label_names == ["labels"] and trainer.model_accepts_loss_kwargs
        assert not trainer._loss_shifts_labels
        start = weights(model)
        trainer.train()
        assert farthest(start, weights(model)) > 1e-3
        assert np.isfinite(losses(trainer)).all() and len(losses(trainer)) == 16
        told = trainer.evaluate()
        table = model.encode_catalog(text_table(model.config, domains[0].catalog()))
        ranks = rank_histories(model, table, domains[0].split("validation"), max_length=LENGTH)["full"]
        expected = metrics_from_ranks(ranks, [1, 5])
        assert {key: told[f"eval_{key}"] for key in expected} == expected
        assert np.isfinite(told["eval_loss"])
        answer = trainer.predict(last_as_label(splits["test"]))
        assert answer.predictions.shape == (64,), "a rank a user, and no scores"

    def test_the_loss_in_evaluation_is_that_of_the_last_item(self, domains, splits, tmp_path):
        model = recommender(domains[0])
        collate = NextItemDataCollator(model.config, domains[0].num_items)
        rows = last_as_label(splits["validation"])
        args = arguments(tmp_path, per_device_eval_batch_size=64)
        told = Trainer(model, args, data_collator=collate, eval_dataset=rows).evaluate()
        total = 0.0
        for row in splits["validation"]:  # one user at a time, by hand
            ids = torch.tensor([row["item_ids"][:-1][-LENGTH:]])
            with torch.no_grad():
                logits = model.eval()(input_ids=ids).logits[0]
            total -= float(logits[1:].log_softmax(0)[row["item_ids"][-1] - 1])
        assert told["eval_loss"] == pytest.approx(total / 64, abs=1e-5)

    @pytest.mark.parametrize("name", ["text", "id-bpr"])
    def test_metrics_batch_by_batch_are_the_same(self, domains, splits, tmp_path, name):
        told = []
        for batchwise in (False, True):
            model = recommender(domains[0], **OBJECTIVES[name])
            trainer = Trainer(
                model,
                arguments(tmp_path, batch_eval_metrics=batchwise),
                data_collator=NextItemDataCollator(model.config, domains[0].num_items),
                eval_dataset=last_as_label(splits["validation"]),
                preprocess_logits_for_metrics=ranks_of_targets,
                compute_metrics=RankingMetrics([3]),
            )
            told += [{key: value for key, value in trainer.evaluate().items() if "@" in key or "MRR" in key}]
            told += [{key: value for key, value in trainer.evaluate().items() if "@" in key or "MRR" in key}]
        assert told[0] == told[1] == told[2] == told[3] and len(told[0]) == 3

    def test_how_a_batch_is_cut_changes_no_weight(self, domains, splits, tmp_path):
        """Rows have different numbers of targets: a mean of means would be another gradient."""
        found = []
        for size, accumulated in ((32, 1), (8, 4)):
            model = recommender(domains[0], item_features="id")
            trainer = Trainer(
                model,
                arguments(
                    tmp_path,
                    num_train_epochs=3,
                    per_device_train_batch_size=size,
                    gradient_accumulation_steps=accumulated,
                    train_sampling_strategy="sequential",
                    optim="sgd",
                    max_grad_norm=0.0,
                ),
                data_collator=NextItemDataCollator(model.config, domains[0].num_items),
                train_dataset=splits["train"],
            )
            start = weights(model)
            trainer.train()
            assert trainer.state.global_step == 6
            assert farthest(start, weights(model)) > 0.05
            found.append((weights(model), losses(trainer)))
        assert farthest(found[0][0], found[1][0]) < 1e-6
        np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)

    def test_a_resumed_run_equals_the_unbroken_one_and_leaves_a_model_folder(self, domains, splits, tmp_path):
        """Dropout, sampled routes and drawn negatives included, from the middle of an epoch."""
        noisy = {"router": "pathway", "objective": "bpr", "hidden_dropout": 0.3, "attention_dropout": 0.3}

        def trainer(folder, **more):
            model = recommender(domains[0], **noisy)
            return Trainer(
                model,
                arguments(folder, num_train_epochs=2, save_strategy="steps", save_steps=5, **more),
                data_collator=NextItemDataCollator(model.config, domains[0].num_items),
                train_dataset=splits["train"],
                processing_class=RetrProcessor(domains[0].catalog(), LENGTH),
            )

        unbroken = trainer(tmp_path / "one")
        unbroken.train()
        resumed = trainer(tmp_path / "two")
        resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-5"))
        assert resumed.state.global_step == unbroken.state.global_step == 16
        assert farthest(weights(unbroken.model), weights(resumed.model)) == 0

        folder = tmp_path / "one" / "checkpoint-16"
        opened, info = RetrForSequentialRecommendation.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert farthest(weights(opened), weights(unbroken.model)) == 0
        assert opened.config.text_encoder == ENCODER
        served = Recommender.from_pretrained(folder).recommend(domains[0].catalog().item_ids[:3], k=4)
        assert len(served.items) == 4

    def test_columns_that_trainer_removes(self, domains, splits, tmp_path):
        model = recommender(domains[0])
        collate = NextItemDataCollator(model.config, domains[0].num_items)
        args = arguments(tmp_path, remove_unused_columns=True, max_steps=1)
        with pytest.raises(ValueError, match="remove_unused_columns=False"):
            Trainer(model, args, data_collator=collate, train_dataset=splits["train"]).train()
        stream = splits["train"].to_iterable_dataset()
        with pytest.raises(DataError, match=r"rows hold nothing: expected item_ids.*remove_unused_columns=False"):
            Trainer(model, args, data_collator=collate, train_dataset=stream).train()
        with pytest.raises(DataError, match="rows hold labels: expected item_ids"):
            rows = last_as_label(splits["validation"])
            Trainer(model, args, data_collator=collate, eval_dataset=rows).evaluate()


class TestRows:
    def collate(self, domains, rows, **config):
        return NextItemDataCollator(RetrConfig(**SMALL | config), domains[0].num_items)(rows)

    def test_the_most_recent_items_are_read(self, domains):
        ids = list(range(1, 13))
        batch = self.collate(domains, [{"item_ids": ids}, {"item_ids": [3, 4]}])
        assert batch["input_ids"].tolist() == [ids[-7:-1], [3, 0, 0, 0, 0, 0]]
        assert batch["labels"].tolist() == [ids[-6:], [4, -100, -100, -100, -100, -100]]
        batch = self.collate(domains, [{"item_ids": ids, "labels": 20}, {"item_ids": [3], "labels": 4}])
        assert batch["input_ids"].tolist() == [ids[-6:], [3, 0, 0, 0, 0, 0]]
        assert batch["labels"].tolist() == [[-100] * 5 + [20], [4] + [-100] * 5]

    def test_times_stand_beside_their_items(self, domains):
        rows = [{"item_ids": [5, 6, 7], "timestamps": [50, 60, 70]}]
        assert self.collate(domains, rows, attention="modulating")["times"].tolist() == [[50, 60]]
        rows = [{"item_ids": [5, 6], "labels": 7, "timestamps": [50, 60, 70]}]
        assert self.collate(domains, rows, attention="modulating")["times"].tolist() == [[50, 60]]
        with pytest.raises(DataError, match='attention="modulating" reads times'):
            self.collate(domains, [{"item_ids": [5, 6]}], attention="modulating")
        with pytest.raises(DataError, match="timestamps for every item"):
            self.collate(domains, [{"item_ids": [5, 6], "timestamps": [1]}], attention="modulating")

    def test_what_is_drawn_is_of_the_rows_and_the_seed(self, domains):
        rows = [{"item_ids": [1, 2, 3, 4]}, {"item_ids": [5, 6, 7]}]
        config = RetrConfig(**SMALL, objective="bpr")

        def drawn(rows, seed=0):
            return NextItemDataCollator(config, domains[0].num_items, seed=seed)(rows)["negative_ids"].tolist()

        assert drawn(rows) == drawn(rows) != drawn(rows, seed=1)
        assert drawn(rows) != drawn([{"item_ids": [1, 2, 3, 5]}, rows[1]])
        assert not {number for row in drawn(rows)[:1] for number in row} & {1, 2, 3, 4}

    def test_rows_that_cannot_be_read(self, domains):
        assert len(self.collate(domains, [{"item_ids": [1]}, {"item_ids": [2, 3]}])["input_ids"]) == 1
        with pytest.raises(DataError, match="2 of 2 rows have fewer than 2 item_ids"):
            self.collate(domains, [{"item_ids": [1]}, {"item_ids": [2]}])
        with pytest.raises(DataError, match="1 of 2 rows have fewer than 1 item_ids"):
            self.collate(domains, [{"item_ids": [], "labels": 2}, {"item_ids": [1], "labels": 2}])
        with pytest.raises(DataError, match="1 of 2 rows have labels"):
            self.collate(domains, [{"item_ids": [1, 2], "labels": 2}, {"item_ids": [1, 2]}])
        with pytest.raises(DataError, match=r"holds item 21, the catalogue has 1 \.\. 20"):
            self.collate(domains, [{"item_ids": [1, 21]}])
        bidirectional = {"direction": "bidirectional", "router": "none"}
        assert len(self.collate(domains, [{"item_ids": [1], "labels": 2}], **bidirectional)["input_ids"]) == 1
        with pytest.raises(DataError, match="trained by cloze, whose batches this collator does not make"):
            self.collate(domains, [{"item_ids": [1, 2]}], **bidirectional)


class TestCatalog:
    def test_it_is_read_once_and_saved_nowhere(self, domains, tmp_path):
        model = recommender(domains[0])
        ids = torch.tensor([[1, 2]])
        given = model.eval()(input_ids=ids).logits
        table = text_table(model.config, domains[0].catalog())
        torch.testing.assert_close(given, model(input_ids=ids, text_embeddings=table).logits)
        assert "text_embeddings" not in " ".join(model.state_dict())
        handle = give_catalog(model, domains[1])
        assert model(input_ids=ids).logits.shape[1] == domains[1].num_items + 1, "the last one given"
        assert len(model._forward_pre_hooks) == 1
        handle.remove()
        with pytest.raises(ValueError, match="pass text_embeddings"):
            model(input_ids=ids)

    def test_one_that_the_model_cannot_read(self, domains):
        wide = RetrForSequentialRecommendation(RetrConfig(**SMALL | {"text_size": 5}))
        with pytest.raises(ValueError, match=r"12 wide, the model reads 5: RetrConfig\(text_size=12\)"):
            give_catalog(wide, domains[0])
        other = RetrForSequentialRecommendation(RetrConfig(**SMALL, text_encoder="another"))
        with pytest.raises(ValueError, match="reads text vectors of another"):
            give_catalog(other, domains[0])
        with pytest.raises(DataError, match="expected a prepared domain .* or its folder, got ItemCatalog"):
            give_catalog(other, domains[0].catalog())

    def test_an_id_table_of_another_size_is_told_before_training(self, domains):
        """Also where no catalogue is given: a model of ids alone trains without."""
        model = RetrForSequentialRecommendation(RetrConfig(**SMALL, item_features="id", vocab_size=12))
        told = r"rows for 11 items, the catalogue has 20: .*vocab_size=21"
        with pytest.raises(ValueError, match=told):
            give_catalog(model, domains[0])
        with pytest.raises(ValueError, match=told):
            NextItemDataCollator(model.config, domains[0].num_items)
        NextItemDataCollator(model.config, domains[1].num_items)

    def test_a_folder_is_opened(self, domains):
        model = recommender(domains[1])
        given = model.eval()(input_ids=torch.tensor([[1, 2]])).logits
        give_catalog(model, str(domains[1].path))
        assert torch.equal(model(input_ids=torch.tensor([[1, 2]])).logits, given)
        with pytest.raises(DataError, match="does not exist"):
            give_catalog(model, domains[1].path / "nowhere")
        ids = recommender(domains[0], item_features="id")
        with pytest.raises(ValueError, match="belongs to catalogue"):
            give_catalog(ids, domains[1])


class TestPreTraining:
    config = SMALL | STILL | {"text_encoder": ENCODER, "sequence_loss_weight": 0.5}

    def trainer(self, domains, rows, folder, config=None, seed=0, **more):
        torch.manual_seed(0)
        model = RetrForPreTraining(RetrConfig(**self.config | (config or {})))
        eval_rows = {"eval_dataset": more.pop("eval_dataset")} if "eval_dataset" in more else {}
        collate = PreTrainingDataCollator(model.config, domains, seed=seed)
        args = arguments(folder, **{"train_sampling_strategy": "sequential"} | more)
        return Trainer(model, args, data_collator=collate, train_dataset=rows, **eval_rows)

    def test_a_stream_gives_the_losses_of_the_same_rows_at_rest(self, domains, tmp_path):
        stream = interleaved(domains, streaming=True, times=True, seed=3, buffer_size=20)
        rest = Dataset.from_list(list(stream))
        assert {row["domain"] for row in rest} == {"shop", "club"}
        config = {"attention": "modulating", "router": "pathway", "hidden_dropout": 0.2}
        one = self.trainer(domains, rest, tmp_path, config, max_steps=8)
        one.train()
        two = self.trainer(domains, stream, tmp_path, config, max_steps=8)
        two.train()
        assert len(losses(one)) == 8 and losses(one) == losses(two)
        assert farthest(weights(one.model), weights(two.model)) == 0

    def test_trains_evaluates_and_opens_as_a_recommender(self, domains, tmp_path):
        rows = interleaved(domains, seed=1)
        validation = last_as_label(interleaved(domains, "validation", seed=1))
        trainer = self.trainer(
            domains, rows, tmp_path, num_train_epochs=6, eval_strategy="epoch", eval_dataset=validation
        )
        assert trainer.label_names == ["labels"]
        trainer.train()
        told = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
        assert len(told) == 6 and told[-1] < told[0]
        assert trainer.evaluate()["eval_loss"] == told[-1], "views are drawn from the rows: the same every time"
        trainer.save_model(tmp_path / "model")
        opened, info = RetrForSequentialRecommendation.from_pretrained(tmp_path / "model", output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        give_catalog(opened, domains[1])
        assert opened(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, domains[1].num_items + 1)

    @pytest.mark.parametrize("every_step", [True, False])
    def test_the_terms_weigh_the_same_however_a_batch_is_cut(self, domains, tmp_path, every_step):
        """Negatives are a micro-batch's own, so weights differ. Where all micro-batches hold the same rows and nothing
        is drawn, four of them must be one: both terms, the sequence-sequence one too, which has no count of its own."""
        same = [{"domain": "shop", "item_ids": ids} for ids in ([1, 2, 3, 4], [5, 6], [7, 8, 9], [10, 11, 12, 2])] * 4
        found = []
        for accumulated in (1, 4):
            config = {"every_step": every_step}
            trainer = self.trainer(
                domains, Dataset.from_list(same[: 4 * accumulated]), tmp_path, config, num_train_epochs=1,
                per_device_train_batch_size=4, gradient_accumulation_steps=accumulated, optim="sgd", max_grad_norm=0.0,
            )  # fmt: skip
            trainer.model.model.item_adaptor.eval()  # no noise in the choice of experts
            trainer.model.model.item_adaptor.train = lambda mode=True: None
            trainer.train()
            found.append((weights(trainer.model), losses(trainer)))
            assert trainer.state.global_step == 1
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-5)
        assert farthest(found[0][0], found[1][0]) < 1e-5

    def test_sequences_count_once_in_a_batch_of_unequal_parts(self, domains):
        """Σ over micro-batches of (mean over its sequences) x (its share of the targets): weights that add up to 1."""
        torch.manual_seed(0)
        model = RetrForPreTraining(RetrConfig(**self.config)).eval()
        collate = PreTrainingDataCollator(model.config, domains)
        parts = [
            [{"domain": "shop", "item_ids": ids} for ids in each] for each in ([[1, 2, 3, 4, 5], [5, 6]], [[7, 8]])
        ]
        batches = [collate(part) for part in parts]
        told, means, targets = [], [], [5, 1]
        for batch in batches:
            plain = {name: value for name, value in batch.items() if not name.startswith("view_")}
            with torch.no_grad():
                told.append(
                    float(model(**batch, num_items_in_batch=6).loss - model(**plain, num_items_in_batch=6).loss)
                )
                means.append(float(model(**batch).loss - model(**plain).loss))
        assert told == pytest.approx([means[0] * targets[0] / 6, means[1] * targets[1] / 6], abs=1e-6)
        assert abs(told[0]) > 1e-2

    def test_domains_that_do_not_fit(self, domains):
        config = RetrConfig(**self.config)
        collate = PreTrainingDataCollator(config, domains)
        with pytest.raises(
            DataError, match="rows of domain 'pub': expected a column 'domain' with one of 'shop', 'club'"
        ):
            collate([{"domain": "pub", "item_ids": [1, 2]}])
        with pytest.raises(DataError, match="rows of domain None"):
            collate([{"item_ids": [1, 2]}])
        with pytest.raises(DataError, match=r"holds item 12, its domain has 1 \.\. 11"):
            collate([{"domain": "club", "item_ids": [12, 2]}])
        with pytest.raises(DataError, match="different names"):
            PreTrainingDataCollator(config, [domains[0], domains[0]])
        with pytest.raises(DataError, match=f"text_encoder='{ENCODER}', text_size={TEXT}"):
            PreTrainingDataCollator(RetrConfig(**SMALL), domains)
        with pytest.raises(ValueError, match="reads text vectors of another"):
            PreTrainingDataCollator(RetrConfig(**SMALL, text_encoder="another"), domains)


def run_both(domains_folder: Path, output: Path) -> None:
    """Both heads for a few steps of 8 sequences over all processes; leaves what came in OUTPUT/processes.pt."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    domains = [load_domain(domains_folder / name) for name in ("shop", "club")]
    plain = {"per_device_train_batch_size": 8 // processes, "optim": "sgd", "max_grad_norm": 0.0, "max_steps": 6}
    splits = {
        split: Dataset.from_parquet(str(domains[0].path / "interactions" / f"{split}.parquet"), keep_in_memory=True)
        for split in ("train", "validation")
    }
    model = recommender(domains[0], item_features="id")
    fine = Trainer(
        model,
        arguments(output, train_sampling_strategy="sequential", per_device_eval_batch_size=5, **plain),
        data_collator=NextItemDataCollator(model.config, domains[0].num_items),
        train_dataset=splits["train"],
        eval_dataset=last_as_label(splits["validation"]),
        preprocess_logits_for_metrics=ranks_of_targets,
        compute_metrics=RankingMetrics([1, 5]),
    )
    fine.train()
    metrics = {name: value for name, value in fine.evaluate().items() if "@" in name or "MRR" in name}
    # Views are drawn from the rows that a process reads; without them the loss is that of the global batch.
    config = {"sequence_loss_weight": 0.0}
    rows = [{"domain": "shop", "item_ids": row["item_ids"]} for row in splits["train"]]
    stream = Dataset.from_list(rows).to_iterable_dataset()
    more = plain | {"accelerator_config": {"dispatch_batches": False}}
    pre = TestPreTraining().trainer(domains, stream, output, config, **more)
    pre.model.model.item_adaptor.eval()  # no noise in the choice of experts
    pre.model.model.item_adaptor.train = lambda mode=True: None
    pre.train()
    found = {"metrics": metrics, "processes": fine.args.world_size}
    for name, trainer in (("fine", fine), ("pre", pre)):
        found[name] = {"weights": weights(trainer.model), "losses": losses(trainer)}
    if fine.is_world_process_zero():
        torch.save(found, output / f"{processes}.pt")


@pytest.mark.slow
def test_two_processes_train_as_one(domains, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HOME": str(tmp_path / "hf")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    pair = subprocess.Popen([*command, str(domains[0].path.parent), str(tmp_path)], env=environment, **pipes)
    try:
        run_both(domains[0].path.parent, tmp_path)
        output, _ = pair.communicate(timeout=180)
    finally:
        pair.kill()
    assert pair.returncode == 0, output
    one, two = (torch.load(tmp_path / f"{processes}.pt") for processes in (1, 2))
    assert (one["processes"], two["processes"]) == (1, 2) and one["metrics"] == two["metrics"]
    for head in ("fine", "pre"):
        assert farthest(one[head]["weights"], two[head]["weights"]) < 1e-5
        np.testing.assert_allclose(one[head]["losses"], two[head]["losses"], atol=1e-5)


if __name__ == "__main__":
    run_both(*map(Path, sys.argv[1:]))
