"""The authors' UniSRec on RecBole, from a checkout: fine-tuning by text and id, every prefix of a history a row."""

from __future__ import annotations

import os
import sys
from typing import Any

from .checkout import checkout
from .clock import Clock, Given, require_loss
from .recbole import CutLoader, sizes

NAME = "histories"


def run(options: Any, given: Given) -> dict[str, Any]:
    """Training steps of ``Trainer._train_epoch`` with its props/ and the sizes of the command line, from scratch."""
    folder, commit = checkout(options)
    sys.path.insert(0, folder)
    from data.dataset import UniSRecDataset
    from recbole.config import Config
    from recbole.data import data_preparation
    from recbole.utils import get_trainer, init_seed
    from unisrec import UniSRec

    require_loss("softmax", options)
    if options.task != "training" or given.text is None:
        raise ValueError("unisrec is run for training, on items with texts")
    os.makedirs(f"data/{NAME}")
    given.text[1:].astype("float32").tofile(f"data/{NAME}/{NAME}.feat1CLS")  # items count from 0 here
    for split in ("train", "valid", "test"):
        with open(f"data/{NAME}/{NAME}.{split}.inter", "w", encoding="utf-8") as file:
            file.write("user_id:token\titem_id_list:token_seq\titem_id:token\n")
            for user, history in enumerate(given.histories):
                last = {"valid": len(history) - 2, "test": len(history) - 1}.get(split)
                for target in range(len(history) - 3, 0, -1) if last is None else [last]:
                    before = " ".join(str(item - 1) for item in history[:target][-options.max_length :])
                    file.write(f"{user}\t{before}\t{history[target] - 1}\n")
    width = given.text.shape[1]
    config = Config(
        model=UniSRec,
        dataset=NAME,
        config_file_list=[os.path.join(folder, "props", f"{name}.yaml") for name in ("UniSRec", "finetune")],
        config_dict=sizes(options)
        | {"data_path": "data", "plm_size": width, "adaptor_layers": [width, options.hidden_size]},
    )
    init_seed(config["seed"], config["reproducibility"])
    training, _, _ = data_preparation(config, UniSRecDataset(config))
    model = UniSRec(config, training.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    clock = Clock(options.warmup, options.steps)
    trainer._train_epoch(CutLoader(training, clock), 0, show_progress=False)
    return {"version": commit} | clock.result()
