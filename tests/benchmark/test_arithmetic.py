"""Operations counted by hand."""

import numpy as np
import pytest

from retr_hf.benchmark.arithmetic import adaptor_operations, body_operations, score_operations
from retr_hf.model.configuration_retr import RetrConfig


def test_one_block_by_hand():
    config = RetrConfig(hidden_size=4, num_hidden_layers=1, intermediate_size=6, num_attention_heads=1, router="none")
    # A token: four products with [4, 4] and two with [4, 6]. A history of 3: [3, 4] x [4, 3] and [3, 3] x [3, 4].
    token = 4 * (2 * 4 * 4) + 2 * (2 * 4 * 6)
    assert body_operations(config, np.array([3])) == 3 * token + 2 * (2 * 3 * 3 * 4)
    # The last token alone: keys and values of all three, all else of one.
    last = 3 * 2 * (2 * 4 * 4) + 2 * (2 * 4 * 4) + 2 * (2 * 4 * 6) + 2 * (2 * 3 * 4)
    assert body_operations(config, np.array([3]), last_only=True) == last


def test_the_router_has_three_networks():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "router_hidden_size": 2}
    without, with_router = (body_operations(RetrConfig(router=name, **sizes), [5]) for name in ("none", "pathway"))
    # [8, 2] and [2, 8]; twice [8, 2], whose way to one number is left out.
    assert with_router - without == 5 * (2 * (2 * 8 * 2) + 2 * (2 * 8 * 2))


def test_a_known_floor():
    """SASRec, d = f = 256, 2 blocks, N = 100: 5.33 million a token in training; scores of 3,417 items 5.25 more."""
    config = RetrConfig(router="none", item_features="id", vocab_size=3417)
    assert 3 * body_operations(config, [100]) / 100 == pytest.approx(5.33e6, rel=1e-3)
    assert 3 * score_operations(config, 1, 3417) == pytest.approx(5.25e6, rel=1e-3)
    assert adaptor_operations(config, 10) == 0
    assert adaptor_operations(RetrConfig(item_features="text", text_size=384), 10) == 10 * 2 * 384 * 8 * 256
