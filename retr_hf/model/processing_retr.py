"""RetrProcessor: histories of raw item ids, or of texts never seen before -> the tensors a model reads, and back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoProcessor, BatchFeature
from transformers.processing_utils import ProcessorMixin

from .configuration_retr import RetrConfig
from .history_lists import is_single, require_list
from .hub import AUTO_MAP, HUB_ARGUMENTS, copy_code, installed, local_folder
from .item_catalog import ItemCatalog, write_whole
from .text_encoders import TextEncoder, encode_like, encoder_of
from .text_whitening import Whitening, read_texts

UNKNOWN_POLICIES = ("skip", "error", "text")
PADDING_SIDES = ("right", "left")
PROCESSOR_FILE = "processor_config.json"
_SETTINGS = ("max_length", "unknown_items", "padding_side", "text_whitening")
# What transformers' Auto classes and pipelines pass to every processor, and means nothing here.
_NOT_OURS = (
    "trust_remote_code",
    "code_revision",
    "dtype",
    "device_map",
    "_from_auto",
    "_from_pipeline",
    "_commit_hash",
)


class RetrProcessor(ProcessorMixin):
    """Stands between raw ids and the model; holds the catalogue.

    Args:
        catalog: the items, with text vectors where the model reads text.
        max_length: history items that are read, the most recent ones; None is as many as the model reads: saved beside
            one or given to a ``Recommender`` it is told, and until then histories stay whole.
        unknown_items: what happens to an id the catalogue does not hold: ``"skip"`` leaves it out of the history (the
            order of the others stays), ``"error"`` raises, ``"text"`` takes it for the text of an item never seen and
            embeds it on the fly, by the catalogue's own encoder.
        padding_side: ``"right"`` or ``"left"``; the model reads both.
        text_whitening: the model's (``RetrConfig.text_whitening``), for ``item_table``.
        text_encoder: the catalogue's encoder, or where it is, if its name alone does not say; loaded when first needed.

    Raises:
        ValueError: a setting that is none of the above.
    """

    # Trainer asks every processor for a tokenizer's special tokens, to change the config's to them: there are none.
    tokenizer = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None)

    def __init__(
        self,
        catalog: ItemCatalog,
        max_length: int | None = None,
        unknown_items: str = "skip",
        padding_side: str = "right",
        text_whitening: float | None = None,
        text_encoder: str | TextEncoder | None = None,
    ):
        for name, value, allowed in (
            ("unknown_items", unknown_items, UNKNOWN_POLICIES),
            ("padding_side", padding_side, PADDING_SIDES),
        ):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length={max_length}: expected at least 1")
        super().__init__()
        self.catalog, self.max_length, self.unknown_items = catalog, max_length, unknown_items
        self.padding_side, self.text_whitening, self.text_encoder = padding_side, text_whitening, text_encoder
        self._whitening: Whitening | None = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs) -> "RetrProcessor":
        """Opens the catalogue of a model folder (or of a prepared domain, to serve another catalogue).

        Args:
            folder: a path, or the id of a repository on the Hub.
            kwargs: settings of the class; else those saved with it, else ``max_length`` and ``text_whitening`` from the
                folder's ``config.json``. Also ``revision``, ``token``, ``cache_dir``, ``local_files_only``,
                ``force_download`` for the Hub.

        Raises:
            ValueError: no such folder, one without a catalogue, or a config that was trained with another one.
            TypeError: a keyword that nobody knows.
        """
        kwargs = {key: value for key, value in kwargs.items() if key not in _NOT_OURS}
        folder = local_folder(folder, **{key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs})
        catalog = ItemCatalog.from_pretrained(folder)
        settings = {}
        if (folder / PROCESSOR_FILE).is_file():
            stored = json.loads((folder / PROCESSOR_FILE).read_text("utf-8"))
            settings = {name: stored[name] for name in _SETTINGS if name in stored}
        if (folder / "config.json").is_file():
            config = config_of(folder)
            check_catalog(config, catalog)
            most = longest_history(config)
            settings["max_length"] = min(settings.get("max_length") or most, most)
            settings["text_whitening"] = config.text_whitening
        return cls(catalog, **settings | kwargs)

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> None:
        """Writes catalogue, settings and code into a folder, each file whole or not at all.

        push_to_hub: also to the Hub; kwargs as of ``push_to_hub``, which is the plainer call.
        """
        folder = Path(save_directory)
        copy_code(folder)
        self.catalog.save_pretrained(folder)
        write_whole(folder / PROCESSOR_FILE, lambda path: path.write_text(self.to_json_string(), "utf-8"))
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)

    def to_dict(self) -> dict:
        """The settings as ``processor_config.json`` holds them."""
        auto_map = {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return settings | {"processor_class": type(self).__name__, "auto_map": auto_map}

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={getattr(self, name)!r}" for name in _SETTINGS)
        return f"{type(self).__name__}({self.catalog!r}, {settings})"

    def lookup(self, history: Sequence[str]) -> np.ndarray:
        """Catalogue index of each id of a list [n], 0 for an unknown one.

        Raises:
            ValueError: no list of ids; unknown ids under ``"error"``.
        """
        require_list(history, "history", "item ids")
        history = list(history)
        wrong = [item for item in history if not isinstance(item, str)]
        if wrong:
            raise ValueError(f"history: item ids are strings, got {type(wrong[0]).__name__} {wrong[0]!r}; use str(id)")
        found = self.catalog.index_of(history)
        if self.unknown_items == "error" and (found == 0).any():
            unknown = [item for item, index in zip(history, found, strict=True) if index == 0]
            raise ValueError(
                f"{len(unknown)} of {len(found)} items are not in the catalogue, such as {unknown[:3]}; "
                'use unknown_items="skip" to leave them out, or "text" to read them as texts'
            )
        return found

    def indices(self, history: Sequence[str]) -> np.ndarray:
        """Catalogue indices of a whole history [n], unknown ids left out or an error.

        Raises:
            ValueError: see ``lookup``; also no known id at all.
        """
        found = self.lookup(history)
        found = found[found > 0]
        if not len(found):
            like = f"{self.catalog.items_at([1])[0][0]!r} is one"
            raise ValueError(
                "history: expected at least one item of the catalogue, "
                + (f"none of {list(history)[:3]} is in it ({like})" if len(history) else "got an empty list")
            )
        return found

    def rows(self, histories: Sequence[Sequence[str]]) -> tuple[list[np.ndarray], list[str]]:
        """Rows of the item table for each history [n], and the texts [X] of the rows beyond it.

        Under ``"text"`` an unknown id is a text, whose row comes after the catalogue's: num_items + 1, and on; under
        the other policies there are none.

        Raises:
            ValueError: see ``indices``.
        """
        if self.unknown_items != "text":
            return [self.indices(history) for history in histories], []
        found = [self.lookup(history) for history in histories]
        texts: dict[str, int] = {}  # text -> row
        for history, rows in zip(map(list, histories), found, strict=True):
            if not history:
                raise ValueError("history: expected at least one item or text, got an empty list")
            for place in np.flatnonzero(rows == 0):
                rows[place] = texts.setdefault(history[place], len(self.catalog) + 1 + len(texts))
        return found, list(texts)

    def __call__(
        self, histories: Sequence[str] | Sequence[Sequence[str]], return_tensors: str | None = "pt"
    ) -> BatchFeature:
        """One history or a batch of them, oldest first -> input_ids, attention_mask [B, N] int64, padded.

        Where histories hold texts (``unknown_items="text"``) also ``new_text_embeddings`` [X, T], what the rows of
        ``input_ids`` beyond the catalogue mean; ``RetrForSequentialRecommendation`` takes all three.

        return_tensors: ``"pt"`` or ``"np"``.

        Raises:
            ValueError: see ``rows``.
        """
        rows, texts = self.rows([histories] if is_single(histories) else histories)
        batch = self.pad(rows)
        if texts:
            batch["new_text_embeddings"] = torch.from_numpy(self.read(texts))
        return batch if return_tensors == "pt" else BatchFeature({k: v.numpy() for k, v in batch.items()})

    def pad(self, rows: Sequence[Sequence[int]]) -> BatchFeature:
        """Rows of the item table of histories, whole, empty ones too -> what the call above gives."""
        rows = [np.asarray(self.window(row), dtype=np.int64) for row in rows]
        longest = max((len(row) for row in rows), default=1)
        input_ids = torch.zeros(len(rows), longest, dtype=torch.long)
        left = self.padding_side == "left"
        for row, indices in zip(input_ids, rows, strict=True):
            begin = longest - len(indices) if left else 0
            row[begin : begin + len(indices)] = torch.from_numpy(indices)
        return BatchFeature({"input_ids": input_ids, "attention_mask": (input_ids != 0).long()})

    def window(self, row: Sequence[int]) -> Sequence[int]:
        """What is read of a history: its last ``max_length`` items."""
        return row if self.max_length is None else row[-self.max_length :]

    def read_as(self, config: RetrConfig) -> None:
        """Reads texts as the model of this config does and, where no ``max_length`` was given, as many items."""
        if self.max_length is None:
            self.max_length = longest_history(config)
        if config.text_whitening != self.text_whitening:
            self.text_whitening, self._whitening = config.text_whitening, None

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of new texts, float32 [X, T], as the model reads them.

        Raises:
            ValueError: the catalogue has no vectors, or ``text_encoder`` is not what made them.
        """
        vectors = self.encode(texts)
        if self.text_whitening is None:
            return vectors
        if self._whitening is None:
            self._whitening = Whitening.of(self.catalog.item_table(), self.text_whitening)
        return self._whitening(vectors)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of new texts, float32 [X, T], as the catalogue keeps them; errors as of ``read``."""
        if self.text_encoder is None or isinstance(self.text_encoder, str):
            self.text_encoder = encoder_of(self.catalog, self.text_encoder)
        return encode_like(self.catalog, texts, self.text_encoder)

    def add_items(self, items: Mapping[str, str]) -> None:
        """Extends the catalogue by new items, raw id -> text, embedded on the fly; no training (see
        ``Recommender.add_items``, which tells the model too).

        Raises:
            ValueError: what ``ItemCatalog.check_new`` and ``read`` refuse.
        """
        self.catalog.check_new(items)
        vectors = None if self.catalog.embeddings is None else self.encode(list(items.values()))
        self.catalog, self._whitening = self.catalog.extended(items, vectors), None

    def item_table(self) -> torch.Tensor:
        """Text vectors of the catalogue [num_items + 1, T], row 0 padding: ``text_embeddings`` of the model."""
        return read_texts(self.catalog, self.text_whitening)

    def decode(self, indices: Sequence[int], texts: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Rows of the item table -> (raw id, title) each, as ``ItemCatalog.items_at`` has them; of a row beyond the
        catalogue (``rows``) its text is both."""
        indices = np.asarray(indices, dtype=np.int64)
        new = indices > len(self.catalog)
        known = self.catalog.items_at(np.where(new, 1, indices))
        for place in np.flatnonzero(new):
            known[place] = (texts[indices[place] - len(self.catalog) - 1],) * 2
        return known


def config_of(folder: str | Path) -> RetrConfig:
    """The config of a model folder, of the class of its type.

    Another type than RETR's is a model of ours all the same, registered by the package; a copy of this code knows RETR
    alone, and transformers does not know that.

    Raises:
        ValueError: a type that is not registered (RecGURU's, which recommends in scripts/evaluate.py alone).
    """
    kind = RetrConfig.get_config_dict(folder)[0].get("model_type")
    if kind == RetrConfig.model_type:
        return RetrConfig.from_pretrained(folder)
    if kind not in CONFIG_MAPPING:
        raise ValueError(
            f"{folder}: model_type {kind!r}: expected {RetrConfig.model_type}, or a baseline of retr_hf with the "
            "package imported; a RecGURU folder is opened by scripts/evaluate.py alone"
        )
    return AutoConfig.from_pretrained(folder)


def longest_history(config: RetrConfig) -> int:
    """Items of a history that a model reads; a bidirectional one has a place for the [mask] behind them."""
    return config.max_position_embeddings - (config.direction == "bidirectional")


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
            f"{config.catalog_hash[:12]}, this one is {catalog.hash[:12]}: use the catalogue saved with the model, a "
            'model with item_features="text", or for one of RETR\'s heads other_catalog.place_items, by raw ids'
        )
    check_item_count(config, len(catalog))
    check_encoder(config, catalog)


def check_encoder(config: RetrConfig, catalog: ItemCatalog) -> None:
    """Raises ValueError where a model reads text and a catalogue has vectors of another encoder, or none."""
    if config.uses_text and config.text_encoder is not None and catalog.text_encoder != config.text_encoder:
        raise ValueError(
            f"the model reads text vectors of {config.text_encoder}, {catalog.folder or 'the catalogue'} has "
            f"{catalog.text_encoder or 'none'}: run scripts/embed.py on it with that encoder"
        )


def check_item_count(config: RetrConfig, num_items: int) -> None:
    """Raises ValueError unless an id table, where the model has one, has a row for each item of a catalogue."""
    if config.uses_ids and config.vocab_size != num_items + 1:
        raise ValueError(
            f'the id table (item_features="{config.item_features}") has rows for {config.vocab_size - 1} items, the '
            f"catalogue has {num_items}: make the model with RetrConfig(vocab_size={num_items + 1}), a row an item and "
            "one for padding, or give it the catalogue it was trained with"
        )


if installed():
    AutoProcessor.register(RetrConfig, RetrProcessor, exist_ok=True)
