"""torch.compile of the blocks: the same numbers, and no new graph for a new shape."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from retr_hf.data.collators import NextItemCollator
from retr_hf.data.ragged import RaggedBatch, layout_named
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation


@pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"), reason="torch.compile needs a C++ compiler"
)
@pytest.mark.timeout(600)
def test_compiled_blocks_equal_plain_ones_in_every_shape():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "router": "none"}
    config = RetrConfig(item_features="id", vocab_size=21, **sizes, **still)
    plain, compiled = RetrForSequentialRecommendation(config), RetrForSequentialRecommendation(config)
    compiled.load_state_dict(plain.state_dict())
    compiled.model.compile_blocks()
    assert compiled.state_dict().keys() == plain.state_dict().keys(), "checkpoints do not hear of it"
    counters.clear()
    collate, graphs = NextItemCollator(20, lay_out=layout_named("grouped", 8)), []
    for count in (5, 11, 3, 40, 17):
        rng = np.random.default_rng(count)
        lengths = rng.integers(2, 10, count)
        arrays = collate(RaggedBatch(rng.integers(1, 21, lengths.sum()), lengths), rng, slice(None))
        batch = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in arrays.items()}
        for training in (True, False):
            losses = [model.train(training)(**batch).loss for model in (plain, compiled)]
            torch.testing.assert_close(losses[1], losses[0])
            plain.zero_grad(), compiled.zero_grad()
            [loss.backward() for loss in losses]
            for (name, weight), other in zip(plain.named_parameters(), compiled.parameters(), strict=True):
                torch.testing.assert_close(other.grad, weight.grad, atol=1e-5, rtol=1e-3, msg=name)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[1], f"graphs after each shape: {graphs}"
