"""Recommender: a model folder in, titles, scores and the pathway behind them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .errors import DataError
from .model.modeling_retr import RetrForSequentialRecommendation
from .model.processing_retr import RetrProcessor, check_catalog


@dataclass(frozen=True)
class RecommendedItem:
    """One recommended item: raw id, title (the catalogue's text) and score (query · item)."""

    item_id: str
    title: str
    score: float


@dataclass(frozen=True)
class PathwayStep:
    """What the routers decided about one behaviour of the history.

    kept: the hard route of each block.
    keep_probabilities: α of each block.
    """

    item_id: str
    title: str
    kept: tuple[bool, ...]
    keep_probabilities: tuple[float, ...]

    @property
    def on_pathway(self) -> bool:
        """It may ask in the last block: it is among the behaviours that drove the recommendation."""
        return self.kept[-1]


@dataclass(frozen=True)
class Recommendation:
    """Items, best first, and the pathway over the history the model read (empty for a model without router)."""

    items: list[RecommendedItem]
    pathway: list[PathwayStep]

    def __str__(self) -> str:
        kept = [step.title for step in self.pathway if step.on_pathway]
        lines = [f"{item.score:7.3f}  {item.title} [{item.item_id}]" for item in self.items]
        if self.pathway:
            lines.append(f"driven by {len(kept)} of {len(self.pathway)}: " + "; ".join(kept))
        return "\n".join(lines)


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
        ValueError: the model cannot read the catalogue.
    """

    def __init__(self, model: RetrForSequentialRecommendation, processor: RetrProcessor):
        check_catalog(model.config, processor.catalog)
        self.model, self.processor = model.eval(), processor
        text = processor.item_table() if model.config.uses_text else None
        self.item_embeddings = model.encode_catalog(text)  # [num_items + 1, d]

    @classmethod
    def from_pretrained(cls, folder: str | Path, catalog: str | Path | None = None) -> "Recommender":
        """Opens a model folder; ``catalog`` names another folder to take the items from."""
        model = open_model(folder)
        if catalog is None:
            return cls(model, RetrProcessor.from_pretrained(folder))
        length = model.config.max_position_embeddings
        return cls(model, RetrProcessor.from_pretrained(catalog, max_length=length))

    @torch.no_grad()
    def recommend(
        self, history: Sequence[str] | Sequence[Sequence[str]], k: int = 10, exclude_seen: bool = True
    ) -> Recommendation | list[Recommendation]:
        """The k best next items of one history, or of each of a batch.

        Args:
            history: raw item ids, oldest first; or a list of such lists.
            k: how many items, at most those that remain.
            exclude_seen: leave the items of the whole history out.

        Raises:
            ValueError: k < 1, or a history the processor refuses.
        """
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        single = isinstance(history, str) or not len(history) or not isinstance(history[0], (list, tuple))
        histories = [history] if single else list(history)
        device = self.item_embeddings.device
        seen = [torch.from_numpy(self.processor.indices(each)).to(device) for each in histories]
        batch = self.processor(histories).to(device)
        outputs = self.model(**batch, item_embeddings=self.item_embeddings, output_routes=True)
        if exclude_seen:
            for row, indices in zip(outputs.logits, seen, strict=True):
                row[indices] = float("-inf")
        best = outputs.logits.topk(min(k, outputs.logits.shape[1] - 1), dim=-1)
        answers = []
        for row in range(len(histories)):
            kept = best.values[row].isfinite()
            items = self.processor.decode(best.indices[row][kept].tolist())
            scores = best.values[row][kept].tolist()
            answers.append(
                Recommendation(
                    [RecommendedItem(*item, score) for item, score in zip(items, scores, strict=True)],
                    self._pathway(batch, outputs, row),
                )
            )
        return answers[0] if single else answers

    def _pathway(self, batch, outputs, row: int) -> list[PathwayStep]:
        if not outputs.routes:
            return []
        indices = batch["input_ids"][row][batch["attention_mask"][row].bool()].tolist()
        kept = torch.stack(outputs.routes)[:, row].bool().T.tolist()  # [N, L]
        alphas = torch.stack(outputs.keep_probabilities)[:, row].T.tolist()
        return [
            PathwayStep(*item, tuple(kept[step]), tuple(alphas[step]))
            for step, item in enumerate(self.processor.decode(indices))
        ]
