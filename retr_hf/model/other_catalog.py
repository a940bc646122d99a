"""A model with an id table on another catalogue than its own: what it knows of an item follows the raw id.

A shop's catalogue changes from month to month, and with it the hash, the order and the number of its rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .configuration_retr import RetrConfig
from .head_retr import RetrHead
from .item_catalog import ITEMS_FILE, ItemCatalog

MOST = 0.5  # of the texts of one shop hardly so many change from one month to the next


@dataclass(frozen=True)
class Placement:
    """Where a model's items stand in another catalogue.

    rows: int64 [M], the model's row of each row of the catalogue, 0 for padding and for a new item.
    gone: how many of the model's items the catalogue has not.
    other_texts: the share of the items of both, among those that have texts, whose text is another one.
    """

    rows: np.ndarray
    gone: int
    other_texts: float = 0.0

    @property
    def new(self) -> int:
        """How many items the model does not know."""
        return int((self.rows[1:] == 0).sum())

    def __str__(self) -> str:
        items = len(self.rows) - 1
        return (
            f"{items - self.new:,} of {items:,} items have an id vector, {self.new:,} are new to the model"
            + f", {self.gone:,} of its own are gone" * (self.gone > 0)
            + f"; {self.other_texts:.0%} of these have another text now: ARE THEY THE SAME ITEMS, or another shop's "
            "with like ids?" * (self.other_texts > MOST)
        )


def placement(config: RetrConfig, folder: str | Path, catalog: ItemCatalog) -> Placement | None:
    """Where the items of a model's folder stand in ``catalog``; None for a model of texts alone, or the same catalogue.

    Raises:
        ValueError: not one raw id is in both; the folder holds no catalogue, or not that of its model.
    """
    if not config.uses_ids or config.catalog_hash in (None, catalog.hash):
        return None
    if not (Path(folder) / ITEMS_FILE).is_file():
        raise ValueError(
            f"{folder}: the model's id table belongs to another catalogue than {catalog.folder or 'this one'}, and "
            f"without its own items ({ITEMS_FILE}) nobody knows which row is which: name the folder that training left"
        )
    own = ItemCatalog.from_pretrained(folder, embeddings=False)
    if own.hash != config.catalog_hash:
        raise ValueError(
            f"{folder}: its id table belongs to catalogue {config.catalog_hash[:12]}, and the items beside it are "
            f"{own.hash[:12]}, so nobody knows which row is which: restore the folder as training or saving left it"
        )
    rows = np.concatenate([[0], own.index_of(catalog.item_ids)])
    if not rows.any():
        raise ValueError(
            f'the model\'s id table (item_features="{config.item_features}") belongs to another catalogue: none of the '
            f"{len(catalog):,} items of {catalog.folder or 'this one'} (such as {catalog.item_ids[:2]}) is among those "
            f'of {folder} (such as {own.item_ids[:2]}); use a model with item_features="text", or train one here'
        )
    shared = np.flatnonzero(rows)
    before, now = (np.array(each.texts, dtype=object) for each in (own, catalog))
    before, now = before[rows[shared] - 1], now[shared - 1]
    told = (before != "") & (now != "")
    return Placement(rows, len(own) - len(shared), float((before != now)[told].mean()) if told.any() else 0.0)


def place_items(model: RetrHead, folder: str | Path, catalog: ItemCatalog) -> Placement | None:
    """Lays a model's id table out anew for ``catalog``, where it has to be; without training.

    Raises:
        ValueError: see ``placement``; also new items under ids alone, of which the model knows nothing.
    """
    found = placement(model.config, folder, catalog)
    if found is None:
        return None
    if found.new and not model.config.uses_text:
        new = [item for item, row in zip(catalog.item_ids, found.rows[1:], strict=True) if not row]
        raise ValueError(
            f'item_features="id": {found.new:,} of {len(catalog):,} items of {catalog.folder or "the catalogue"} are '
            f"not among those of {folder}, such as {new[:3]}, and need training: scripts/finetune.py init={folder}"
        )
    model.place_items(torch.from_numpy(found.rows), catalog.hash)
    return found
