"""PreparedDomain: opens a folder made by `scripts/prepare.py` and hands out its splits as flat arrays."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from ..model.item_catalog import CATALOG_FILE, ItemCatalog
from .domain_hub import download, upload
from .mapped import mapped_table
from .ragged import gather_ragged
from .readers.raw import KIND
from .schema import (
    DOMAIN_FILE,
    INTERACTIONS_DIR,
    ITEM_IDS,
    NEGATIVES,
    NEGATIVES_DIR,
    PIVOTAL,
    PIVOTAL_DIR,
    SPLITS,
    TIMESTAMPS,
    USER_ID,
)

DOMAIN_FORMAT = 1


@dataclass(frozen=True)
class Sequences:
    """Rows of different lengths laid end to end; row r is ``item_ids[offsets[r]:offsets[r + 1]]``, oldest first.

    Attributes:
        item_ids: [total] int32 catalogue indices (1-based).
        offsets: [rows + 1] int64.
        timestamps: [total] int64, seconds since 1970, or None where the source has no times.
    """

    item_ids: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """[length] int32 indices of one row."""
        row = range(len(self))[row]
        return self.item_ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """[rows] int64."""
        return np.diff(self.offsets)

    def select(self, rows: np.ndarray) -> "Sequences":
        """Some of the rows, int [R], in that order."""
        lengths = self.lengths[rows]
        taken = partial(gather_ragged, first=self.offsets[rows], lengths=lengths)
        times = None if self.timestamps is None else taken(self.timestamps)
        return Sequences(taken(self.item_ids), np.concatenate([[0], np.cumsum(lengths)]), times)


class PreparedDomain:
    """A prepared domain on disk; files are only read when asked for, histories and vectors as memory maps.

    Attributes:
        path: the folder.
        name: name of the domain.
        statistics: users, items, interactions, mean_length, median_length, density, rows of each split.
        provenance: reader, inputs with sha256, options, dropped, versions.
        num_items: number of items I without padding; indices run from 1 to I.

    Raises:
        DataError: the folder is no prepared domain, or one of another format.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        missing = [file for file in (DOMAIN_FILE, CATALOG_FILE) if not (self.path / file).is_file()]
        if missing:
            what = "does not exist" if not self.path.exists() else f"has no {missing[0]}"
            raise DataError(
                f"{self.path}: expected a prepared domain, but the folder {what}; make one with "
                f"`python scripts/prepare.py tables --interactions FILE --items FILE --output {self.path}` "
                "(see `python scripts/prepare.py --help`)"
            )
        about = read_about(self.path)
        if about.get("format") != DOMAIN_FORMAT:
            raise DataError(
                f"{self.path / DOMAIN_FILE}: expected format {DOMAIN_FORMAT}, got {about.get('format')!r}; "
                "prepare the domain again with --overwrite"
            )
        self.name: str = about["name"]
        self.statistics: dict[str, Any] = about["statistics"]
        self.provenance: dict[str, Any] = about["provenance"]
        self.num_items: int = json.loads((self.path / CATALOG_FILE).read_text(encoding="utf-8"))["num_items"]

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | bool | None = None
    ) -> "PreparedDomain":
        """Opens a local folder or, where there is none of that name, a dataset repository of the Hub.

        Args:
            name: a folder, or a repository ``owner/name``, which is downloaded once into the cache of huggingface_hub.
            revision: of the repository: a branch, a tag or a commit.
            token: of a private repository; None takes the one that is logged in.

        Raises:
            DataError: neither a prepared domain nor a repository that holds one.
        """
        return cls(name if Path(name).exists() else download(str(name), revision, token))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Uploads the domain, its embeddings included, as a dataset repository in one commit; returns its URL.

        ``datasets.load_dataset(repo_id)`` opens it then, and ``PreparedDomain.from_pretrained(repo_id)``. Files of a
        domain that was there before and has more (a second view, say) are deleted with the same commit; what is half
        finished here stays here.

        Args:
            repo_id: ``owner/name``; made if it is not there.
            private: of a new repository; None is what the owner's settings say.
            token: with the right to write; None takes the one that is logged in.
            revision: a branch, made if it is not there; None is main.

        Raises:
            huggingface_hub.errors.HfHubHTTPError: no right to write, no such owner.
        """
        return upload(self.path, repo_id, private, token, revision, commit_message or f"Prepared domain {self.name}")

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.statistics[key]:,} {key}" for key in ("users", "items", "interactions"))
        return f"PreparedDomain({self.name}: {counts})"

    def split(self, name: str) -> Sequences:
        """Full sequences of a split: ``train``, ``validation`` or ``test``, memory-mapped (``mapped.py``), not to be
        written to.

        In train every item after the first is a target; in validation and test the last item is the target and the
        rest the history.
        """
        table = mapped_table(self._file(INTERACTIONS_DIR, name), [ITEM_IDS, TIMESTAMPS])
        item_ids, offsets = _flat(table[ITEM_IDS])
        timestamps = _flat(table[TIMESTAMPS])[0] if TIMESTAMPS in table.column_names else None
        return Sequences(item_ids, offsets, timestamps)

    def training_counts(self) -> np.ndarray:
        """How often each item stands in the training histories: int64 [num_items + 1], 0 for the padding row."""
        return np.bincount(self.split("train").item_ids, minlength=self.num_items + 1)

    def negatives(self, name: str) -> Sequences:
        """Sampled candidates of ``validation`` or ``test``, rows aligned with :meth:`split`."""
        return Sequences(*_flat(self._read(NEGATIVES_DIR, name)[NEGATIVES]))

    def user_ids(self, name: str) -> list[str]:
        """[rows] raw user ids, aligned with :meth:`split`."""
        return self._read(INTERACTIONS_DIR, name, [USER_ID])[USER_ID].to_pylist()

    def pivotal(self, name: str) -> tuple[np.ndarray, list[str] | None]:
        """Ground truth of a synthetic world: [total] bool aligned with ``split(name).item_ids``, and [rows] kinds.

        Raises:
            DataError: the domain is not synthetic.
        """
        table = self._read(PIVOTAL_DIR, name)
        kinds = table[KIND].to_pylist() if KIND in table.column_names else None
        return _flat(table[PIVOTAL])[0], kinds

    def catalog(self, embeddings: bool = True) -> ItemCatalog:
        """The items; with their text vectors where the embed stage has run."""
        return ItemCatalog.from_pretrained(self.path, embeddings=embeddings)

    def _read(self, folder: str, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(self._file(folder, name), columns=columns, memory_map=True)

    def _file(self, folder: str, name: str) -> Path:
        path = self.path / folder / f"{name}.parquet"
        if not path.is_file():
            having = [split for split in SPLITS if (self.path / folder / f"{split}.parquet").is_file()]
            there = f"{folder}/ has {', '.join(having)}" if having else f"this domain has no {folder}/"
            raise DataError(f"{path}: expected a split of domain {self.name!r}, got {name!r}; {there}")
        return path


def load_domain(path: str | Path) -> PreparedDomain:
    """Opens a prepared domain. Raises DataError, saying how to make one, if the folder is none."""
    return PreparedDomain(path)


def read_about(folder: Path) -> dict[str, Any]:
    """The content of domain.json. Raises DataError if it is damaged."""
    path = folder / DOMAIN_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: expected a JSON object, got something else ({error}); prepare it again") from error


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """A list column -> (values [total], offsets [rows + 1] int64)."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies a single one too
    values = array.flatten().to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy().astype(np.int64)
    return values, offsets - offsets[0]
