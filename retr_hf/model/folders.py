"""What stands in a folder, and what to do where it is not what was asked for."""

import json
from collections.abc import Sequence
from pathlib import Path

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"  # training writes it first, and the config last


def require_model(folder: Path) -> None:
    """Raises ValueError unless a model stands in a folder; of an unfinished run it says how to go on."""
    if (folder / CONFIG_FILE).is_file():
        return
    if (folder / RUN_FILE).is_file():
        command = json.loads((folder / RUN_FILE).read_text(encoding="utf-8")).get("command", "the same command")
        raise ValueError(
            f"{folder}: this run is not finished, so there is no model yet; if it was interrupted, --resume goes on "
            f"with it: {command.removesuffix(' --resume')} --resume"
        )
    raise ValueError(f"{folder}: expected a model folder, but it has no {CONFIG_FILE}; scripts/finetune.py makes one")


def require_items(folder: Path, files: Sequence[str]) -> None:
    """Raises ValueError unless the files of an item catalogue stand in a folder."""
    missing = [name for name in files if not (folder / name).is_file()]
    if not missing:
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; scripts/prepare.py makes one from your data")
    if (folder / CONFIG_FILE).is_file():
        raise ValueError(
            f"{folder}: a model without items of its own, as pre-training leaves it: name a folder that has some, a "
            "prepared domain or a fine-tuned model (catalog=FOLDER, on the command line --catalog FOLDER)"
        )
    raise ValueError(
        f"{folder}: expected the item catalogue {' + '.join(files)}, but {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing; pass a folder made by scripts/prepare.py or by training"
    )
