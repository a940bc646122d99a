"""How one domain of a synthetic world comes about, all users at once; the story is told in synthetic.py."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from ..errors import DataError
from .readers.raw import KIND, RawDomain
from .schema import ITEM_ID, ITEM_IDS, PIVOTAL, TEXT, USER_ID
from .synthetic_words import BRANDS, OBJECTS, STYLES, THEMES

KINDS = ("correlated", "casual", "drifted")

MIN_LENGTH = 8  # shorter histories could not hold two interests
MIN_PIVOTAL = 3  # behaviours in the history that carry the interest
MAX_GAP = 3  # noise behaviours between the burst of a correlated user and the target
PIVOTAL_SHARE = 0.6
POPULARITY_EXPONENT = 1.0  # Zipf law of the noise
_NOISE, _FORMER, _PRESENT = 0, 1, 2  # what a behaviour follows


@dataclass(frozen=True)
class SyntheticDomain:
    """One domain of a world. U users, I items, T = all behaviours, laid end to end.

    Attributes:
        name: of the domain.
        texts: [I] item texts.
        themes, styles: [I] indices into THEMES and STYLES (the truth behind the texts; models never see them).
        item_rows: [T] row of each behaviour's item in `texts` (catalogue index minus 1), oldest first a user.
        offsets: [U + 1] user u is ``item_rows[offsets[u]:offsets[u + 1]]``; the last item is the test target.
        pivotal: [T] whether the behaviour follows the interest that decides the user's last item. True for the last
            item itself; at the item before it: whether the validation target is deducible.
        kinds: [U] "correlated", "casual" or "drifted".
        successor: [number of themes] the law: theme t is followed by theme successor[t].
    """

    name: str
    texts: list[str]
    themes: np.ndarray
    styles: np.ndarray
    item_rows: np.ndarray
    offsets: np.ndarray
    pivotal: np.ndarray
    kinds: list[str]
    successor: np.ndarray

    @property
    def num_users(self) -> int:
        return len(self.offsets) - 1

    def to_raw(self, options: dict[str, object]) -> RawDomain:
        """What `write_domain` takes: readable raw ids, the whole catalogue, provenance reader "synthetic"."""
        item_ids = np.array([f"{self.name}-item-{row:04d}" for row in range(len(self.texts))], dtype=object)
        behaviours = pl.DataFrame(
            {
                "user": np.repeat(np.arange(self.num_users), np.diff(self.offsets)),
                ITEM_IDS: pl.Series(item_ids[self.item_rows].tolist(), dtype=pl.String),
                PIVOTAL: self.pivotal,
            }
        )
        sequences = behaviours.group_by("user", maintain_order=True).agg(ITEM_IDS, PIVOTAL)
        sequences = sequences.select(
            pl.format(f"{self.name}-user-{{}}", pl.col("user").cast(pl.String).str.zfill(4)).alias(USER_ID),
            ITEM_IDS,
            PIVOTAL,
            pl.Series(KIND, self.kinds),
        )
        items = pl.DataFrame({ITEM_ID: item_ids.tolist(), TEXT: self.texts})
        return RawDomain(sequences, items, reader="synthetic", options=options, whole_catalogue=True)


def make_domain(
    name: str, num_users: int, num_items: int, mean_length: float, cycle: np.ndarray, rng: np.random.Generator
) -> SyntheticDomain:
    """Makes one domain of a world whose law is the given cycle: theme ``cycle[i]`` is followed by ``cycle[i + 1]``."""
    themes, styles, texts = _items(name, num_items, rng)
    lengths = MIN_LENGTH + rng.poisson(mean_length - MIN_LENGTH, size=num_users)
    kinds = rng.permutation(np.arange(num_users) % len(KINDS))
    role = _roles(lengths, kinds, rng)  # [U, L]

    # Two different styles and two starting points on the cycle: the present interest and the former one.
    present_style, former_style = rng.permuted(np.tile(np.arange(len(STYLES)), (num_users, 1)), axis=1)[:, :2].T
    rows = np.zeros(role.shape, dtype=np.int64)
    for kind, style in ((_PRESENT, present_style), (_FORMER, former_style)):
        step = np.cumsum(role == kind, axis=1) - 1 + rng.integers(len(THEMES), size=(num_users, 1))
        walk = _draw_items(cycle[step % len(cycle)], style[:, None], themes, styles, rng)
        rows = np.where(role == kind, walk, rows)

    # Noise: weighted by popularity, without repetition (exponential races), of neither of the two styles.
    popularity = 1.0 / rng.permutation(np.arange(1, num_items + 1)) ** POPULARITY_EXPONENT
    race = rng.exponential(size=(num_users, num_items)) / popularity
    race[(styles == present_style[:, None]) | (styles == former_style[:, None])] = np.inf
    order = np.argsort(race, axis=1)  # [U, I]
    real = np.arange(role.shape[1]) < lengths[:, None]
    noise = real & (role == _NOISE)
    count = np.cumsum(noise, axis=1)
    if (count[:, -1] > np.isfinite(race).sum(axis=1)).any():
        raise DataError(
            f"{name}: {num_items} items are too few for histories of up to {lengths.max()} behaviours without "
            "repetition; take more items or a smaller mean_length"
        )
    rows = np.where(noise, np.take_along_axis(order, np.maximum(count - 1, 0), axis=1), rows)

    successor = np.empty_like(cycle)
    successor[cycle] = np.roll(cycle, -1)
    return SyntheticDomain(
        name=name,
        texts=texts,
        themes=themes,
        styles=styles,
        item_rows=rows[real],
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        pivotal=(role == _PRESENT)[real],
        kinds=[KINDS[kind] for kind in kinds],
        successor=successor,
    )


def _items(name: str, num_items: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Themes [I], styles [I] and texts: every style for every theme equally often, no text twice, in random order."""
    cells = len(THEMES) * len(STYLES)
    things = len(BRANDS[name]) * len(OBJECTS[name])
    # [cells, things] in each cell the things in another order; item i is the (i // cells)-th of cell i % cells.
    thing_of = rng.permuted(np.tile(np.arange(things), (cells, 1)), axis=1)
    shuffled = rng.permutation(num_items)
    cell, thing = shuffled % cells, thing_of[shuffled % cells, shuffled // cells]
    themes, styles = cell // len(STYLES), cell % len(STYLES)
    brands, objects = thing // len(OBJECTS[name]), thing % len(OBJECTS[name])
    texts = [
        f"{BRANDS[name][b]} {STYLES[s]} {THEMES[t]} {OBJECTS[name][o]}"
        for b, s, o, t in zip(brands, styles, objects, themes, strict=True)
    ]
    return themes, styles, texts


def _roles(lengths: np.ndarray, kinds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What each behaviour follows, [U, L] of noise, former or present interest; the last one is always present."""
    position = np.arange(lengths.max())
    history = (lengths - 1)[:, None]
    kind = kinds[:, None]
    turn = np.where(kind == KINDS.index("drifted"), history // 2, 0)  # where the present interest may begin

    def wanted(room: np.ndarray) -> np.ndarray:  # a walk may not pass a theme twice, so that no item comes twice
        return np.clip(np.round(PIVOTAL_SHARE * room), MIN_PIVOTAL, len(THEMES) - 1).astype(np.int64)

    former = _scatter(position < turn, wanted(turn), rng)
    present = _scatter((position >= turn) & (position < history), wanted(history - turn), rng)
    size = wanted(history)
    end = history - np.minimum(rng.integers(MAX_GAP + 1, size=history.shape), history - size)
    burst = (position >= end - size) & (position < end)
    present = np.where(kind == KINDS.index("correlated"), burst, present) | (position == history)
    return np.where(present, _PRESENT, np.where(former, _FORMER, _NOISE))


def _scatter(eligible: np.ndarray, count: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Marks `count` [U, 1] random ones of the eligible positions [U, L] (all of them where there are fewer)."""
    key = np.where(eligible, rng.random(eligible.shape), 2.0)
    return eligible & (np.argsort(np.argsort(key, axis=1), axis=1) < count)


def _draw_items(
    theme: np.ndarray, style: np.ndarray, themes: np.ndarray, styles: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A random item of each wanted theme and style; broadcasts."""
    cell_of_item = themes * len(STYLES) + styles
    by_cell = np.argsort(cell_of_item, kind="stable")
    size = np.bincount(cell_of_item, minlength=len(THEMES) * len(STYLES))
    first = np.cumsum(size) - size
    cell = theme * len(STYLES) + style
    return by_cell[first[cell] + np.floor(rng.random(cell.shape) * size[cell]).astype(np.int64)]
