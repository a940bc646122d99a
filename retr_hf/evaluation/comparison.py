"""Which candidates stand before their user's target: float32 products tell it, and float64 where they come close.

Legend: B users and C items of a chunk, K pairs of a user and an item, D width; q a query, e an item's vector, t the
target's score; u = 2^-24, the relative rounding error of float32.

Scores
    s = fl32(Σ_d q_d e_d): summed in float64, rounded once to float32, in which candidate and target are compared. A
    float32 product depends on the shape of the chunk and on the device: items with the same vector (the same text)
    could get scores an ulp apart, and ranks would depend on the chunk size. For float32 (or lower) inputs the order of
    the float64 sum shows in about one of 2^25 scores.

Band
    Products p of a whole chunk in float32 are several times faster and settle most candidates:
        p > t + m  =>  s >= t,        p < t - m  =>  s < t,
        m = γ_n |q| max|e| + 4u|t| + 2^-124 n (1 + |q| + max|e|),        γ_n = nu / (1 - nu),        n = D + 4.
    Only pairs within t ± m are scored as s. Proof: |p - q·e| <= γ_D |q||e| in whatever order the terms are summed
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.5, with Cauchy-Schwarz); the other four u are
    for both inputs rounded to float32, the float64 sum, and m rounded. 4u|t| covers the distance from t to the next
    score below and the rounding of t ± m. The last term covers numbers below 2^-126, of the inputs, the products and
    the sums, that are rounded coarsely or flushed to zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import DataError

UNIT = 2.0**-24
TINY = 2.0**-124
BLOCK = 32  # columns counted together: in a block with nothing within the band, no column is looked at


def not_below(scores: Tensor, target_scores: Tensor, out: Tensor | None = None) -> Tensor:
    """Which candidates stand before the target: those with a higher score, and those with the same one."""
    return torch.ge(scores, target_scores, out=out)


def pair_scores(query: Tensor, vectors: Tensor) -> Tensor:
    """s float32 [K] of pairs.

    Args:
        query: [K, D].
        vectors: [K, D], on the device of the query.

    Raises:
        DataError: a score is not finite.
    """
    return _finite((_double(query) * _double(vectors)).sum(dim=-1), query, vectors)


def longest_vectors(items: Tensor, item_chunk: int) -> list[float]:
    """max|e| of each chunk of ``items`` [M, D], from row 1 on; NaN or infinite where a vector is."""
    chunks = (items[start : start + item_chunk] for start in range(1, len(items), item_chunk))
    return [float(_double(chunk).norm(dim=-1).max()) for chunk in chunks]


def score_memory(users: int, items: int, device: torch.device) -> Tensor:
    """Room [2, ...] for the scores and flags of a chunk: fresh memory for every chunk would cost more than a pass."""
    return torch.empty(2, users * _padded(items), device=device)


class Comparison:
    """Users of a chunk and their targets, compared with the catalogue chunk by chunk.

    Args:
        query: [B, D].
        target_score: s of the targets, float32 [B].
        memory: from ``score_memory``; every chunk overwrites it.
    """

    def __init__(self, query: Tensor, target_score: Tensor, memory: Tensor):
        self.query, self.target_score, self.memory = query, target_score, memory
        self.score, self.length = _double(target_score), _double(query).norm(dim=-1)  # t and |q|, [B]
        terms = query.shape[1] + 4
        self.slope = terms * UNIT / (1 - terms * UNIT) * self.length + TINY * terms  # m = slope * max|e| + offset
        self.offset = 4 * UNIT * self.score.abs() + TINY * terms * (1 + self.length)

    def with_chunk(self, table: Tensor, longest: float, own: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Which items of a chunk stand before each user's target.

        Args:
            table: [C, D].
            longest: max|e| of the table.
            own: rows and columns of those targets that are in this chunk: no target stands before itself.

        Returns:
            How many, int64 [B]; and flags [B, C or a little more], float32 1 or 0, 0 beyond C.

        Raises:
            DataError: a score is not finite.
        """
        batch, columns, width = len(self.query), len(table), _padded(len(table))
        scores, flags = (room[: batch * width].view(batch, width) for room in self.memory)
        if not self._fits_float32(longest):
            return self._exactly(table, own, flags)

        with _ieee_products():
            torch.mm(self.query.float(), table.float().T, out=scores[:, :columns])
        scores[:, columns:] = -torch.inf
        scores[own] = -torch.inf
        low, high = self._band(longest)
        torch.gt(scores, high, out=flags)  # floats, for a comparison that gives bool is several times slower on a CPU
        from_low = scores.ge_(low)

        blocks = (batch, BLOCK, width // BLOCK)  # block j of w: columns j, j + w, j + 2w ..
        above = flags.view(blocks).sum(dim=1)  # [B, w]
        close = from_low.view(blocks).sum(dim=1) - above
        above, pairs = above.sum(dim=1), int(close.sum())
        if pairs * max(table.shape[1], BLOCK) > scores.numel():  # a crowd: pair by pair would take more time and room
            return self._exactly(table, own, flags)
        if pairs:
            row, block = close.nonzero(as_tuple=True)
            within = from_low.view(blocks)[row, :, block] - flags.view(blocks)[row, :, block]
            place, depth = within.nonzero(as_tuple=True)
            row, column = row[place], depth * blocks[2] + block[place]  # [K]
            settled = not_below(pair_scores(self.query[row], table[column]), self.target_score[row]).float()
            flags[row, column] = settled
            above.index_add_(0, row, settled)
        return above.long(), flags

    def _exactly(self, table: Tensor, own: tuple[Tensor, Tensor], flags: Tensor) -> tuple[Tensor, Tensor]:
        scores = _finite(_double(self.query) @ _double(table).T, self.query, table)
        not_below(scores, self.target_score[:, None], out=flags[:, : len(table)])
        flags[:, len(table) :] = 0
        flags[own] = 0
        return flags.sum(dim=1).long(), flags

    def _fits_float32(self, longest: float) -> bool:
        """Neither an input nor a partial sum of the product, nor the band, can leave float32; False for NaN."""
        length, score = float(self.length.max()), float(self.score.abs().max())
        return all(size < torch.finfo(torch.float32).max / 2 for size in (length, longest, length * longest, score))

    def _band(self, longest: float) -> tuple[Tensor, Tensor]:
        """t - m and t + m, float32 [B, 1]."""
        margin = self.slope * longest + self.offset
        bounds = torch.stack([self.score - margin, self.score + margin])[:, :, None]
        low, high = bounds.float().to(self.query.device)
        return low, high


def _finite(scores: Tensor, query: Tensor, vectors: Tensor) -> Tensor:
    scores = scores.float().to(query.device)
    if scores.numel() and not torch.stack(scores.aminmax()).isfinite().all():
        cause = "their products are too large for float32"
        if not query.isfinite().all():
            cause = "the queries hold NaN or infinite values: the encoder gave them, see the log of its training"
        elif not vectors.isfinite().all():
            cause = "the item vectors hold NaN or infinite values: look at the item embeddings and the item encoder"
        raise DataError(f"scores must be finite to be ranked, but {cause}")
    return scores


def _double(values: Tensor) -> Tensor:
    return (values.cpu() if values.device.type == "mps" else values).double()  # mps has no float64


def _padded(columns: int) -> int:
    return -(-columns // BLOCK) * BLOCK


@contextmanager
def _ieee_products() -> Iterator[None]:
    """TF32 and bfloat16 products, where a user allowed them, err far more than the band."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
