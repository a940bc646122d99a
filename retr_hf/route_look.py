"""A look at a model's routes: which behaviours they keep, and what that choice is worth to the ranking.

A route that explains a recommendation must have something to do with it. So the model is ranked once more with its
routers replaced by ones that keep everything, nothing, and as many behaviours as they do but by chance: what stays
the same without the route is not explained by it (the test of faithfulness by intervention; DeYoung et al., *ERASER*,
ACL 2020, asks the same of rationales). And for some users each behaviour is left out in turn (``model.occlusion``):
those on the pathway should weigh more than those off it.

Of the last block only one token's state is read: the last behaviour's, of a bidirectional body the [mask]'s. So "as
many" means there the share of these tokens that ask, and a behaviour is on the pathway that asks in the block before.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from .data.domain import PreparedDomain
from .data.synthetic import pathway_auc
from .errors import DataError
from .evaluation.histories import evaluating, routings
from .evaluation.metrics import UserDifference, user_differences
from .evaluation.route_profile import Part, by_age, by_popularity
from .measuring import drawn, is_synthetic, ranks_of_split, split_for
from .model.occlusion import behavior_weights
from .model.pathway import RandomRouter
from .model.processing_retr import RetrProcessor, longest_history
from .model.text_whitening import text_table

USERS_OCCLUDED = 500
OWN = "its own"
ALL, NONE, CHANCE = "all kept", "none kept", "as many, by chance"


@dataclass(frozen=True)
class RouteLook:
    """What was seen.

    parts: what behaviours are told apart by -> the parts.
    ranks: how the routes were replaced -> ranks by protocol, int64 [U] each.
    kept: of the behaviours, a share a block: by its own routes ("its own"), and as they were replaced.
    weights: what behaviours do for the target, those on the pathway and those off it: float32 [n] each, of the users
        drawn; None of a model that reads times.
    difference: each user's mean weight on the pathway minus that off it, over the users who have both; None where
        fewer than two have.
    found: of a synthetic world, the area under the ROC curve with which the weights, and α of each block, tell the
        behaviours that decide the target from the others, among the users drawn; else, and of a model that reads times,
        empty.
    """

    parts: dict[str, list[Part]]
    ranks: dict[str, dict[str, np.ndarray]]
    kept: dict[str, list[float]]
    weights: tuple[np.ndarray, np.ndarray] | None
    difference: UserDifference | None
    found: dict[str, float]

    def settings(self, name: str) -> dict[str, object]:
        """What the result row of routes of that name tells of them."""
        told: dict[str, object] = {"routes kept": self.kept[name]}
        if name != OWN:
            return told
        if self.weights is not None:
            told["weights on, off the pathway"] = [float(each.mean()) if len(each) else None for each in self.weights]
        if self.difference is not None:
            told["weight on minus off, within users, ± 95 %"] = list(self.difference)
        return told | {f"AUC of {name}": auc for name, auc in self.found.items()}

    def text(self, own: dict[str, np.ndarray], cutoffs: Sequence[int]) -> str:
        """For the terminal; ``own``: the model's own ranks by protocol."""
        lines = []
        for kind, parts in self.parts.items():
            lines.append(f"  behaviours kept, each block, by {kind}")
            for part in parts:
                kept = "  ".join(f"{share:.4f}" for share in part.kept)
                lines.append(f"  {part.label:>12} {kept}  ({part.behaviours:,} behaviours)")
        lines.append("  other routes minus the model's own, the same users, with the 95 % interval over users")
        for replaced, ranks in self.ranks.items():
            for protocol in own:
                differences = user_differences(ranks[protocol], own[protocol], cutoffs)
                told = "  ".join(f"{name} {each}" for name, each in differences.items())
                lines.append(f"  {replaced:<22} {protocol:<12} {told}")
        if self.weights is not None:
            told = [f"{each.mean():+.4f} ({len(each):,})" if len(each) else "there are none" for each in self.weights]
            lines.append(f"  a behaviour's weight for the target: on the pathway {told[0]}, off it {told[1]}")
        else:
            lines.append("  a behaviour's weight for the target: not of a model that reads times")
        if self.difference is not None:
            lines.append(f"  on minus off, within users who have both: {self.difference}")
        if self.found:
            told = ", ".join(f"{name} {auc:.4f}" for name, auc in self.found.items())
            lines.append(f"  area under the ROC curve, for behaviours that decide the target: {told}")
        return "\n".join(lines)


def look_at_routes(model, domain: PreparedDomain, split: str, settings) -> RouteLook:
    """Looks at the routes of the histories of a split; on every process, each of which has all of it.

    Args:
        model: a recommendation head with a router, for this domain's catalogue.
        settings: ``EvaluationSettings``.

    Raises:
        DataError: the model has no router.
        ValueError: it samples its routes.
    """
    require_router(model)
    text, longest = text_table(model.config, domain.catalog()), model.config.max_position_embeddings
    sequences = split_for(model.config, domain, split)
    found = routings(model, model.encode_catalog(text), sequences, longest, settings.batch_size)
    parts = {
        "training interactions of the item": by_popularity(found, sequences, domain.training_counts()),
        "age, 1 the last before the target": by_age(found, sequences),
    }
    shares = [float(block.mean()) for block in found.routes]
    last = np.isin(found.places, sequences.offsets[1:] - 2)
    asking = found.routes[-1, last] if found.at_mask is None else found.at_mask[-1]
    replaced = {ALL: [1.0] * len(shares), NONE: [0.0] * len(shares), CHANCE: [*shares[:-1], float(asking.mean())]}
    ranks, all_kept = {}, {OWN: shares} | replaced
    for name, keep in replaced.items():
        with routes_replaced(model, keep):
            ranks[name] = ranks_of_split(model, domain, split, text, settings, longest)
    if model.config.reads_times:
        return RouteLook(parts, ranks, all_kept, None, None, {})
    places, weights = _weights(model, domain, sequences, text, longest)
    at = np.zeros(len(sequences.item_ids), dtype=np.int64)
    at[found.places] = np.arange(len(found.places))
    kept = found.routes[max(0, len(shares) - 2), at[places]] > 0.5
    aucs = {}
    if is_synthetic(domain):
        pivotal = domain.pivotal(split)[0][places]
        alphas = found.keep_probabilities[:, at[places]]
        if len(set(pivotal)) > 1:
            told = {"weight": weights} | {f"α of block {block + 1}": alpha for block, alpha in enumerate(alphas)}
            aucs = {name: pathway_auc(each, pivotal) for name, each in told.items()}
    difference = _within_users(np.searchsorted(sequences.offsets, places, side="right"), weights, kept)
    return RouteLook(parts, ranks, all_kept, (weights[kept], weights[~kept]), difference, aucs)


def _within_users(users: np.ndarray, weights: np.ndarray, kept: np.ndarray) -> UserDifference | None:
    """``RouteLook.difference`` of behaviours: whose they are int [n], weights [n], whether kept [n]."""
    means = []
    for chosen in (kept, ~kept):
        counts = np.bincount(users[chosen], minlength=users.max(initial=0) + 1)
        sums = np.bincount(users[chosen], weights[chosen], minlength=len(counts))
        means.append(np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0))
    differences = means[0] - means[1]
    differences = differences[~np.isnan(differences)]
    return UserDifference.of(differences) if len(differences) > 1 else None


def _weights(model, domain: PreparedDomain, sequences, text, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Behaviours of some users, places int [n] in ``item_ids``, and what they do for the targets, float32 [n]."""
    offsets, longest = sequences.offsets, longest_history(model.config)
    users = np.flatnonzero(np.diff(offsets) > 2)  # of one behaviour there is nothing to leave out
    chosen = drawn(len(users), USERS_OCCLUDED)
    users = users if chosen is None else users[chosen]
    if not len(users):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    places = [np.arange(max(offsets[user], offsets[user + 1] - 1 - longest), offsets[user + 1] - 1) for user in users]
    histories = [sequences.item_ids[offsets[user] : offsets[user + 1] - 1].astype(np.int64) for user in users]
    targets = sequences.item_ids[offsets[users + 1] - 1]
    pad = RetrProcessor(domain.catalog(), longest).pad
    with evaluating(model):
        found = behavior_weights(model, model.encode_catalog(text), histories, targets.tolist(), pad, longest)
    return np.concatenate(places), np.concatenate(found)


def require_router(model) -> None:
    """Raises DataError for a model, or a baseline's name, that has no routes to look at."""
    if getattr(getattr(model, "config", None), "router", "none") == "none":
        told = model if isinstance(model, str) else model.name_or_path
        raise DataError(f"{told} has no router, so no routes: expected a model with model.router=pathway or random")


@contextmanager
def routes_replaced(model, keep: Sequence[float]) -> Iterator[None]:
    """Has each block keep this share of the behaviours, drawn by chance, one draw of a fixed seed (another one where
    the batches or the processes are others); and back.

    With all kept attention is that of a body without router; with none kept no token asks, and attention weighs all
    that it sees alike.
    """
    layers = list(model.model.layers)
    own = [layer.router for layer in layers]
    try:
        for place, (layer, share) in enumerate(zip(layers, keep, strict=True)):
            layer.router = RandomRouter(place, hierarchical=False, keep=share, sampling=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        for layer, router in zip(layers, own, strict=True):
            layer.router = router
