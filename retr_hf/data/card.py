"""The dataset card of a prepared domain: README.md as the Hub and `datasets.load_dataset` read it."""

import hashlib
import json
from typing import Any

from ..model.item_catalog import ITEMS_FILE
from .schema import (
    INTERACTIONS_DIR,
    ITEM_ID,
    ITEM_IDS,
    NEGATIVES,
    NEGATIVES_DIR,
    PIVOTAL_DIR,
    SPLITS,
    TEST,
    TEXT,
    TIMESTAMPS,
    USER_ID,
    VALIDATION,
)

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))

_USER = (USER_ID, "dtype", "string")


def dataset_card(
    name: str, statistics: dict[str, Any], provenance: dict[str, Any], pivotal: bool = False, times: bool = False
) -> str:
    """The text of README.md: YAML header with ``configs`` and features, then statistics and provenance as tables.

    pivotal, times: whether the domain has pivotal behaviours, and timestamps.
    """
    evaluated = [split for split in (VALIDATION, TEST) if statistics[f"{split}_rows"]]
    present = [split for split in SPLITS if statistics[f"{split}_rows"]]  # `datasets` cannot open an empty split
    # `datasets` caches a folder under its name and what its card says, not under what is in its files: without a mark
    # of its own, another domain of the same name would open as this one.
    mark = hashlib.sha256(json.dumps([statistics, provenance], default=str).encode()).hexdigest()[:16]
    configs = [
        _config("interactions", mark, INTERACTIONS_DIR, present, default=True),
        f"- config_name: items\n  description: {mark}\n  data_files: {ITEMS_FILE}",
    ]
    if evaluated:
        configs.append(_config("negatives", mark, NEGATIVES_DIR, evaluated))
    if pivotal:
        configs.append(_config("pivotal", mark, PIVOTAL_DIR, present))
    times_column = [(TIMESTAMPS, "list", "int64")] * times
    infos = [
        _info("interactions", _USER, (ITEM_IDS, "list", "int32"), *times_column),
        _info("items", (ITEM_ID, "dtype", "string"), (TEXT, "dtype", "string")),
    ]
    if evaluated:
        infos.append(_info("negatives", _USER, (NEGATIVES, "list", "int32")))
    users = statistics["users"]
    size = next((label for limit, label in _SIZES if users < limit), "1M<n<10M")
    numbers = "\n".join(f"| {key.replace('_', ' ')} | {value:,} |" for key, value in statistics.items())
    options = "\n".join(f"| {key} | `{value}` |" for key, value in provenance["options"].items())
    dropped = "\n".join(f"| {key.replace('_', ' ')} | {value:,} |" for key, value in provenance["dropped"].items())
    inputs = "\n".join(f"| `{of['path']}` | {of['bytes']:,} | `{of['sha256']}` |" for of in provenance["inputs"])
    return f"""---
pretty_name: {_quoted(name)}
tags:
- sequential-recommendation
- retr_hf
size_categories:
- {size}
configs:
{chr(10).join(configs)}
dataset_info:
{chr(10).join(infos)}
---

# {name}

Interaction sequences prepared by retr_hf {provenance["retr_hf_version"]} for sequential recommendation
(reader: {provenance["reader"]}). Item indices are 1-based: index `i` is row `i - 1` of `{ITEMS_FILE}`, 0 is padding.
In `validation` and `test` the last item of a row is the target and the rest is the history; in `train` every item after
the first is a target. `negatives` holds, row by row, items the user never touched, for sampled ranking.

```python
from datasets import load_dataset

load_dataset("path/to/this/folder")           # train, validation, test
load_dataset("path/to/this/folder", "items")  # item_id, text
```

| statistic | value |
|---|---:|
{numbers}

| option | value |
|---|---|
{options}

| found or dropped | count |
|---|---:|
{dropped or "| nothing | 0 |"}

| input | bytes | sha256 |
|---|---:|---|
{inputs}
"""


def _config(name: str, mark: str, folder: str, splits: list[str], default: bool = False) -> str:
    lines = [f"- config_name: {name}", f"  description: {mark}", *["  default: true"] * default, "  data_files:"]
    return "\n".join(lines + [f"  - split: {split}\n    path: {folder}/{split}.parquet" for split in splits])


def _info(name: str, *features: tuple[str, str, str]) -> str:
    """The columns of a configuration: (name, "dtype" or "list", type) each."""
    columns = [f"  - name: {column}\n    {kind}: {dtype}" for column, kind, dtype in features]
    return "\n".join([f"- config_name: {name}", "  features:", *columns])


def _quoted(text: str) -> str:
    """A YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"
