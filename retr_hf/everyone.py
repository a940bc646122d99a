"""Recommendations for every user of a prepared domain, as one table: what a shop mails, or lays into its database."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from .data.domain import PreparedDomain, Sequences
from .data.whole_histories import whole_histories
from .errors import DataError
from .evaluation.best_items import best_items
from .model.item_catalog import ItemCatalog, write_whole
from .model.recommendation import require_count
from .model.recommender import Recommender

WRITERS = {".parquet": pq.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
SCHEMA = pa.schema(
    {"user_id": pa.string(), "rank": pa.int32(), "item_id": pa.string(), "score": pa.float32()}  # rank 1 the best
)


class Answered(NamedTuple):
    """What became of a domain's users and of what they have done.

    users: who got recommendations.
    left_out: users who got none: the recommender knows no item of theirs, or nothing is left.
    unknown: interactions with items that the recommender does not know, which it did not read.
    """

    users: int
    left_out: int
    unknown: int


def require_table(path: str | Path, overwrite: bool = False) -> Path:
    """Makes the folder of a table that is to be written: told before the work, not after.

    Raises:
        DataError: another ending than those of WRITERS; a file that is there and may not be overwritten; a folder in
            its place, or a file in the place of its folder.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise DataError(f"{path}: expected a file that ends in {' or '.join(WRITERS)}")
    if files := [above for above in path.parents if above.exists() and not above.is_dir()]:
        raise DataError(f"{path}: {files[0]} is a file, expected a folder")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")
    if path.exists() and not overwrite:
        raise DataError(f"{path}: is there already; --overwrite replaces it, or name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def recommend_everyone(
    recommender: Recommender,
    domain: PreparedDomain,
    path: str | Path,
    k: int = 10,
    exclude_seen: bool = True,
    candidates: list[str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> Answered:
    """Writes the k best next items of every user, of whole histories: nothing is held back for a test.

    The table has a row a recommendation, columns of SCHEMA, users in the domain's order, best items first; it is put in
    place whole or not at all.

    Args:
        recommender: its items are recommended; those of the histories are found in it by their raw ids.
        domain: whose users; those that preparing left out are not there.
        path: parquet or csv, by its ending.
        k: how many items a user, at most those that remain.
        exclude_seen: leave the items of the whole history out.
        candidates: raw ids, the only items that may come; None means the recommender's whole catalogue.
        overwrite: replace a file that is there.
        progress: show users, rate and time left.

    Raises:
        DataError: see ``require_table``; scores that are not finite; no user has an item that the recommender knows.
        ValueError: what ``Recommender.recommend`` refuses of k and candidates.
    """
    path = require_table(path, overwrite)
    require_count(k)
    user_ids, histories = whole_histories(domain)
    catalog = recommender.processor.catalog
    known, read = known_histories(histories, domain.catalog(embeddings=False), catalog)
    known_items = len(read.item_ids)
    if not known_items:
        raise DataError(f"{domain.path}: no user has an item of the model's catalogue (--catalog reads the domain's)")
    chosen = best_items(
        recommender.model,
        recommender.item_embeddings,
        read,
        k,
        recommender.processor.max_length,
        exclude_seen,
        None if candidates is None else recommender.rows_of(candidates),
    )
    users, items = pa.array(user_ids, pa.string()).take(pa.array(known)), pa.array(catalog.item_ids, pa.string())
    answered = 0

    def tables() -> Iterator[pa.Table]:
        nonlocal answered
        with tqdm(total=len(known), unit=" users", desc=domain.name, disable=not progress) as bar:
            for best in chosen:
                user, place = np.nonzero(np.isfinite(best.scores))
                yield pa.table(
                    [
                        users.take(pa.array(best.users[user])),
                        pa.array(place + 1, pa.int32()),
                        items.take(pa.array(best.items[user, place] - 1)),
                        pa.array(best.scores[user, place], pa.float32()),
                    ],
                    schema=SCHEMA,
                )
                answered += len(np.unique(user))
                bar.update(len(best.users))

    def write(partial: Path) -> None:
        with WRITERS[path.suffix](partial, SCHEMA) as writer:
            for table in tables():
                writer.write_table(table)

    write_whole(path, write)
    return Answered(answered, len(user_ids) - answered, len(histories.item_ids) - known_items)


def known_histories(histories: Sequences, theirs: ItemCatalog, catalog: ItemCatalog) -> tuple[np.ndarray, Sequences]:
    """Histories in rows of another catalogue, by raw ids; items that are not in it are left out.

    Returns:
        The users int [V] of whom something is left, and their histories.
    """
    rows = histories.item_ids
    if theirs.hash != catalog.hash:
        rows = np.append(0, catalog.index_of(theirs.item_ids)).astype(np.int32)[rows]
    kept = np.append(0, np.cumsum(rows > 0))[histories.offsets]
    known = np.flatnonzero(np.diff(kept))
    return known, Sequences(rows[rows > 0], np.append(0, kept[1:][known]))
