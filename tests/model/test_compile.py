"""torch.compile of the blocks: the same numbers, and no new graph for a new shape."""

import shutil

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from retr_hf.data.collators import NextItemCollator
from retr_hf.data.ragged import RaggedBatch, layout_named
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation, RetrModel


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


@pytest.mark.parametrize("attention", ["full", "denoising", "local_global", "modulating"])
def test_the_body_is_one_graph(attention):
    """No branch and no shape of the body depends on what a tensor holds, sampled routes included."""
    training = attention != "denoising"  # whose loss differentiates the block, which torch.compile does not trace
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 8}
    still = {"hidden_dropout": 0.0, "attention_dropout": 0.0}  # under torch.compile dropout is torch's own
    torch.manual_seed(0)
    config = RetrConfig(attention=attention, item_features="id", vocab_size=21, router_init_keep=0.6, **sizes, **still)
    model = RetrModel(config).train(training)
    input_ids = torch.randint(1, 21, (4, 7))
    mask = torch.ones_like(input_ids)
    mask[0, 5:] = 0
    inputs = {"input_ids": input_ids, "attention_mask": mask, "times": 40_000 * mask.cumsum(1), "output_routes": True}
    torch._dynamo.reset()
    torch.manual_seed(1)
    wanted = model(**inputs)
    torch.manual_seed(1)
    got = torch.compile(model, fullgraph=True, backend="eager")(**inputs)
    torch.testing.assert_close(got.last_hidden_state, wanted.last_hidden_state)
    assert torch.equal(torch.stack(got.routes), torch.stack(wanted.routes))
