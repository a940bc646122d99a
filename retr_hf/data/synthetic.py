"""Synthetic worlds with a known answer: for tests, the quickstart, and as ground truth for behaviour pathways.

Nothing in here is, or imitates the figures of, any real data set.

The story of `synthetic_world`. Ten shops sell different things but describe them with the same words: every item text
is "BRAND STYLE THEME OBJECT" ("Fernhill wicker picnic bench"); brands and objects belong to one domain, styles and
themes are common to all. A user has one *interest*: a style that stays and a theme that moves on. The law is a hidden
cycle over the themes, the same in all domains: who last bought something "wicker picnic" goes on to something "wicker
stargazing", whatever lies in between. Which theme follows which is carried by text only; learned in one domain, it
holds in all.

    behaviours that follow the user's present interest      PIVOTAL: the latest of them decides the next item
    everything else                                         noise: popular items of other styles, any theme

    correlated users   the pivotal behaviours are one burst, then come up to three noise behaviours
    casual users       they are scattered over the whole history
    drifted users      an earlier interest (another style, another walk over the themes) is abandoned half-way; its
                       behaviours obey the same law but no longer matter, so they count as noise. A causal router is
                       right to keep them while they last: expect the lowest AUC here

The last item of every user obeys the law, so the test target is always deducible. The item before it obeys it for
about half of the users (`pivotal` says for which): if it always did, the last behaviour alone would tell the answer
in the test, and no model would need to find the pathway. HR@10 on the validation split is capped accordingly.

The best achievable. Between the items of the right style and theme, 2 or 3 in a target domain and 5 in a source
domain (default sizes), only chance decides. Hence HR@10 = 1.0 for one who knows the law and the pivotal behaviours
([`oracle_ranks`]), while popularity does about as well as chance, 10 / items. In larger catalogues c = items / 60 of
them fit, and the best HR@10 is min(10, c) / c.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .prepare import write_domain
from .synthetic_domain import KINDS, MIN_LENGTH, SyntheticDomain, make_domain
from .synthetic_words import BRANDS, OBJECTS, STYLES, THEMES

__all__ = [
    "KINDS",
    "SOURCE_DOMAINS",
    "TARGET_DOMAINS",
    "SyntheticDomain",
    "cycle_world",
    "oracle_ranks",
    "pathway_auc",
    "synthetic_world",
    "write_world",
]

SOURCE_DOMAINS = ("garden", "kitchen", "music", "playroom", "stationery")
TARGET_DOMAINS = ("bathroom", "camping", "cycling", "pets", "sewing")


def synthetic_world(
    seed: int = 0,
    *,
    source_users: int = 600,
    source_items: int = 300,
    target_users: int = 250,
    target_items: int = 150,
    mean_length: float = 14.0,
) -> dict[str, SyntheticDomain]:
    """Makes the ten domains of one world (see the head of this file), which share words and law.

    Args:
        seed: decides everything, the law included; each domain has a random stream of its own.
        source_users, source_items: size of each of SOURCE_DOMAINS.
        target_users, target_items: size of each of TARGET_DOMAINS; small, so that pre-training has something to give.
        mean_length: behaviours a user, targets included; lengths are 8 + Poisson.

    Returns:
        name -> domain, sources first.

    Raises:
        DataError: sizes that leave a style and theme without items, more items than there are texts, users too short to
            have an interest or too long for the catalogue.
    """
    fewest = len(THEMES) * len(STYLES)
    most = fewest * len(BRANDS["garden"]) * len(OBJECTS["garden"])
    for items in (source_items, target_items):
        if not fewest <= items <= most:
            raise DataError(
                f"a synthetic domain has {fewest} (every style of every theme) to {most} items, got {items}"
            )
    if mean_length < MIN_LENGTH or min(source_users, target_users) < 1:
        raise DataError(
            f"mean_length must be at least {MIN_LENGTH} and users at least 1, got {mean_length} and "
            f"{min(source_users, target_users)}"
        )
    streams = np.random.SeedSequence(seed).spawn(1 + len(SOURCE_DOMAINS) + len(TARGET_DOMAINS))
    cycle = np.random.default_rng(streams[0]).permutation(len(THEMES))
    sizes = {name: (source_users, source_items) for name in SOURCE_DOMAINS}
    sizes |= {name: (target_users, target_items) for name in TARGET_DOMAINS}
    return {
        name: make_domain(name, users, items, mean_length, cycle, np.random.default_rng(stream))
        for (name, (users, items)), stream in zip(sizes.items(), streams[1:], strict=True)
    }


def write_world(output_dir: str | Path, seed: int = 0, *, overwrite: bool = False, **sizes: float) -> list[Path]:
    """Writes a world as ten prepared domains, ``output_dir/<name>``, sources first.

    Args:
        output_dir: made where absent.
        seed: of the world, and of the sampled negatives.
        overwrite: replace other domains of these names.
        sizes: as for [`synthetic_world`].

    Returns:
        the ten folders. A domain that is there already, made with the same settings, is left alone.

    Raises:
        DataError: see [`synthetic_world`]; a folder holds something else and `overwrite` is not set.
    """
    world = synthetic_world(seed, **sizes)
    options = {"data": "synthetic, made by formula: no real users or items", "seed": seed}
    options |= synthetic_world.__kwdefaults__ | sizes
    folders = [Path(output_dir) / name for name in world]
    for folder, domain in zip(folders, world.values(), strict=True):
        write_domain(domain.to_raw(options), folder, k_core=0, seed=seed, overwrite=overwrite)
    return folders


def cycle_world(num_items: int = 20, num_users: int = 200, length: int = 12, seed: int = 0) -> SyntheticDomain:
    """Item i is always followed by item i + 1, the last by the first: every sequential model must reach recall 1.

    Users start at seeded random items; with ``num_users`` well above ``num_items`` every transition is in the training
    part. Each text has a word of its own, so text and id models can both learn it.

    Raises:
        DataError: fewer than 2 items, 1 user or 3 behaviours.
    """
    if num_items < 2 or num_users < 1 or length < 3:
        raise DataError(
            f"expected at least 2 items, 1 user and length 3, got {num_items} items, {num_users} users, length {length}"
        )
    start = np.random.default_rng(seed).integers(num_items, size=(num_users, 1))
    rows = (start + np.arange(length)) % num_items
    pivotal = np.zeros((num_users, length), dtype=bool)
    pivotal[:, -2:] = True
    return SyntheticDomain(
        name="cycle",
        texts=[f"bead number {row}" for row in range(num_items)],
        themes=np.arange(num_items),
        styles=np.zeros(num_items, dtype=np.int64),
        item_rows=rows.ravel(),
        offsets=np.arange(num_users + 1) * length,
        pivotal=pivotal.ravel(),
        kinds=["cycle"] * num_users,
        successor=(np.arange(num_items) + 1) % num_items,
    )


def oracle_ranks(domain: SyntheticDomain, seed: int = 0) -> np.ndarray:
    """Ranks of the test targets, [U] from 1, for one who knows the law and what is pivotal: no model does better.

    Takes the latest pivotal behaviour of the history, ranks the items of its style and of the following theme first,
    and these by chance, for nothing else is to be known.
    """
    targets = domain.offsets[1:] - 1
    # The position of the latest pivotal behaviour before each position, over all users at once.
    positions = np.where(domain.pivotal, np.arange(len(domain.pivotal)), -1)
    latest = domain.item_rows[np.maximum.accumulate(positions)[targets - 1]]
    theme, style = domain.successor[domain.themes[latest]], domain.styles[latest]
    candidates = (domain.themes == theme[:, None]) & (domain.styles == style[:, None])  # [U, I]
    scores = candidates + np.random.default_rng(seed).random(candidates.shape)
    target_scores = np.take_along_axis(scores, domain.item_rows[targets][:, None], axis=1)
    return (scores >= target_scores).sum(axis=1)


def pathway_auc(keep_probability: np.ndarray, pivotal: np.ndarray) -> float:
    """How well a router tells pivotal behaviours from noise: area under the ROC curve, as sklearn's roc_auc_score.

    The chance that a pivotal behaviour got a higher keep probability than a noise behaviour, ties counting half;
    0.5 is guessing.

    Args:
        keep_probability: [n] of the history behaviours of all users laid end to end (no padding, no targets).
        pivotal: [n] bool.

    Raises:
        DataError: lengths differ, a probability is not finite, or one of the two groups is empty.
    """
    scores, pivotal = np.asarray(keep_probability, dtype=np.float64).ravel(), np.asarray(pivotal, dtype=bool).ravel()
    if scores.shape != pivotal.shape or not np.isfinite(scores).all():
        raise DataError(
            f"expected one finite keep probability a behaviour, got {scores.size} ({np.isfinite(scores).sum()} finite) "
            f"for {pivotal.size} behaviours"
        )
    positives, negatives = int(pivotal.sum()), int((~pivotal).sum())
    if not positives or not negatives:
        raise DataError(f"expected pivotal and other behaviours, got {positives} and {negatives}")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2  # from 1; equal scores share the mean of their ranks
    return float((mean_ranks[group][pivotal].sum() - positives * (positives + 1) / 2) / (positives * negatives))
