"""Recommender: a model folder in, titles, scores and the pathway behind them out."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .errors import DataError
from .model.modeling_retr import RetrForSequentialRecommendation
from .model.processing_retr import RetrProcessor, check_catalog
from .model.text_whitening import text_table
from .recommendation import Recommendation, recommendations
from .session import RecommenderSession


def open_model(folder: str | Path) -> RetrForSequentialRecommendation:
    """A recommendation head from a local model folder, all its weights in it.

    Raises:
        DataError: no model folder, or one whose weights are not all there.
    """
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"{folder}: expected a model folder, but it has no config.json; scripts/finetune.py makes one")
    model, loading = RetrForSequentialRecommendation.from_pretrained(folder, output_loading_info=True)
    if loading["missing_keys"] or loading["unexpected_keys"]:
        wrong = sorted([*loading["missing_keys"], *loading["unexpected_keys"]])
        raise DataError(f"{folder}: its weights do not fit its config.json: {wrong[:5]}")
    return model


class Recommender:
    """Serves a model and its catalogue; items are encoded once.

    Args:
        model: the recommendation head.
        processor: its catalogue. Another catalogue embedded by the same encoder makes a text model a zero-shot one.

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
        self.model, self.processor = model.eval(), processor
        self.item_embeddings = model.encode_catalog(text_table(model.config, processor.catalog))  # [num_items + 1, d]

    @classmethod
    def from_pretrained(cls, folder: str | Path, catalog: str | Path | None = None) -> "Recommender":
        """Opens a model folder; ``catalog`` names another folder to take the items from."""
        model = open_model(folder)
        if catalog is None:
            return cls(model, RetrProcessor.from_pretrained(folder))
        reads = {"max_length": model.config.max_position_embeddings, "text_whitening": model.config.text_whitening}
        return cls(model, RetrProcessor.from_pretrained(catalog, **reads))

    @torch.no_grad()
    def recommend(
        self,
        history: Sequence[str] | Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = True,
        pathway: bool = True,
    ) -> Recommendation | list[Recommendation]:
        """The k best next items of one history, or of each of a batch.

        Args:
            history: raw item ids, oldest first; or a list of such lists.
            k: how many items, at most those that remain.
            exclude_seen: leave the items of the whole history out.
            pathway: tell it too; of many long histories it takes time.

        Raises:
            ValueError: k < 1, or a history the processor refuses.
        """
        single = isinstance(history, str) or not len(history) or not isinstance(history[0], (list, tuple))
        rows = [self.processor.indices(each) for each in ([history] if single else history)]
        batch = self.processor.pad(rows).to(self.item_embeddings.device)
        outputs = self.model(**batch, item_embeddings=self.item_embeddings, output_routes=pathway)
        windows = [each[-self.processor.max_length :] for each in rows]
        seen = rows if exclude_seen else None
        shown = outputs.routes, outputs.keep_probabilities
        answers = recommendations(self.processor, outputs.logits, k, windows, seen, *shown)
        return answers[0] if single else answers

    def session(self, histories: Sequence[Sequence[str]]) -> RecommenderSession:
        """Users whose histories grow while they are served, numbered as in ``histories``; see ``RecommenderSession``.

        histories: raw item ids of each user, oldest first; an empty list is a user who has done nothing yet.

        Raises:
            ValueError: no users, a history the processor refuses, or a model that reads the future or draws at random.
        """
        return RecommenderSession(self, histories)
