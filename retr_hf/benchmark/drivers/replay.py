"""RePlay: its SasRec, ParquetModule, LightningModule and Lightning's Trainer. Softmax over all items at every step."""

from __future__ import annotations

import time
from typing import Any

from .clock import Clock, Given, require_loss, version_of


def run(options: Any, given: Given) -> dict[str, Any]:
    """Training steps of ``Trainer.fit``, or one ``Trainer.test`` with its metrics callback at 10."""
    import logging

    import lightning
    import pyarrow
    from pyarrow import parquet
    from replay.data import FeatureHint, FeatureType
    from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorSchema
    from replay.nn.lightning import LightningModule
    from replay.nn.lightning.callback import ComputeMetricsCallback
    from replay.nn.sequential import SasRec
    from replay.nn.transform.template import make_default_sasrec_transforms

    require_loss("softmax", options)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = [[item - 1 for item in history] for history in given.histories]  # it counts from 0; padding comes last
    users = range(len(rows))
    tables = {
        "train": {"user_id": users, "item_id": [row[:-2] for row in rows]},
        "test": {"user_id": users, "item_id": [row[:-1] for row in rows], "ground_truth": [row[-1:] for row in rows]},
    }
    for name, columns in tables.items():
        parquet.write_table(pyarrow.table({key: list(values) for key, values in columns.items()}), f"{name}.parquet")
    lightning.seed_everything(0, verbose=False)
    items = TensorFeatureInfo(
        name="item_id",
        is_seq=True,
        cardinality=given.num_items,
        padding_value=given.num_items,
        embedding_dim=options.hidden_size,
        feature_type=FeatureType.CATEGORICAL,
        feature_hint=FeatureHint.ITEM_ID,
    )
    schema = TensorSchema([items])
    body = SasRec.from_params(
        schema=schema,
        embedding_dim=options.hidden_size,
        num_heads=options.heads,
        num_blocks=options.layers,
        max_sequence_length=options.max_length,
        dropout=options.dropout,
        hidden_dim=options.inner,
    )
    model, transforms = LightningModule(body), make_default_sasrec_transforms(schema)
    quiet = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    about = {"version": version_of("replay-rec"), "torch": version_of("torch")}
    if options.task == "ranking":
        shapes = {"user_id": {}, "item_id": {"shape": options.max_length, "padding": given.num_items}}
        shapes["ground_truth"] = {"shape": 1, "padding": -1}
        data = ParquetModule(
            test_path="test.parquet", batch_size=options.batch_size, transforms=transforms, metadata={"test": shapes}
        )
        metrics = ComputeMetricsCallback(metrics=["ndcg", "recall"], ks=[10], item_count=given.num_items, verbose=False)
        start = time.perf_counter()
        trainer = lightning.Trainer(callbacks=[metrics], inference_mode=True, **quiet)
        trainer.test(model, datamodule=data, verbose=False)
        return about | given.ranked(options.max_length, time.perf_counter() - start)

    clock = Clock(options.warmup, options.steps)

    class Watch(lightning.Callback):
        def on_train_epoch_start(self, trainer, module):
            if not clock.marks:
                clock.next_step()

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            # A short history's first target has padding before it: a target counts where it is an item.
            clock.read.append((int(batch["padding_mask"].sum()), int(batch["target_padding_mask"].sum())))

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            clock.next_step()

    shapes = {"train": {"item_id": {"shape": options.max_length + 1, "padding": given.num_items}}}
    data = ParquetModule(
        train_path="train.parquet", batch_size=options.batch_size, transforms=transforms, metadata=shapes
    )
    steps = options.warmup + options.steps
    trainer = lightning.Trainer(max_steps=steps, max_epochs=-1, callbacks=[Watch()], limit_val_batches=0, **quiet)
    trainer.fit(model, datamodule=data)
    return about | clock.result()
