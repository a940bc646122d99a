"""Recommender: a model folder in, titles, scores and the pathway behind them out."""

import json
import shutil
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import PushToHubMixin

from .configuration_retr import RetrConfig
from .folders import RUN_FILE, require_model
from .history_lists import is_single, require_list
from .hub import TASK, local_folder
from .item_catalog import write_whole
from .modeling_retr import RetrForSequentialRecommendation
from .occlusion import behavior_weights
from .other_catalog import Placement, place_items
from .processing_retr import RetrProcessor, check_catalog, config_of
from .recommendation import Reason, Recommendation, recommendations
from .session_retr import RecommenderSession
from .text_whitening import text_table

CARD_FILE = "README.md"
# Of run.json what a saved model still is: what it was trained on and by which recipe, not the run in its folder.
KEPT = ("name", "recipe", "seed", "init", "sources", "trained_on", "trained_on_test_items", "date")


def open_model(folder: str | Path, **hub_arguments) -> RetrForSequentialRecommendation:
    """A recommendation head from a model folder or a repository of the Hub, all its weights in it.

    hub_arguments: see ``hub.local_folder``.

    Raises:
        ValueError: no model folder, that of a run that is not finished, or one whose weights are not all there.
    """
    folder = local_folder(folder, **hub_arguments)
    require_model(folder)
    config = config_of(folder)
    own = config.model_type == RetrConfig.model_type
    head = RetrForSequentialRecommendation if own else AutoModelForSequenceClassification
    model, loading = head.from_pretrained(folder, output_loading_info=True)
    if loading["missing_keys"] or loading["unexpected_keys"]:
        wrong = sorted([*loading["missing_keys"], *loading["unexpected_keys"]])
        raise ValueError(f"{folder}: its weights do not fit its config.json: {wrong[:5]}")
    return model


class Recommender(PushToHubMixin):
    """Serves a model and its catalogue; items are encoded once.

    Args:
        model: the recommendation head.
        processor: its catalogue; a copy of it reads as the model does. Another catalogue embedded by the same encoder
            makes a text model a zero-shot one.

    Attributes:
        item_embeddings: the encoded table [num_items + 1, ·].
        origin: folder the model came from, whose card and ``run.json`` are kept on saving; None of one made here.
        placement: where its items stand in another catalogue that ``from_pretrained`` was given, else None.

    Raises:
        ValueError: the model cannot read the catalogue, or reads times, which histories of item ids do not tell.
    """

    def __init__(self, model: RetrForSequentialRecommendation, processor: RetrProcessor):
        check_catalog(model.config, processor.catalog)
        if model.config.reads_times:
            raise ValueError(
                f'attention="{model.config.attention}" reads when each event was, and a history of item ids does not '
                "say: call the model itself with times=, or serve one with another attention"
            )
        self.model, self.processor = model.eval(), copy(processor)
        self.processor.read_as(model.config)  # texts read on the fly are read as the table is
        self.origin: Path | None = None
        self.placement: Placement | None = None
        self._encode_items()

    def _encode_items(self) -> None:
        text = text_table(self.model.config, self.processor.catalog)
        self.item_embeddings = self.model.encode_catalog(text)  # [num_items + 1, ·]

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, catalog: str | Path | None = None, unknown_items: str | None = None, **hub_arguments
    ) -> "Recommender":
        """Opens a model folder, or a repository of the Hub.

        Args:
            catalog: another folder (a prepared domain too) or model repository to take the items from. The id vectors
                of a model that has some follow the raw ids, see ``other_catalog``.
            unknown_items: policy of the processor; None is the one saved with it.
            hub_arguments: ``revision``, ``token``, ``cache_dir``, ``local_files_only``, ``force_download``.
        """
        folder = local_folder(folder, **hub_arguments)
        model = open_model(folder)
        settings = {} if unknown_items is None else {"unknown_items": unknown_items}
        if catalog is not None:
            settings["max_length"] = None  # this model's, whatever is saved beside the catalogue
        processor = RetrProcessor.from_pretrained(catalog or folder, **settings)
        found = place_items(model, folder, processor.catalog)
        recommender = cls(model, processor)
        recommender.origin, recommender.placement = folder.resolve(), found
        return recommender

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs) -> None:
        """Writes weights, config, code, catalogue and card: what ``from_pretrained``, transformers' Auto classes and
        ``pipeline`` open, with or without this package.

        The card, and what ``run.json`` says of the training, are those of the folder it came from, else what is there;
        without a card a few lines on how to use it are written.
        push_to_hub: also to the Hub; kwargs as of ``push_to_hub``, which is the plainer call.
        """
        folder = Path(save_directory)
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if self.origin is not None and self.origin != folder.resolve():
            if (self.origin / CARD_FILE).is_file():
                shutil.copyfile(self.origin / CARD_FILE, folder / CARD_FILE)
            if (self.origin / RUN_FILE).is_file():
                ran = json.loads((self.origin / RUN_FILE).read_text("utf-8"))
                ran = json.dumps({key: ran[key] for key in KEPT if key in ran}, indent=2) + "\n"
                write_whole(folder / RUN_FILE, lambda path: path.write_text(ran, "utf-8"))
        if not (folder / CARD_FILE).exists():
            (folder / CARD_FILE).write_text(_CARD, "utf-8")
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)

    def add_items(self, items: Mapping[str, str]) -> None:
        """New items, raw id -> text, recommended from now on, without training.

        Their texts are embedded by the catalogue's own encoder. Under ``text+id`` their id vector is zero. Where texts
        are whitened, the catalogue's statistics, and so all vectors, follow the new items.

        Raises:
            ValueError: a model of ids alone; no items, or no mapping of texts; ids that are there already; see
                ``RetrProcessor.read``.
        """
        if not self.model.config.uses_text:
            raise ValueError('item_features="id": a new item needs training; use a model that reads text')
        self.processor.add_items(items)
        self.model.add_items(len(items), self.processor.catalog.hash)
        self._encode_items()

    @torch.no_grad()
    def recommend(
        self,
        history: Sequence[str] | Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = True,
        pathway: bool = True,
        candidates: Sequence[str] | None = None,
    ) -> Recommendation | list[Recommendation]:
        """The k best next items of one history, or of each of a batch.

        Args:
            history: raw item ids (under ``unknown_items="text"`` also texts), oldest first; or a list of such lists.
            k: how many items, at most those that remain.
            exclude_seen: leave the items of the whole history out.
            pathway: tell it too; of many long histories it takes time.
            candidates: raw ids, the only items that may come; None means the whole catalogue.

        Raises:
            ValueError: k is no whole number of at least 1, a history the processor refuses, candidates that are not in
                the catalogue.
        """
        single = is_single(history)
        rows, texts = self.processor.rows([history] if single else history)
        batch = self.processor.pad(rows)
        if texts:
            batch["new_text_embeddings"] = torch.from_numpy(self.processor.read(texts))
        batch = batch.to(self.item_embeddings.device)
        outputs = self.model(**batch, item_embeddings=self.item_embeddings, output_routes=pathway)
        windows = [self.processor.window(each) for each in rows]
        seen = rows if exclude_seen else None
        shown = outputs.routes, outputs.keep_probabilities
        chosen = None if candidates is None else self.rows_of(candidates)
        answers = recommendations(self.processor, outputs.logits, k, windows, seen, *shown, chosen, texts)
        return answers[0] if single else answers

    def why(self, history: Sequence[str], item_id: str | None = None) -> list[Reason]:
        """What each behaviour that is read of a history, oldest first, does for an item, see ``occlusion``.

        One pass over as many histories as there are behaviours, and one. Works without a router too: the route says
        which behaviours may ask, this what the score depends on.

        Args:
            history: raw item ids (under ``unknown_items="text"`` also texts), oldest first, two of them at least.
            item_id: the item to explain, of the catalogue; None is the best one that is not in the history.

        Raises:
            ValueError: a batch of histories, one that the processor refuses or of one behaviour, an item that is not
                in the catalogue, nothing left to recommend.
        """
        if not is_single(history):
            raise ValueError("history: expected one list of item ids, got several: call once for each")
        rows, texts = self.processor.rows([history])
        inputs = {}
        if texts:
            inputs["new_text_embeddings"] = torch.from_numpy(self.processor.read(texts)).to(self.item_embeddings.device)
        if item_id is None:
            best = self.recommend(history, k=1, pathway=False).items
            if not best:
                raise ValueError("nothing is left to recommend: all items are in the history; name the item to explain")
            item_id = best[0].item_id
        window, item = self.processor.window(rows[0]), self.rows_of([item_id], "item_id")
        read = self.processor.max_length
        (weights,) = behavior_weights(self.model, self.item_embeddings, rows, item, self.processor.pad, read, **inputs)
        return [
            Reason(*behavior, weight)
            for behavior, weight in zip(self.processor.decode(window, texts), weights.tolist(), strict=True)
        ]

    def rows_of(self, item_ids: Sequence[str], name: str = "candidates") -> np.ndarray:
        """Rows of the item table of raw ids, all of which must be there: int64 [n].

        Raises:
            ValueError: no list of ids, none at all, some that are not in the catalogue; ``name`` is what they are.
        """
        require_list(item_ids, name, "item ids", ordered=False)
        item_ids = list(item_ids)
        rows = self.processor.catalog.index_of(item_ids)
        if not len(rows) or (rows == 0).any():
            unknown = [item for item, row in zip(item_ids, rows, strict=True) if not row]
            raise ValueError(f"{name}: expected ids of the catalogue, got {unknown[:3] or 'none'}")
        return rows

    def to(self, device: torch.device | str) -> "Recommender":
        """Moves model and item table; returns itself."""
        self.model.to(device)
        self.item_embeddings = self.item_embeddings.to(device)
        return self

    def session(self, histories: Sequence[Sequence[str]]) -> RecommenderSession:
        """Users whose histories grow while they are served, numbered as in ``histories``; see ``RecommenderSession``.

        histories: raw item ids of each user, oldest first; an empty list is a user who has done nothing yet.

        Raises:
            ValueError: no users, a history the processor refuses, or a model that reads the future or draws at random.
        """
        return RecommenderSession(self, histories)


_CARD = f"""---
library_name: transformers
tags:
- retr
- recommendation
- {TASK}
---

A RETR sequential recommender with its item catalogue. What it was trained on was not written down.

```python
from transformers import pipeline

recommend = pipeline("{TASK}", model="THIS_REPOSITORY", trust_remote_code=True)
recommend({{"history": ["ITEM_ID", "ITEM_ID"]}}, top_k=10)
```
"""
