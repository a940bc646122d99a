"""The plain path does the work of the fast one: the same losses, gradients and ranks, given the same weights."""

from functools import partial

import numpy as np
import pytest
import torch

from retr_hf.benchmark.plain import PlainPreTraining, PlainRecommendation, pad_to, plain_ranks
from retr_hf.data.collators import NextItemCollator, PreTrainingCollator, TextTables
from retr_hf.data.domain import Sequences
from retr_hf.data.ragged import RaggedBatch, group_by_length
from retr_hf.evaluation.histories import rank_histories
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation

ITEMS, LENGTH, WIDTH = 40, 9, 6
LENGTHS = np.array([10, 2, 3, 3, 7, 4, 5, 2])  # one item more than is read
TEXT = np.random.default_rng(3).standard_normal((ITEMS + 1, WIDTH)).astype(np.float32)
PADDED = partial(pad_to, width=LENGTH)


def config(**fields):
    small = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": LENGTH}
    return RetrConfig(**small, vocab_size=ITEMS + 1, text_size=WIDTH, num_experts=3, **fields)


def with_strong_weights(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model.eval()  # routes by their sign, no dropout, no noise in the gates


def histories():
    rng = np.random.default_rng(0)
    return RaggedBatch(rng.integers(1, ITEMS + 1, LENGTHS.sum()), LENGTHS)


def both_ways(collator, **options):
    """The arrays of one batch in groups and padded, everything else drawn alike."""
    batch, counts = histories(), collator().counts(histories())
    for lay_out in (group_by_length, PADDED):
        arrays = collator(lay_out=lay_out, **options)(batch, np.random.default_rng(1), slice(None)) | counts
        yield {name: torch.from_numpy(x) if isinstance(x, np.ndarray) else x for name, x in arrays.items()}


def loss_and_gradients(loss, model):
    model.zero_grad()
    loss.backward()
    return loss.detach(), {name: weight.grad for name, weight in model.named_parameters()}


def hold_together(model, plain, grouped, padded):
    fast, fast_gradients = loss_and_gradients(model(**grouped).loss, model)
    slow, slow_gradients = loss_and_gradients(plain(**padded), model)
    torch.testing.assert_close(slow, fast, rtol=1e-5, atol=1e-5)
    used = [name for name, gradient in fast_gradients.items() if gradient is not None]
    assert any("layers.1" in name for name in used)
    for name in used:
        apart = (slow_gradients[name] - fast_gradients[name]).norm()
        assert apart <= 1e-3 * fast_gradients[name].norm() + 1e-7, name


@pytest.mark.parametrize("router", ["pathway", "none"])
@pytest.mark.parametrize(
    "fields",
    [
        {"objective": "bpr", "item_features": "id", "score": "dot"},
        {"objective": "softmax", "item_features": "id", "score": "dot"},
        {"objective": "softmax", "item_features": "text+id"},
    ],
    ids=["bpr", "softmax", "text"],
)
def test_losses_of_training(fields, router):
    model = with_strong_weights(RetrForSequentialRecommendation(config(router=router, **fields)))
    grouped, padded = both_ways(partial(NextItemCollator, ITEMS), negatives=fields["objective"] == "bpr")
    text = {"text_embeddings": torch.from_numpy(TEXT)} if model.config.uses_text else {}
    assert grouped["input_ids"].shape != padded["input_ids"].shape == (len(LENGTHS), LENGTH)
    hold_together(model, PlainRecommendation(model).eval(), grouped | text, padded | text)


@pytest.mark.parametrize("own", [False, True], ids=["own items hidden", "own items negatives"])
@pytest.mark.parametrize("words", [False, True], ids=["items dropped", "words dropped"])
def test_loss_of_pretraining(words, own):
    settings = config(item_features="text", sequence_loss_weight=0.5, own_negatives=own)
    model = with_strong_weights(RetrForPreTraining(settings))
    other = TextTables([TEXT * 0.9]) if words else None
    drop = {"word_drop_tables": other, "item_drop_batches": 0.0} if words else {}
    grouped, padded = both_ways(partial(PreTrainingCollator, TextTables([TEXT])), **drop)
    hold_together(model, PlainPreTraining(model).eval(), grouped, padded)


def test_a_step_of_training_without_chance():
    chance = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "router": "none"}
    model = RetrForSequentialRecommendation(config(item_features="id", score="dot", **chance))
    with_strong_weights(model).train()
    hold_together(model, PlainRecommendation(model).train(), *both_ways(partial(NextItemCollator, ITEMS)))


def test_dropout_is_drawn_wherever_ours_is(monkeypatch):
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # the noise of the gates
    model = with_strong_weights(RetrForSequentialRecommendation(config(item_features="text+id", router="none")))
    plain = PlainRecommendation(model).train()
    _, padded = both_ways(partial(NextItemCollator, ITEMS))
    padded["text_embeddings"] = torch.from_numpy(TEXT)
    names = ("hidden_dropout", "attention_dropout", "adaptor_dropout")
    losses = []
    for drawn in (None, *names):
        for name in names:
            setattr(model.config, name, 0.5 if name == drawn else 0.0)
        losses.append(plain(**padded).item())
    assert losses[0] == plain.eval()(**padded).item()
    assert all(abs(loss - losses[0]) > 1e-3 for loss in losses[1:])


def test_ranks():
    model = with_strong_weights(RetrForSequentialRecommendation(config(item_features="id", score="dot")))
    lengths = np.array([2, 12, 30, 5, 9, 10, 11, 3])
    items = np.random.default_rng(2).integers(1, ITEMS + 1, lengths.sum()).astype(np.int32)
    sequences = Sequences(items, np.concatenate([[0], np.cumsum(lengths)]))
    items[sequences.offsets[3] - 1] = items[sequences.offsets[2]]  # a target that is a repeat
    table = model.encode_catalog()
    slow = plain_ranks(PlainRecommendation(model), table, sequences, LENGTH, batch_size=3)
    fast = rank_histories(model, table, sequences, None, LENGTH)
    assert {name: ranks.tolist() for name, ranks in slow.items()} == {
        name: ranks.tolist() for name, ranks in fast.items()
    }
    assert (slow["full"] > slow["full-unseen"]).any()
