"""Turns a SASRec checkpoint of RecBole into a model folder with the same outputs.

    # the folder holds the files RecBole was trained on: X.inter, or X.train.inter and its siblings; perhaps X.text
    python scripts/convert_recbole.py saved/SASRec-Jul-01-2022.pth runs/sasrec --dataset dataset/ml-100k

    # where RecBole filtered them: its item tokens in its order (the message says how to get them)
    python scripts/convert_recbole.py saved/SASRec-Jul-01-2022.pth runs/sasrec --item-tokens items.txt

Nothing in the checkpoint is run. RecBole numbers the items itself and its checkpoint does not say how: the order is
rebuilt from its files as it reads them, or given, and only its length can be held against the checkpoint.
Next: scripts/recommend.py.
"""

import argparse
from pathlib import Path

from transformers.utils import logging as transformers_logging

from retr_hf.conversion.item_rows import tokens_from_file, tokens_from_inter
from retr_hf.conversion.model_folder import Origin, check_may_write, write_model_folder
from retr_hf.conversion.recbole import convert_sasrec, require_model
from retr_hf.conversion.safe_checkpoint import read_checkpoint
from retr_hf.conversion.their_items import find_dataset, read_items
from retr_hf.conversion.their_settings import TheirSettings, name_and_value
from retr_hf.entry import run
from retr_hf.errors import DataError
from retr_hf.model.item_catalog import ItemCatalog


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the .pth file")
    parser.add_argument("output", type=Path, help="model folder to make")
    parser.add_argument("--dataset", metavar="DIR", help="folder of the dataset's files; DIR/X where it holds several")
    parser.add_argument("--item-tokens", metavar="FILE", help="RecBole's item tokens, one a line, in its order")
    parser.add_argument(
        "--set", nargs="+", default=[], type=name_and_value, metavar="NAME=VALUE", help="settings the file lacks"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a converted model")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    transformers_logging.disable_progress_bar()
    check_may_write(args.output, args.overwrite)
    checkpoint = read_checkpoint(args.checkpoint)
    settings = TheirSettings(checkpoint, dict(args.set))
    require_model(checkpoint, settings, "SASRec")
    if not (args.dataset or args.item_tokens):
        raise DataError(
            f"{checkpoint.path}: RecBole's item numbers, and the checkpoint does not say which is which item: give the "
            "files it was trained on with --dataset DIR, or its item tokens in its order with --item-tokens FILE"
        )

    prefix = find_dataset(args.dataset) if args.dataset else None
    tokens = tokens_from_file(args.item_tokens) if args.item_tokens else tokens_from_inter(prefix, settings.stored)
    ids, texts = read_items(prefix, tokens) if prefix else (tokens, [""] * len(tokens))
    catalog = ItemCatalog(ids, texts)
    model = convert_sasrec(checkpoint, settings, len(catalog), catalog.hash)

    if args.item_tokens:
        order, files = "as given", [Path(args.item_tokens)]
    else:
        order, files = "rebuilt from its files as it reads them", sorted(prefix.parent.glob(f"{prefix.name}.*inter"))
    notes = [f"Items stand in RecBole's order, {order}; its checkpoint can confirm their number alone."]
    scores = "The scores are dot products of the last state and the item vectors."
    origin = Origin("SASRec (RecBole)", checkpoint, settings, scores, files, notes)
    write_model_folder(args.output, model, catalog, origin, args.overwrite)
    print(f"{args.output}: SASRec, {catalog}")
    print(f"not built from the checkpoint: {', '.join(checkpoint.foreign) or 'nothing'}")


if __name__ == "__main__":
    run(main)
