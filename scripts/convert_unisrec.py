"""Turns an official UniSRec checkpoint into a model folder with the same outputs.

    # fine-tuned by its authors' finetune.py; the folder holds X.feat1CLS, X.item2index, X.*.inter, perhaps X.text
    python scripts/convert_unisrec.py UniSRec-Jul-01-2022.pth runs/unisrec_scientific --dataset downstream/Scientific

    # pre-trained: reads any catalogue with such vectors, none yet, or that of a target
    python scripts/convert_unisrec.py UniSRec-FHCKM-300.pth runs/unisrec_fhckm
    python scripts/convert_unisrec.py UniSRec-FHCKM-300.pth runs/unisrec_pantry --dataset downstream/Pantry

Nothing in the checkpoint is run. RecBole's own numbering of the items, which a checkpoint with item ids
(transductive_ft) depends on, comes from --item-tokens, the .inter files, or the text vectors in the checkpoint, and is
held against those vectors. Next: scripts/recommend.py and scripts/evaluate.py, or scripts/finetune.py init=FOLDER.
"""

import argparse
from pathlib import Path

import numpy as np
from transformers.utils import logging as transformers_logging

from retr_hf.conversion.item_rows import tokens_from_file
from retr_hf.conversion.model_folder import Origin, check_may_write, write_model_folder
from retr_hf.conversion.recbole import require_model
from retr_hf.conversion.safe_checkpoint import read_checkpoint
from retr_hf.conversion.their_items import encoder_stamp, features_metadata, find_dataset, read_features, read_items
from retr_hf.conversion.their_settings import TheirSettings, name_and_value
from retr_hf.conversion.unisrec import catalog_rows, convert_unisrec, reads_ids, text_size
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
        "--encoder", default="bert-base-uncased (CLS)",
        help="stamp of the text encoder behind the features (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", default=[], type=name_and_value, metavar="NAME=VALUE", help="settings the file lacks"
    )
    parser.add_argument(
        "--sources", nargs="*", metavar="NAME", help="what it was pre-trained on before (nothing: none)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a converted model")
    args = parser.parse_args()
    if args.item_tokens and not args.dataset:
        parser.error("--item-tokens needs --dataset, the files that the tokens are indices of")
    return args


def main() -> None:
    args = parse_arguments()
    transformers_logging.disable_progress_bar()
    check_may_write(args.output, args.overwrite)
    checkpoint = read_checkpoint(args.checkpoint)
    settings = TheirSettings(checkpoint, dict(args.set))
    require_model(checkpoint, settings, "UniSRec")
    if not args.dataset and reads_ids(checkpoint):
        raise DataError(f"{checkpoint.path}: has item ids (transductive_ft): say whose with --dataset DIR")

    catalog, rows, files, size = None, None, [], text_size(checkpoint)
    if args.dataset:
        prefix = find_dataset(args.dataset)
        catalog, files = open_catalog(prefix, size, settings, args.encoder)
        tokens = tokens_from_file(args.item_tokens) if args.item_tokens else None
        rows = catalog_rows(checkpoint, settings, catalog, prefix, tokens)
    model = convert_unisrec(checkpoint, settings, encoder_stamp(args.encoder, size), catalog, rows)

    notes = without_row(rows)
    scores = "The scores are cosines divided by the temperature, as in their loss; theirs leave the division out."
    origin = Origin("UniSRec", checkpoint, settings, scores, files, notes, args.sources)
    write_model_folder(args.output, model, catalog, origin, args.overwrite)
    print(f"{args.output}: UniSRec, {model.config.item_features}, {catalog or 'no catalogue'}", *notes, sep="\n")
    print(f"not built from the checkpoint: {', '.join(checkpoint.foreign) or 'nothing'}")


def open_catalog(prefix: Path, size: int, settings: TheirSettings, encoder: str) -> tuple[ItemCatalog, list[Path]]:
    """The items of a dataset with their features, and the files they came from."""
    plain, dropped = (
        prefix.with_name(f"{prefix.name}.{settings.get(name) or usual}")
        for name, usual in (("plm_suffix", "feat1CLS"), ("plm_suffix_aug", "feat2CLS"))
    )
    ids, texts = read_items(prefix)
    features = read_features(plain, len(ids), size)
    augmented = read_features(dropped, len(ids), size) if dropped.is_file() else None
    read = [prefix.with_name(f"{prefix.name}.{suffix}") for suffix in ("item2index", "text")] + [plain, dropped]
    catalog = ItemCatalog(ids, texts, features, features_metadata(encoder), augmented)
    return catalog, [path for path in read if path.is_file()]


def without_row(rows: np.ndarray | None) -> list[str]:
    """What is to be said of items that the checkpoint has no id for."""
    missing = 0 if rows is None else int((rows == 0).sum())
    return [f"{missing:,} items of the catalogue are not in its id table: read through text alone."] if missing else []


if __name__ == "__main__":
    run(main)
