"""The items of a catalogue in a FAISS index: inner product, ids are catalogue indices. No torch.

Letters: I items, B queries, D width, k items asked for, n items of a history.
"""

from math import sqrt
from numbers import Integral
from pathlib import Path

import numpy as np

from ..errors import DataError, RetrError

KINDS = ("auto", "flat", "ivf", "hnsw")
FLAT_UP_TO = 50_000  # items; up to here a query of the exact index takes a few milliseconds
HNSW_LINKS, HNSW_BUILD, HNSW_EFFORT = 32, 80, 128  # neighbours a node; candidates kept in building, in searching
IVF_SHARE = 1 / 16  # of the lists are looked through


class ItemIndex:
    """Items by their candidate vectors; made by ``build`` or ``read``.

    Attributes:
        index: the FAISS index, an ``IndexIDMap2``.
        kind: "flat", "ivf" or "hnsw".
    """

    def __init__(self, index, kind: str):
        self.index, self.kind = index, kind

    @classmethod
    def build(cls, vectors: np.ndarray, kind: str = "auto", effort: int | None = None) -> "ItemIndex":
        """An index of the items 1 .. I.

        The same vectors give the same index on one thread (FAISS builds graphs in parallel otherwise).

        Args:
            vectors: float32 [I, D], row i being item i + 1.
            kind: "flat", exact; "ivf", inverted lists, √I · 4 of them; "hnsw", a graph of neighbours; "auto": exact up
                to ``FLAT_UP_TO`` items, then the graph.
            effort: how far a search goes, more for recall, less for speed: lists looked through (ivf), candidates kept
                (hnsw). None: a sixteenth of the lists, 128 candidates.

        Raises:
            DataError: an unknown kind, an effort below 1, no items, vectors that are not finite.
            RetrError: faiss is not installed.
        """
        if kind not in KINDS:
            raise DataError(f"index {kind!r}: expected one of {', '.join(KINDS)}")
        if effort is not None and effort < 1:
            raise DataError(f"effort {effort}: expected at least 1")
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or not len(vectors) or not np.isfinite(vectors).all():
            raise DataError(f"vectors {list(vectors.shape)}: expected finite numbers [items, width], at least one item")
        faiss, count = _faiss(), len(vectors)
        if kind == "auto":
            kind = "flat" if count <= FLAT_UP_TO else "hnsw"
        lists = max(1, min(int(4 * sqrt(count)), count // 39))  # FAISS wants 39 vectors to place each
        recipe = {"flat": "Flat", "ivf": f"IVF{lists},Flat", "hnsw": f"HNSW{HNSW_LINKS}"}[kind]
        index = faiss.index_factory(vectors.shape[1], f"IDMap2,{recipe}", faiss.METRIC_INNER_PRODUCT)
        settings = faiss.ParameterSpace()
        if kind == "ivf":
            settings.set_index_parameter(index, "nprobe", min(effort or max(1, round(lists * IVF_SHARE)), lists))
        elif kind == "hnsw":
            settings.set_index_parameter(index, "efConstruction", HNSW_BUILD)
            settings.set_index_parameter(index, "efSearch", effort or HNSW_EFFORT)
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(1, count + 1))
        if kind == "ivf":
            faiss.extract_index_ivf(index).make_direct_map()  # ``reconstruct`` needs it
        return cls(index, kind)

    @classmethod
    def read(cls, path: str | Path, kind: str) -> "ItemIndex":
        """Opens a file that ``write`` made."""
        return cls(_faiss().read_index(str(path)), kind)

    def write(self, path: str | Path) -> None:
        """Writes the index as FAISS does: ``faiss.read_index`` opens it, without this package too."""
        _faiss().write_index(self.index, str(path))

    def __len__(self) -> int:
        """Number of items I."""
        return self.index.ntotal

    def search(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None = None, added: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query: indices int64 and scores float32, [B, k or I, what is less].

        With ``rows`` the index is asked for k + n items, those are taken out and, with ``added``, put back at their own
        scores: what comes back is what adding first and searching then would give, as far as the index finds the items
        that are not among them. Where there are no more items, 0 at -inf.

        Args:
            queries: float32 [B, D].
            k: at least 1.
            rows: int64 [B, n] items of each query, 0 for none; they are left out, or scored with ``added``.
            added: float32 [B, n] what each of ``rows`` is given beside the product; of an item twice there, the sum.
                -inf leaves it out.

        Raises:
            DataError: k is no whole number of at least 1, or queries of another width.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
            raise DataError(f"k={k!r}: expected a whole number, at least 1")
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise DataError(f"queries {list(queries.shape)}: expected [B, {self.index.d}]")
        k = min(int(k), len(self))
        if rows is None or not rows.any():
            return self._nearest(queries, k)
        users, items, given = _each_once(rows, added)
        counts = np.bincount(users, minlength=len(queries))
        found, scores = self._nearest(queries, min(k + counts.max(), len(self)))
        key = np.arange(len(queries))[:, None] * (len(self) + 1)
        scores[np.isin(found + key, items + users * (len(self) + 1))] = -np.inf
        if added is not None:
            own = np.einsum("pd,pd->p", queries[users], self.index.reconstruct_batch(items)) + given
            columns = np.arange(len(users)) - np.repeat(counts.cumsum() - counts, counts)
            again = np.zeros((len(queries), counts.max()), np.int64), np.full((len(queries), counts.max()), -np.inf)
            again[0][users, columns], again[1][users, columns] = items, own
            found, scores = np.hstack([found, again[0]]), np.hstack([scores, again[1].astype(np.float32)])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found, scores = np.take_along_axis(found, order, 1), np.take_along_axis(scores, order, 1)
        return np.where(np.isfinite(scores), found, 0), scores

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The plain answer; an approximate index may find fewer than k."""
        scores, found = self.index.search(queries, int(k))
        return np.where(found < 0, 0, found), np.where(found < 0, -np.inf, scores)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact answers [B, k] that are among the found [B, k]; 0 is no item."""
    hits = (found[:, :, None] == exact[:, None, :]).any(1) & (exact > 0)
    return float(hits.sum() / max(1, (exact > 0).sum()))


def _each_once(rows: np.ndarray, added: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of a query and an item of its history, each once and by query: both int64 [P], and what is added."""
    users, columns = np.nonzero(rows)
    base = int(rows.max()) + 1
    pairs, place = np.unique(users * base + rows[users, columns], return_inverse=True)
    given = np.zeros(len(pairs)) if added is None else np.bincount(place, added[users, columns])
    # FAISS knows int64 by its C type, "long"; onnxruntime's is "long long", of the same size.
    return *(part.astype(np.int64) for part in np.divmod(pairs, base)), given


def _faiss():
    try:
        import faiss
    except ImportError as error:
        raise RetrError("an index needs faiss: pip install 'retr_hf[serve]'") from error
    return faiss
