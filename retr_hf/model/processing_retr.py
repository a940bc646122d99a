"""RetrProcessor: histories of raw item ids -> the tensors a model reads, and indices back to ids and titles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import BatchFeature

from .configuration_retr import RetrConfig
from .item_catalog import ItemCatalog
from .text_whitening import read_texts

UNKNOWN_POLICIES = ("skip", "error")


class RetrProcessor:
    """Stands between raw ids and the model; holds the catalogue.

    Args:
        catalog: the items, with text vectors where the model reads text.
        max_length: history items the model reads; the most recent ones are kept.
        unknown_items: what happens to an id the catalogue does not hold: ``"skip"`` leaves it out of the history (the
            order of the others stays), ``"error"`` raises.
        text_whitening: the model's (``RetrConfig.text_whitening``), for ``item_table``.
    """

    def __init__(
        self,
        catalog: ItemCatalog,
        max_length: int = 50,
        unknown_items: str = "skip",
        text_whitening: float | None = None,
    ):
        if unknown_items not in UNKNOWN_POLICIES:
            raise ValueError(f"unknown_items={unknown_items!r}: expected one of {', '.join(UNKNOWN_POLICIES)}")
        if max_length < 1:
            raise ValueError(f"max_length={max_length}: expected at least 1")
        self.catalog, self.max_length, self.unknown_items = catalog, max_length, unknown_items
        self.text_whitening = text_whitening

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs) -> "RetrProcessor":
        """Opens the catalogue of a model folder (or of a prepared domain, to serve another catalogue).

        ``max_length`` and ``text_whitening`` come from the folder's ``config.json`` where there is one, unless given.

        Raises:
            ValueError: the folder holds no catalogue, or the config was trained with another one.
        """
        catalog = ItemCatalog.from_pretrained(folder)
        if (Path(folder) / "config.json").is_file():
            config = RetrConfig.from_pretrained(folder)
            check_catalog(config, catalog)
            read = {"max_length": config.max_position_embeddings, "text_whitening": config.text_whitening}
            kwargs = read | kwargs
        return cls(catalog, **kwargs)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the catalogue into a folder; the other settings are the model's."""
        self.catalog.save_pretrained(folder)

    def lookup(self, history: Sequence[str]) -> np.ndarray:
        """Catalogue index of each id of a list [n], 0 for an unknown one.

        Raises:
            ValueError: a string instead of a list of ids; unknown ids under ``"error"``.
        """
        if isinstance(history, str):
            raise ValueError(f"history: expected a list of item ids, got the string {history!r}")
        wrong = [item for item in history if not isinstance(item, str)]
        if wrong:
            raise ValueError(f"history: item ids are strings, got {type(wrong[0]).__name__} {wrong[0]!r}; use str(id)")
        found = self.catalog.index_of(list(history))
        if self.unknown_items == "error" and (found == 0).any():
            unknown = [item for item, index in zip(history, found, strict=True) if index == 0]
            raise ValueError(
                f"{len(unknown)} of {len(found)} items are not in the catalogue, such as {unknown[:3]}; "
                'use unknown_items="skip" to leave them out'
            )
        return found

    def indices(self, history: Sequence[str]) -> np.ndarray:
        """Catalogue indices of a whole history [n], unknown ids handled by policy.

        Raises:
            ValueError: see ``lookup``; also no known id at all.
        """
        found = self.lookup(history)
        found = found[found > 0]
        if not len(found):
            raise ValueError(
                "history: expected at least one item of the catalogue, "
                + (f"none of {list(history)[:3]} is in it" if len(history) else "got an empty list")
            )
        return found

    def __call__(self, histories: Sequence[str] | Sequence[Sequence[str]]) -> BatchFeature:
        """One history or a batch of them, oldest first -> input_ids, attention_mask [B, N] int64, right padding.

        Raises:
            ValueError: see ``indices``.
        """
        if isinstance(histories, str) or (len(histories) and not isinstance(histories[0], (list, tuple))):
            histories = [histories]
        return self.pad([self.indices(history) for history in histories])

    def pad(self, rows: Sequence[Sequence[int]]) -> BatchFeature:
        """Catalogue indices of histories, whole, empty ones too -> what the call above gives."""
        rows = [np.asarray(row[-self.max_length :], dtype=np.int64) for row in rows]
        longest = max((len(row) for row in rows), default=1)
        input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, indices in zip(input_ids, rows, strict=True):
            row[: len(indices)] = torch.from_numpy(indices)
        return BatchFeature({"input_ids": input_ids, "attention_mask": (input_ids != 0).long()})

    def item_table(self) -> torch.Tensor:
        """Text vectors of the catalogue [num_items + 1, T], row 0 padding: ``text_embeddings`` of the model."""
        return read_texts(self.catalog, self.text_whitening)

    def decode(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """Catalogue indices -> (raw id, text) each."""
        return self.catalog.items_at(indices)


def check_catalog(config: RetrConfig, catalog: ItemCatalog) -> None:
    """Whether a model may read a catalogue.

    A model with an id table reads the catalogue it was trained with; a model of texts alone reads any whose vectors
    come from the same encoder.

    Raises:
        ValueError: another catalogue under an id table, no vectors or vectors of another encoder under text.
    """
    if config.uses_ids and config.catalog_hash not in (None, catalog.hash):
        raise ValueError(
            f'the model\'s id table (item_features="{config.item_features}") belongs to catalogue '
            f"{config.catalog_hash[:12]}, this one is {catalog.hash[:12]}: use the catalogue saved with the model, "
            'or a model with item_features="text"'
        )
    if config.uses_ids and config.vocab_size != len(catalog) + 1:
        raise ValueError(f"the model has {config.vocab_size - 1} items, the catalogue {len(catalog)}")
    if config.uses_text and config.text_encoder is not None and catalog.text_encoder != config.text_encoder:
        raise ValueError(
            f"the model reads text vectors of {config.text_encoder}, the catalogue has "
            f"{catalog.text_encoder or 'none'}: run scripts/embed.py on it with that encoder"
        )
