"""Three ways from a category's raw files to sequences, splits and texts; each does the same and is timed alone.

K-core 5, items without metadata and identical lines dropped, one sequence a user in time, leave-one-out, item texts of
title, category and brand cleaned as UniSRec does, all written to files. No vectors are made.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

FIELDS = ("title", "category", "brand")


def ours(csv: Path, meta: Path, output: Path, negatives: int) -> Callable[[], object]:
    """``scripts/prepare.py`` from its arguments to its report."""
    from importlib.util import module_from_spec, spec_from_file_location

    path = Path(__file__).parents[3] / "scripts" / "prepare.py"
    spec = spec_from_file_location("prepare", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = ["amazon2018", "--input", csv, "--items", meta, "--output", output, "--num-negatives", negatives]
    arguments += ["--with-metadata", "--duplicates", "identical"]
    return lambda: module.main([str(argument) for argument in arguments])


def pandas(csv: Path, meta: Path, output: Path) -> Callable[[], object]:
    """As one writes it in a notebook."""
    import gzip
    import html
    import json
    import re

    import pandas as pd

    def text_of(fields) -> str:
        parts = []
        for field in fields:
            field = " ".join(field) if isinstance(field, list) else field or ""
            field = re.sub(r'["\r\n]', "", html.unescape(field)).strip().rstrip(".") + "."
            if 1 < len(field) < 2000:
                parts.append(field)
        return " ".join(parts)

    def run() -> None:
        log = pd.read_csv(csv, header=None, names=["item", "user", "rating", "time"])
        with gzip.open(meta, "rt", encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        items = pd.DataFrame([[one["asin"], *(one.get(field) for field in FIELDS)] for one in records])
        items = items.rename(columns={0: "item"}).drop_duplicates("item")
        log = log[log["item"].isin(items["item"])].drop_duplicates()
        rows = -1
        while rows != len(log):
            rows = len(log)
            log = log[log.groupby("user")["item"].transform("size") >= 5]
            log = log[log.groupby("item")["user"].transform("size") >= 5]
        log = log.sort_values("time", kind="stable")
        sequences = log.groupby("user")[["item", "time"]].agg(list)
        items = items[items["item"].isin(log["item"])]
        items = pd.DataFrame({"item": items["item"], "text": [text_of(row) for row in items.iloc[:, 1:].to_numpy()]})
        output.mkdir(parents=True)
        for split, last in (("train", 2), ("validation", 1), ("test", 0)):
            cut = sequences.apply(lambda column, last=last: [row[: len(row) - last] for row in column])
            cut.to_parquet(output / f"{split}.parquet")
        items.to_parquet(output / "items.parquet")

    return run


def unisrec(csv: Path, meta: Path, output: Path, checkout: str) -> Callable[[], object]:
    """The authors' functions in the order of their script, without the language model; their progress bars hidden."""
    sys.path.insert(0, os.path.join(checkout, "dataset", "preprocessing"))
    import process_amazon as theirs

    name = next(name for name, full in theirs.amazon_dataset2fullname.items() if full == csv.stem)
    args = SimpleNamespace(dataset=name, user_k=5, item_k=5, input_path=str(csv.parents[1]), output_path=str(output))

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ratings = theirs.preprocess_rating(args)
            texts = theirs.preprocess_text(args, ratings)
            *splits, users, items = theirs.generate_training_data(args, ratings)
            theirs.check_path(os.path.join(output, name))
            theirs.convert_to_atomic_files(args, *splits)
            beginning = os.path.join(output, name, name)
            theirs.write_text_file(texts, f"{beginning}.text")
            theirs.write_remap_index(users, f"{beginning}.user2index")
            theirs.write_remap_index(items, f"{beginning}.item2index")

    return run
