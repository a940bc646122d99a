"""The patterns by hand, beside naive loops, and where they are full attention."""

import math

import numpy as np
import pytest
import torch

from retr_hf.model.attention import FullAttention, SequenceContext
from retr_hf.model.attention_sparse import LogSparseAttention, StridedAttention
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.sequence_layout import SequenceLayout


def seen(attention, length, **settings) -> np.ndarray:
    """The pattern of a history: bool [N, N]."""
    sizes = {"hidden_size": 4, "num_attention_heads": 1, "max_position_embeddings": length}
    places = torch.arange(length)
    tenant = attention(RetrConfig(**sizes, **settings), 0)
    return (tenant.pattern(places[:, None], places) & (places <= places[:, None])).numpy()


def columns(row) -> list[int]:
    return row.nonzero()[0].tolist()


def share(pattern) -> float:
    length = len(pattern)
    return pattern.sum() / (length * (length + 1) / 2)


def reached(pattern, blocks) -> int:
    """How many places the last one hears of."""
    return (np.linalg.matrix_power(pattern.astype(float), blocks)[-1] > 0).sum()


def common_code(length, window) -> np.ndarray:
    """The mask of a widely copied implementation, row by row."""
    mask, near = np.zeros((length, length), bool), math.ceil(math.log2(window))
    for row, t in enumerate(range(length)):
        if (length // window) * 2 * near > t:
            mask[row, : t + 1] = True
            continue
        while t >= 0:
            if t - near + 1 < 0:
                mask[row, :t] = True
                break
            mask[row, t - near + 1 : t + 1] = True
            for a in range(near):
                j = t - near + 1 - 2**a
                if t - j <= window and j >= 0:
                    mask[row, j] = True
            t -= window
    return mask


def test_plain_log_sparse_by_hand():
    pattern = seen(LogSparseAttention, 9)
    assert columns(pattern[4]) == [0, 2, 3, 4]
    assert columns(pattern[5]) == [1, 3, 4, 5]
    assert columns(pattern[8]) == [0, 4, 6, 7, 8]
    for t in range(9):
        assert columns(pattern[t]) == sorted({t} | {t - 2**a for a in range(4) if t >= 2**a})


def test_local_log_sparse_by_hand():
    pattern = seen(LogSparseAttention, 32, log_sparse_window=16)
    assert columns(pattern[31]) == [4, 8, 10, 11, 12, 13, 14, 15, 20, 24, 26, 27, 28, 29, 30, 31]


@pytest.mark.parametrize(
    ("length", "window", "printed", "one_block", "two_blocks"),
    [(100, None, 0.133, 8, 29), (200, None, 0.077, 9, 37), (100, 16, 0.533, 52, 100), (100, 100, 0.240, 14, 57)],
)
def test_log_sparse_densities(length, window, printed, one_block, two_blocks):
    pattern = seen(LogSparseAttention, length, log_sparse_window=window)
    assert round(share(pattern), 3) == printed
    assert (reached(pattern, 1), reached(pattern, 2)) == (one_block, two_blocks)


@pytest.mark.parametrize(("window", "printed", "dense"), [(16, 0.631, 48), (100, 0.242, 14)])
def test_what_the_common_code_does_otherwise(window, printed, dense):
    """Its first rows are dense, and a restart at the border drops one place."""
    theirs, ours = common_code(100, window), seen(LogSparseAttention, 100, log_sparse_window=window)
    assert round(share(theirs), 3) == printed
    assert theirs[:dense].sum() == dense * (dense + 1) / 2 > ours[:dense].sum()
    assert not (theirs & ~ours)[dense:].any()
    assert (ours & ~theirs)[dense:].sum(1).max() <= 1


def test_strided_by_hand():
    assert columns(seen(StridedAttention, 7, sparse_stride=3)[6]) == [0, 3, 4, 5, 6]
    fixed = {"sparse_pattern": "fixed", "sparse_stride": 4, "sparse_summary": 1}
    assert columns(seen(StridedAttention, 8, **fixed)[6]) == [3, 4, 5, 6]


@pytest.mark.parametrize("name", ["strided", "fixed"])
def test_strided_beside_loops(name):
    length, stride, summary = 23, 5, 2
    pattern = seen(StridedAttention, length, sparse_pattern=name, sparse_stride=stride, sparse_summary=summary)
    for t in range(length):
        near = range(t - stride + 1, t + 1) if name == "strided" else range(t // stride * stride, t + 1)
        far = {j for j in range(t + 1) if ((t - j) % stride == 0 if name == "strided" else j % stride >= 3)}
        assert columns(pattern[t]) == sorted(far | {j for j in near if j >= 0})


@pytest.mark.parametrize("name", ["strided", "fixed"])
def test_two_strided_blocks_connect_everything(name):
    pattern = seen(StridedAttention, 64, sparse_pattern=name, sparse_stride=8).astype(int)
    assert ((pattern @ pattern > 0) == np.tril(np.ones((64, 64), bool))).all()
    assert not (pattern > 0).sum() == 64 * 65 / 2


@pytest.mark.parametrize(("length", "stride"), [(99, 10), (100, 10), (101, 11), (1, 1)])
def test_the_stride_is_the_root_of_the_longest_history(length, stride):
    assert (seen(StridedAttention, length) == seen(StridedAttention, length, sparse_stride=stride)).all()


@pytest.mark.parametrize(
    ("attention", "length", "settings"),
    [
        (LogSparseAttention, 3, {}),
        (LogSparseAttention, 9, {"log_sparse_window": 1}),
        (StridedAttention, 9, {"sparse_stride": 1}),
        (StridedAttention, 9, {"sparse_stride": 9}),
        (StridedAttention, 9, {"sparse_stride": 4, "sparse_summary": 4, "sparse_pattern": "fixed"}),
    ],
)
def test_settings_that_are_full_attention(attention, length, settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "max_position_embeddings": length}
    config = RetrConfig(**sizes, **settings)
    sparse, full = attention(config, 0).eval(), FullAttention(config, 0).eval()
    config._attn_implementation_internal = "eager"
    full.load_state_dict(sparse.state_dict())
    tokens = torch.randn(2, length, 8)
    context = SequenceContext(SequenceLayout.whole(tokens))
    assert torch.equal(sparse(tokens, tokens, context)[0], full(tokens, tokens, context)[0])


def test_a_closed_route_is_the_mean_of_what_the_pattern_shows():
    torch.manual_seed(0)
    config = RetrConfig(hidden_size=8, num_attention_heads=2, max_position_embeddings=9, attn_implementation="eager")
    tenant, tokens = LogSparseAttention(config, 0).eval(), torch.randn(1, 9, 8)
    output, weights, _ = tenant(tokens, tokens, SequenceContext(SequenceLayout.whole(tokens)), torch.zeros(1, 9))
    mean = tenant.v_proj(tokens)[0, [0, 4, 6, 7, 8]].mean(0)
    torch.testing.assert_close(output[0, 8], tenant.o_proj(mean))
    assert ((weights[0, 0] > 0).numpy() == seen(LogSparseAttention, 9)).all()


def test_kernels_without_a_mask_and_wrong_settings_are_told():
    config = RetrConfig(attention="strided", hidden_size=8, num_attention_heads=2)
    tenant, tokens = StridedAttention(config, 0), torch.randn(1, 4, 8)
    config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(ValueError, match="'strided' is a mask, which 'flash_attention_2' does not take: use sdpa"):
        tenant(tokens, tokens, SequenceContext(SequenceLayout.whole(tokens)))
    with pytest.raises(Exception, match="sparse_summary=5: expected at most the stride 4"):
        RetrConfig(attention="strided", sparse_stride=4, sparse_summary=5)
