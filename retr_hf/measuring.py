"""From a model and a prepared domain to ranks and result rows: what the scripts that measure share."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .data.domain import PreparedDomain, Sequences
from .data.synthetic import pathway_auc
from .data.whole_histories import whole_histories
from .errors import DataError
from .evaluation.histories import rank_histories, routings
from .evaluation.metrics import metrics_from_ranks
from .evaluation.route_profile import by_popularity
from .model.configuration_retr import RetrConfig
from .model.item_catalog import ItemCatalog
from .report.results import ResultRow, environment


def common_encoder(domains: Sequence[PreparedDomain], catalogs: Sequence[ItemCatalog]) -> str | None:
    """The text encoder that made the vectors of all domains.

    Raises:
        DataError: domains embedded by different encoders, or not at all.
    """
    encoders = {domain.name: catalog.text_encoder for domain, catalog in zip(domains, catalogs, strict=True)}
    if None in encoders.values() or len(set(encoders.values())) > 1:
        told = ", ".join(f"{name}: {encoder or 'not embedded'}" for name, encoder in encoders.items())
        raise DataError(f"expected text vectors of one encoder in all domains ({told}): run scripts/embed.py on them")
    return catalogs[0].text_encoder


def require_splits(domain: PreparedDomain, *splits: str) -> None:
    """Raises DataError for an empty split: told before the training, not after."""
    for split in splits:
        if not len(domain.split(split)):
            raise DataError(f"{domain.path}: the {split} split is empty; users need three items (a lower --k-core?)")


def split_for(config: RetrConfig, domain: PreparedDomain, name: str) -> Sequences:
    """A split of a domain as a model reads it: with times where its attention reads them, and else without.

    name: of the split, or "all": each user's whole history.

    Raises:
        DataError: the model reads times, the domain has none.
    """
    sequences = whole_histories(domain)[1] if name == "all" else domain.split(name)
    if not config.reads_times:
        return replace(sequences, timestamps=None)
    if sequences.timestamps is None:
        raise DataError(
            f'{domain.path}: attention="{config.attention}" reads timestamps, and domain {domain.name!r} has none: '
            "prepare it again from a table with a timestamp column (scripts/prepare.py tables --interactions FILE "
            "--columns timestamp=COLUMN), or choose another attention"
        )
    return sequences


def drawn(rows: int, most: int | None, seed: int = 0) -> np.ndarray | None:
    """A sample of ``most`` of so many rows, int [most] ascending; None where all are taken."""
    if most is None or rows <= most:
        return None
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def ranks_of_split(
    model, domain: PreparedDomain, split: str, text_embeddings, settings, max_length, max_users=None, sampled=True
):
    """Ranks by protocol, int64 [U], of a model on a split of a domain; ``max_users`` draws a fixed sample.

    sampled: also among the stored negatives, which is a hundred numbers a user to read.
    """
    sequences, negatives = split_for(model.config, domain, split), domain.negatives(split) if sampled else None
    if (chosen := drawn(len(sequences), max_users)) is not None:
        sequences, negatives = sequences.select(chosen), negatives.select(chosen) if sampled else None
    items = model.encode_catalog(text_embeddings)
    return rank_histories(model, items, sequences, negatives, max_length, settings.batch_size)


def about_routes(model, domain: PreparedDomain, text_embeddings, max_length: int) -> dict[str, list | dict]:
    """What the routers do with the test histories, a number a block: the share of behaviours kept, mean α, mean ω, the
    share kept of those whose item was bought so many times in training; of a bidirectional body also the share of
    histories whose [mask] is kept, which may ask what comes next.

    Where the world is known also "pathway AUC", how well α finds the behaviours that decide the test target; left out
    where the model reads only behaviours of one kind. Nothing without a learned router.
    """
    if model.config.router != "pathway":
        return {}
    sequences = split_for(model.config, domain, "test")
    found = routings(model, model.encode_catalog(text_embeddings), sequences, max_length)
    told = {"routes kept": found.routes, "α": found.keep_probabilities, "ω": found.omegas}
    told |= {} if found.at_mask is None else {"[mask] kept": found.at_mask}
    about = {name: [round(float(block.mean()), 4) for block in values] for name, values in told.items()}
    popularity = by_popularity(found, sequences, domain.training_counts())
    about["routes kept by training count"] = {part.label: part.kept for part in popularity}
    if is_synthetic(domain):
        pivotal = domain.pivotal("test")[0][found.places]
        if len(set(pivotal)) > 1:
            about["pathway AUC"] = [round(pathway_auc(alpha, pivotal), 4) for alpha in found.keep_probabilities]
    return about


def is_synthetic(domain: PreparedDomain) -> bool:
    """Whether a domain is made up, with a known answer."""
    return domain.provenance["reader"] == "synthetic"


def result_rows(
    ranks: dict[str, np.ndarray],
    domain: PreparedDomain,
    cutoffs: Sequence[int],
    *,
    split: str = "test",
    settings: dict | None = None,
    **about,
) -> list[ResultRow]:
    """One row a protocol, stamped with commit, versions and date.

    ``candidates`` is the most any user has: under ``full-unseen`` the history's items are taken off it. The sampled
    protocol is left out where some user has no negative at all, and says in ``settings`` if some have fewer.
    """
    counts, settings = domain.negatives(split).lengths, dict(settings or {})
    candidates = {"full": domain.num_items, "full-unseen": domain.num_items, "sampled": int(counts.max()) + 1}
    if counts.min() == 0:
        ranks = {protocol: values for protocol, values in ranks.items() if protocol != "sampled"}
    rows = []
    for protocol, values in ranks.items():
        uneven = {"fewest candidates": int(counts.min()) + 1} if protocol == "sampled" and np.ptp(counts) else {}
        rows.append(
            ResultRow(
                domain=domain.name,
                split=split,
                protocol=protocol,
                candidates=candidates[protocol],
                metrics=metrics_from_ranks(values, cutoffs),
                num_users=len(values),
                synthetic=is_synthetic(domain),
                settings=settings | uneven,
                **about,
                **environment(),
            )
        )
    return rows


def print_metrics(title: str, rows: Sequence[ResultRow]) -> None:
    """One line a protocol."""
    print(title + (" (SYNTHETIC)" if rows and rows[0].synthetic else ""))
    for row in rows:
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in row.metrics.items())
        print(f"  {row.protocol:<12} {numbers}  ({row.num_users:,} users, {row.candidates:,} candidates)")
