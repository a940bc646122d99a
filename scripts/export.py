#!/usr/bin/env python
"""Export: a model folder becomes programs (ONNX, torch.export) and a FAISS index of its items.

    python scripts/export.py runs/scientific/X-RETR/seed-0 --output served/scientific
    python scripts/export.py runs/scientific/X-RETR/seed-0 --output served/scientific --onnx --torch --index hnsw
    python scripts/export.py runs/open_five/X-RETR --catalog data/scientific --output served/zero_shot

Needs pip install 'retr_hf[serve]'. Every program is held against the eager model on other batch sizes and lengths than
it was exported with, and the index against exact search, before anything is put in place: OUTPUT is whole or absent.
What is in it, and how it is served without torch, is told in retr_hf/export/retriever.py. Every model that
scripts/finetune.py trains can be exported but GRU4Rec, which is recurrent.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from transformers.utils import logging as transformers_logging

from retr_hf.benchmark.timing import alternate, ratio
from retr_hf.data.domain import load_domain
from retr_hf.data.domain_folder import replacing
from retr_hf.data.schema import DOMAIN_FILE
from retr_hf.entry import run
from retr_hf.errors import DataError
from retr_hf.export.index import KINDS, ItemIndex, recall
from retr_hf.export.programs import Difference, item_difference, programs_of, user_difference
from retr_hf.export.retriever import (
    EXPORT_FILE,
    EXPORT_FORMAT,
    INDEX_FILE,
    ITEM_TOWER,
    TABLE,
    TABLE_FILE,
    USER_TOWER,
    WHITENING_MATRIX,
    WHITENING_MEAN,
    batch,
)
from retr_hf.export.runners import Program, open_program
from retr_hf.export.towers import ItemTower, UserTower
from retr_hf.measuring import split_for
from retr_hf.model.item_catalog import ItemCatalog
from retr_hf.model.other_catalog import place_items
from retr_hf.model.processing_retr import check_catalog, longest_history
from retr_hf.model.recommender import open_model
from retr_hf.model.text_whitening import Whitening, text_table
from retr_hf.report.results import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument("--overwrite", action="store_true", help="replace an exported folder that is already there")
    parser.add_argument("--onnx", action="store_true", help="ONNX programs (the default)")
    parser.add_argument("--torch", action="store_true", help="torch.export programs")
    parser.add_argument("--index", choices=KINDS, default="auto", help="kind of index (default: by number of items)")
    parser.add_argument(
        "--effort", type=int, help="how far it looks: lists of ivf, candidates of hnsw (default: its own)"
    )
    parser.add_argument("--catalog", help="folder whose items are served (default: the model's own)")
    parser.add_argument(
        "--domain", help="prepared domain whose test histories recall is measured on (default: --catalog)"
    )
    parser.add_argument("--queries", type=int, default=1000, help="histories recall is measured on, at most")
    parser.add_argument("-k", type=int, default=10, help="of recall@k")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    check_may_write(args.output, args.overwrite)
    formats = tuple(name for name in ("onnx", "torch") if getattr(args, name)) or ("onnx",)

    head = open_model(args.model).float()
    catalog = ItemCatalog.from_pretrained(args.catalog or args.model)
    if found := place_items(head, head.name_or_path, catalog):
        print(f"{args.model}: {found}", file=sys.stderr)
    check_catalog(head.config, catalog)
    text = text_table(head.config, catalog)
    table = head.encode_catalog(text)
    histories, told = some_histories(args, head, catalog)

    with replacing(args.output) as folder:
        differences = write_programs(head, text, table, folder, formats)
        ItemCatalog(catalog.item_ids, catalog.texts).save_pretrained(folder)
        save_file({TABLE: table.numpy()} | whitening_of(head, catalog), folder / TABLE_FILE)
        candidates = head.candidate_vectors(table)[1:].numpy()
        index = ItemIndex.build(candidates, args.index, args.effort)
        index.write(folder / INDEX_FILE)
        user_tower = open_program(next(folder.glob(f"{USER_TOWER}.*")))
        about_index = measure(index, candidates, user_tower, histories, table, args.k) | {"histories": told}
        about = {
            "format": EXPORT_FORMAT,
            "model": Path(args.model).name,
            "max_length": longest_history(head.config),
            "reads": list(UserTower(head).reads),
            "repeat_term": head.config.repeat_term,
            "text_encoder": head.config.text_encoder,
            "text_whitening": head.config.text_whitening,
            "programs": {name: difference._asdict() for name, difference in differences.items()},
            "index": about_index,
            **environment(),
        }
        (folder / EXPORT_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    tell(args.output, len(catalog), differences, about_index)


def check_may_write(output: Path, overwrite: bool) -> None:
    """Raises DataError where OUTPUT holds anything; an exported folder may be replaced with --overwrite."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / EXPORT_FILE).is_file():
        raise DataError(f"{output}: holds something that is no export, which is never replaced: another --output")
    if not overwrite:
        raise DataError(f"{output}: holds an export already: --overwrite replaces it, or choose another --output")


def write_programs(head, text, table, folder: Path, formats: tuple[str, ...]) -> dict[str, Difference]:
    """Writes both towers; how far each file's program is from the eager model."""
    differences = {}
    for path in programs_of(UserTower(head), folder, USER_TOWER, formats):
        differences[path.name] = user_difference(open_program(path), head, table).check(path.name)
    for path in programs_of(ItemTower(head), folder, ITEM_TOWER, formats):
        differences[path.name] = item_difference(open_program(path), head, text).check(path.name)
    return differences


def whitening_of(head, catalog: ItemCatalog) -> dict[str, np.ndarray]:
    """What vectors of new texts go through before the item tower; nothing where the model reads them as they are."""
    if not head.config.uses_text or head.config.text_whitening is None:
        return {}
    whitening = Whitening.of(catalog.item_table(), head.config.text_whitening)
    return {WHITENING_MEAN: whitening.mean, WHITENING_MATRIX: whitening.matrix}


def some_histories(args, head, catalog: ItemCatalog) -> tuple[dict[str, np.ndarray], str]:
    """Inputs of the user tower to measure recall with, and what they are: test histories, or items at random."""
    rng, longest = np.random.default_rng(0), longest_history(head.config)
    if "marks" in head.model.reads:
        raise DataError(
            "this model reads types of events, which no domain tells: export it in Python (export/programs.py)"
        )
    domain = args.domain or args.catalog
    if args.domain or (args.catalog and (Path(args.catalog) / DOMAIN_FILE).is_file()):
        prepared = load_domain(domain)
        if prepared.catalog(embeddings=False).hash != catalog.hash:
            raise DataError(
                f"{domain}: has another catalogue than the exported one, so its histories are of other items"
            )
        test = split_for(head.config, prepared, "test")
        test = test.select(np.sort(rng.permutation(len(test))[: args.queries]))
        targets = test.offsets[1:] - 1
        read = [slice(*each) for each in zip(np.maximum(test.offsets[:-1], targets - longest), targets, strict=True)]
        rows, told = [test.item_ids[part] for part in read], f"test histories of {prepared.name}"
        times = [test.timestamps[part] for part in read] if head.config.reads_times else None
    else:
        rows = [rng.integers(1, len(catalog) + 1, rng.integers(1, longest + 1)) for _ in range(args.queries)]
        times, told = [86_400 * np.arange(len(each)) for each in rows], "histories of items drawn at random"
    inputs = batch(rows)
    if head.config.reads_times:
        inputs["times"] = batch(times)["input_ids"]
    return inputs, f"{len(rows)} {told}"


def measure(index, candidates, user_tower: Program, histories, table, k: int) -> dict:
    """Recall@k against exact search, and the time of one query of each, in turns."""
    parts = []
    for start in range(0, len(histories["input_ids"]), 256):
        chunk = {name: values[start : start + 256] for name, values in histories.items()}
        parts.append(user_tower(**chunk, item_embeddings=table.numpy()))
    answers = [(part["queries"], k, part.get("rows"), part.get("added")) for part in parts]
    exact = ItemIndex.build(candidates, "flat")
    found, best = (np.concatenate([each.search(*answer)[0] for answer in answers]) for each in (index, exact))
    queries = np.concatenate([part["queries"] for part in parts])
    seconds = alternate(
        [lambda n, each=each: each.search(queries[n % len(queries)][None], k) for each in (index, exact)], 100
    )
    return {
        "kind": index.kind,
        "k": k,
        "recall": recall(found, best),
        "milliseconds": float(np.median(seconds[0]) * 1e3),
        "exact_milliseconds": float(np.median(seconds[1]) * 1e3),
        "times_faster": ratio(*seconds).median,
    }


def tell(output: Path, items: int, differences: dict[str, Difference], index: dict) -> None:
    """What was left, in words."""
    for path in sorted(output.iterdir()):
        far = f"  largest difference to eager {differences[path.name]}" if path.name in differences else ""
        print(f"{path.stat().st_size / 1e6:9.2f} MB  {path.name}{far}")
    exact = "" if index["kind"] == "flat" else f", {index['times_faster']:.1f} x as fast as exact search"
    print(
        f"{output}: {items:,} items, {index['kind']} index, recall@{index['k']} {index['recall']:.4f} on "
        f"{index['histories']}, {index['milliseconds']:.2f} ms a query{exact}"
    )


if __name__ == "__main__":
    run(main)
