"""A generated category of Amazon Reviews 2018: ratings csv and metadata, in the shape of Home_and_Kitchen at any size.

Of 22 million ratings: 10.4 million users of 2.1 ratings on average (power law, exponent 2.3, at most 80), 1.3 million
items (popularity falls as (rank + 50)^-0.95), grouped by item as published, times in whole days, one user in some
hundred rating twice; metadata of 98 items in 100, 1.4 kB a line. Its 5-core has 593,000 users, 233,000 items, 6.5
million ratings (published: 731,913, 185,552, 6.45 million).
"""

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl

CATEGORY = "Home_and_Kitchen"
_BLOCK = 2_000_000  # rows written at once
_WORDS = 4000


def write_category(folder: Path, ratings: int, seed: int = 0) -> tuple[Path, Path]:
    """Writes ``Ratings/X.csv`` and ``Metadata/meta_X.json.gz`` under ``folder``; returns both.

    Args:
        ratings: lines of the csv.
        seed: the same gives the same files.
    """
    rng = np.random.default_rng(seed)
    items = max(ratings * 6 // 100, 10)
    csv, meta = folder / "Ratings" / f"{CATEGORY}.csv", folder / "Metadata" / f"meta_{CATEGORY}.json.gz"
    for path in (csv, meta):
        path.parent.mkdir(parents=True, exist_ok=True)
    _write_ratings(csv, ratings, items, rng)
    _write_metadata(meta, items, rng)
    return csv, meta


def _write_ratings(path: Path, ratings: int, items: int, rng: np.random.Generator) -> None:
    sizes = np.arange(1, 81)
    weights = sizes**-2.3
    counts = rng.choice(sizes, ratings, p=weights / weights.sum())
    users = np.repeat(np.arange(ratings, dtype=np.int64), counts)[:ratings]
    rng.shuffle(users)
    popularity = (np.arange(items) + 50.0) ** -0.95
    counts = rng.permutation(rng.multinomial(ratings, popularity / popularity.sum()))
    of_items = np.repeat(rng.permutation(items), counts)
    with path.open("wb") as file:
        for start in range(0, ratings, _BLOCK):
            block = slice(start, start + _BLOCK)
            rows = len(users[block])
            pl.DataFrame(
                {
                    "item": _asins(of_items[block]),
                    "user": "A" + pl.Series(users[block] * 40_503 % 9_999_999_999_971).cast(pl.String).str.zfill(13),
                    "rating": rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], rows, p=[0.08, 0.05, 0.08, 0.17, 0.62]),
                    "time": rng.integers(12_000, 17_800, rows) * 86_400,
                }
            ).write_csv(file, include_header=False, float_precision=1)


def _write_metadata(path: Path, items: int, rng: np.random.Generator) -> None:
    words = np.array([f"word{n}" for n in range(_WORDS)])
    with gzip.open(path, "wt", compresslevel=3, encoding="utf-8") as file:
        for asin in _asins(np.flatnonzero(rng.random(items) < 0.98)):
            drawn = words[(rng.random(120) ** 2 * _WORDS).astype(int)].tolist()
            file.write(
                json.dumps(
                    {
                        "asin": asin,
                        "title": " ".join(drawn[:9]).capitalize() + " &amp; more",
                        "brand": drawn[9].capitalize(),
                        "category": ["Home & Kitchen", *drawn[10:13]],
                        "description": [" ".join(drawn[13:90])],
                        "feature": drawn[90:],
                        "price": "$9.99",
                    }
                )
                + "\n"
            )


def _asins(items: np.ndarray) -> pl.Series:
    return "B" + pl.Series(items * 2_654_435 % 999_999_937).cast(pl.String).str.zfill(9)
