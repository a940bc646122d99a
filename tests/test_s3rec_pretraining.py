"""S3-Rec's pre-training: its loss over the four terms, its gradients, and the recommender that comes of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from retr_hf.data.ragged import layout_named
from retr_hf.data.s3rec import S3RecCollator
from retr_hf.data.training_sequences import TrainingSequences
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForSequentialRecommendation
from retr_hf.s3rec_pretraining import S3RecConfig, S3RecForPreTraining

ITEMS, ATTRIBUTES = 20, 5
HAS = torch.rand(ITEMS + 1, ATTRIBUTES, generator=torch.Generator().manual_seed(0)) < 0.4


def build(**changes):
    torch.manual_seed(0)
    fields = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 8}
    config = S3RecConfig(vocab_size=ITEMS + 1, num_attributes=ATTRIBUTES, initializer_range=0.3, **fields | changes)
    return S3RecForPreTraining(config)


def batch(layout="grouped"):
    lengths = np.array([3, 6, 9] * 8)
    ids = np.random.default_rng(0).integers(1, ITEMS + 1, lengths.sum())
    split = SimpleNamespace(item_ids=ids, offsets=np.concatenate([[0], np.cumsum(lengths)]), timestamps=None)
    sequences = TrainingSequences([split], [ITEMS], 7, every_step=False)
    collate = S3RecCollator(ITEMS, sequences, lay_out=layout_named(layout, 8))
    arrays = collate(sequences.slices(np.arange(40), np.random.default_rng(1)), np.random.default_rng(2), slice(None))
    return {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in arrays.items()}


def test_the_loss_is_the_weighted_sum_and_no_layout_changes_it():
    model = build().eval()
    grouped, *others = (model(**batch(layout), item_attributes=HAS) for layout in ("grouped", "padded", "packed"))
    weights = {"aap": 0.2, "mip": 1.0, "map": 1.0, "sp": 0.5}
    want = sum(weights[name] * term for name, term in grouped.terms.items()) / 40
    torch.testing.assert_close(grouped.loss, want)
    for other in others:
        torch.testing.assert_close(grouped.loss, other.loss, atol=1e-4, rtol=0)
    half = model(**batch(), item_attributes=HAS, num_items_in_batch=80).loss
    torch.testing.assert_close(half, grouped.loss / 2)


@pytest.mark.parametrize("router", ["none", "pathway"])
def test_every_parameter_gets_a_gradient(router):
    model = build(router=router).train()
    model(**batch(), item_attributes=HAS).loss.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if (weight.grad is None or not weight.grad.abs().sum() > 0) and not name.endswith("k_proj.bias")
    ]
    assert silent == []


def test_the_recommender_is_causal_with_the_same_weights(tmp_path):
    model = build(router="pathway").eval()
    head = model.recommender()
    assert type(head.config) is RetrConfig and (head.config.direction, head.config.router_context) == ("causal",) * 2
    ours = dict(model.model.named_parameters())
    assert all(torch.equal(weight, ours[name]) for name, weight in head.model.named_parameters())
    assert {*ours} - {name for name, _ in head.model.named_parameters()} == {"embed_mask.weight"}
    head.save_pretrained(tmp_path)
    loaded = RetrForSequentialRecommendation.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded(ids).logits, head.eval()(ids).logits)


def test_a_causal_body_is_refused():
    with pytest.raises(Exception, match='pre-trained with direction="bidirectional"'):
        build(direction="causal")
