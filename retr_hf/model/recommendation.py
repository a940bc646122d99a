"""What a recommender answers: the best items by title and score, and the pathway behind them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral

import numpy as np
import torch

from .processing_retr import RetrProcessor


@dataclass(frozen=True)
class RecommendedItem:
    """One recommended item: raw id, title (the catalogue's text, or the id where it has none) and the model's score."""

    item_id: str
    title: str
    score: float

    def __str__(self) -> str:
        return f"{self.score:7.3f}  {self.title}" + ("" if self.title == self.item_id else f" [{self.item_id}]")


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
        """It may ask in the last block, of which the answer reads the last behaviour alone: the others ask in the
        blocks before. What a behaviour does for an item is another question: ``Recommender.why``."""
        return self.kept[-1]


@dataclass(frozen=True)
class Reason:
    """What one behaviour of the history does for an item.

    weight: what the item's log-probability loses without it (``occlusion``); below 0 it speaks against the item.
    """

    item_id: str
    title: str
    weight: float

    def __str__(self) -> str:
        return f"{self.weight:+7.3f}  {self.title}" + ("" if self.title == self.item_id else f" [{self.item_id}]")


@dataclass(frozen=True)
class Recommendation:
    """Items, best first, and the pathway over the history the model read (empty for a model without router)."""

    items: list[RecommendedItem]
    pathway: list[PathwayStep]

    def __str__(self) -> str:
        kept = [step.title for step in self.pathway if step.on_pathway]
        nothing = "nothing is left to recommend: all that may come is in the history"
        lines = [str(item) for item in self.items] or [nothing]
        if self.pathway:
            lines.append(f"on the pathway {len(kept)} of {len(self.pathway)}: " + "; ".join(kept))
        return "\n".join(lines)


def require_count(k: int) -> None:
    """Raises ValueError unless k is a whole number, at least 1."""
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k={k!r}: expected a whole number, at least 1")


def recommendations(
    processor: RetrProcessor,
    scores: torch.Tensor,
    k: int,
    windows: Sequence[Sequence[int]],
    seen: Sequence[Sequence[int]] | None,
    routes: tuple[torch.Tensor, ...] | None,
    keep_probabilities: tuple[torch.Tensor, ...] | None,
    candidates: np.ndarray | None = None,
    texts: Sequence[str] = (),
) -> list[Recommendation]:
    """Answers to B histories. M rows of the item table, L blocks.

    Args:
        processor: says which items the rows are.
        scores: [B, M], written to.
        k: how many items, at most those that remain.
        windows: rows of the items the model read, of each history.
        seen: rows to leave out, of each history; None leaves out none.
        routes, keep_probabilities: tuples over blocks of [B, n], padded as the processor pads; empty or None without a
            router.
        candidates: the only rows that may be recommended, int64 [C]; None means all.
        texts: of the windows' rows beyond the catalogue.

    Raises:
        ValueError: k is no whole number of at least 1.
    """
    require_count(k)
    scores[:, 0] = float("-inf")
    if candidates is not None:
        others = torch.ones(scores.shape[1], dtype=torch.bool, device=scores.device)
        others[torch.from_numpy(candidates)] = False
        scores[:, others] = float("-inf")
    if seen is not None:
        rows = np.repeat(np.arange(len(seen)), [len(each) for each in seen])
        columns = np.concatenate(seen)
        known = columns < scores.shape[1]
        scores[torch.from_numpy(rows[known]), torch.from_numpy(columns[known])] = float("-inf")
    best = scores.topk(min(int(k), scores.shape[1] - 1), dim=-1)
    kept = best.values.isfinite()
    titles = processor.decode(best.indices[kept].tolist())
    items = (RecommendedItem(*item, score) for item, score in zip(titles, best.values[kept].tolist(), strict=True))
    steps = iter(_steps(processor, windows, routes, keep_probabilities, texts) if routes else ())
    return [
        Recommendation(list(islice(items, count)), list(islice(steps, len(window) if routes else 0)))
        for count, window in zip(kept.sum(1).tolist(), windows, strict=True)
    ]


def _steps(processor, windows, routes, keep_probabilities, texts) -> list[PathwayStep]:
    """The steps of all windows, one after the other."""
    lengths = torch.tensor([len(window) for window in windows])
    columns = torch.arange(routes[0].shape[1])
    if processor.padding_side == "left":
        columns = columns.flip(0)
    real = (columns < lengths[:, None]).to(routes[0].device)
    kept, alphas = (torch.stack(parts, dim=-1)[real] for parts in (routes, keep_probabilities))  # [T, L]
    titles = processor.decode(np.concatenate(windows), texts)
    return [
        PathwayStep(*item, tuple(route), tuple(alpha))
        for item, route, alpha in zip(titles, kept.bool().tolist(), alphas.tolist(), strict=True)
    ]
