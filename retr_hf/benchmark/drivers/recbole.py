"""RecBole: its SASRec, augmentation, loaders and Trainer. One target a prefix of a history, softmax over all items."""

from __future__ import annotations

import os
import time
from itertools import chain, repeat
from typing import Any

from .clock import Clock, Given, require_loss, version_of


class CutLoader:
    """A training loader of RecBole's, cut to the steps of a clock; all else is the loader's."""

    def __init__(self, loader: Any, clock: Clock):
        self.loader, self.clock = loader, clock

    def __iter__(self):
        batches = chain.from_iterable(repeat(self.loader))  # few histories: more than one epoch
        while self.clock.next_step():
            batch = next(batches)
            self.clock.read.append((int(batch["item_length"].sum()), len(batch)))
            yield batch

    def __len__(self):
        return len(self.loader)

    def __getattr__(self, name):
        return getattr(self.loader, name)


def sizes(options: Any) -> dict[str, Any]:
    """The options under RecBole's names."""
    return {
        "use_gpu": False,
        "show_progress": False,
        "train_batch_size": options.batch_size,
        "MAX_ITEM_LIST_LENGTH": options.max_length,
        "hidden_size": options.hidden_size,
        "n_layers": options.layers,
        "n_heads": options.heads,
        "inner_size": options.inner,
        "hidden_dropout_prob": options.dropout,
        "attn_dropout_prob": options.dropout,
    }


def run(options: Any, given: Given) -> dict[str, Any]:
    """Training steps of ``Trainer._train_epoch``, or one ``Trainer.evaluate`` with HR and NDCG at 10."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    require_loss("softmax", options)
    os.makedirs("data/histories")
    with open("data/histories/histories.inter", "w", encoding="utf-8") as file:
        file.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for user, history in enumerate(given.histories):
            file.writelines(f"{user}\t{item}\t{place}\n" for place, item in enumerate(history))
    settings = sizes(options) | {
        "data_path": "data",
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "metrics": ["Hit", "NDCG"],
        "topk": [10],
        "valid_metric": "NDCG@10",
        "loss_type": "CE",
        "train_neg_sample_args": None,
    }
    config = Config(model="SASRec", dataset="histories", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    training, _, test = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, training.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    about = {"version": version_of("recbole"), "torch": version_of("torch")}
    if options.task == "ranking":
        start = time.perf_counter()
        trainer.evaluate(test, load_best_model=False, show_progress=False)
        return about | given.ranked(options.max_length, time.perf_counter() - start)
    clock = Clock(options.warmup, options.steps)
    trainer._train_epoch(CutLoader(training, clock), 0, show_progress=False)
    return about | clock.result()
