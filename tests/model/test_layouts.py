"""The same histories in every layout: the same losses, gradients and users; and what ``sequence_ends`` spares."""

import numpy as np
import pytest
import torch

from retr_hf.data.collators import NextItemCollator, PreTrainingCollator, TextTables
from retr_hf.data.ragged import RaggedBatch, gather_ragged, layout_named
from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining, RetrForSequentialRecommendation

ITEMS, TEXT, LENGTH = 30, 12, 9
LAYOUTS = ("padded", "packed", "grouped")


def make(cls=RetrForSequentialRecommendation, **fields):
    torch.manual_seed(0)
    fields = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "text_size": TEXT} | fields
    fields = {"max_position_embeddings": LENGTH, "initializer_range": 0.3, "router_init_keep": 0.6} | fields
    return cls(RetrConfig(**fields)).eval()


def histories(seed=0, count=25):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, LENGTH + 2, count)
    return RaggedBatch(rng.integers(1, ITEMS + 1, lengths.sum()), lengths)


def text_table():
    table = torch.randn(ITEMS + 1, TEXT, generator=torch.Generator().manual_seed(1))
    table[0] = 0
    return table


def tensors(arrays):
    return {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in arrays.items()}


def loss_and_gradients(model, inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    learned = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    drawn = {name for name, _ in model.named_parameters() if "gate_noise" in name or "omega_mlp" in name}
    assert learned.keys() | drawn == dict(model.named_parameters()).keys(), "evaluation leaves out the noise alone"
    return loss.item(), {name: gradient.clone() for name, gradient in learned.items()}


def assert_all_equal(found):
    (loss, gradients), *others = found
    for other_loss, other in others:
        assert other.keys() == gradients.keys() and other_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(other[name], gradient, atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("router", ["pathway", "random", "none"])
@pytest.mark.parametrize("objective", ["softmax", "bpr", "bce"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_next_item_training(router, objective, kernel):
    model = make(router=router, objective=objective, attn_implementation=kernel)
    found = []
    for layout in LAYOUTS:
        collate = NextItemCollator(ITEMS, negatives=objective != "softmax", lay_out=layout_named(layout, LENGTH))
        batch = tensors(collate(histories(), np.random.default_rng(2), slice(None)))
        found.append(loss_and_gradients(model, batch | {"text_embeddings": text_table()}))
    assert_all_equal(found)


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_positions_from_the_last_item(kernel):
    """In every layout, on either side of the padding: the last item has row 0 of the table, the one before it row 1."""
    settings = dict(item_features="id", vocab_size=ITEMS + 1, router="none", positions_from="last")
    model = make(attn_implementation=kernel, **settings)
    found = []
    for layout in LAYOUTS:
        collate = NextItemCollator(ITEMS, lay_out=layout_named(layout, LENGTH))
        found.append(loss_and_gradients(model, tensors(collate(histories(), np.random.default_rng(2), slice(None)))))
    assert_all_equal(found)

    read = []
    model.model.tokens = lambda vectors, positions: (
        read.append(positions.clone()) or type(model.model).tokens(model.model, vectors, positions)
    )
    left = torch.tensor([[0, 0, 7, 3], [5, 6, 7, 8]])
    model(left, (left > 0).long())
    right = torch.tensor([[7, 3, 0, 0], [5, 6, 7, 8]])
    states = model.encode_users(right, (right > 0).long())
    row = torch.tensor([[5, 6, 7, 8, 7, 3, 4, 0]])  # of three columns the second group's histories
    model(row, (row > 0).long(), length_groups=[(1, 4), (2, 2)])
    model(row[:, :6], length_groups=[(3, 2)])
    model(row[:, :7], None, torch.tensor([[0, 1, 2, 3, 0, 1, 0]]))
    assert read[0].tolist()[0][2:] == [1, 0] and read[0].tolist()[1] == [3, 2, 1, 0]
    assert read[1].tolist()[0][:2] == [1, 0] and read[1].tolist()[1] == [3, 2, 1, 0]
    assert read[2].tolist()[0][:7] == [3, 2, 1, 0, 1, 0, 0] and read[3].tolist() == [[1, 0, 1, 0, 1, 0]]
    assert read[4].tolist() == [[3, 2, 1, 0, 1, 0, 0]]

    table = model.model.embed_positions.weight
    with torch.no_grad():  # a history as rows 0 .. n - 1 turned round, in a model that counts from the first
        first = make(attn_implementation=kernel, **settings | {"positions_from": "first"})
        first.load_state_dict(model.state_dict())
        first.model.embed_positions.weight[:4] = table[:4].flip(0)
    torch.testing.assert_close(first.encode_users(right[1:], torch.ones(1, 4)), states[1:])


@pytest.mark.parametrize("router", ["pathway", "random", "none"])
def test_one_pass_has_the_gradient_of_a_row_for_every_prefix(router):
    model, whole = make(router=router), histories()
    first = np.repeat(whole.first, whole.lengths - 1)
    lengths = np.concatenate([np.arange(2, length + 1) for length in whole.lengths])
    prefixes = RaggedBatch(gather_ragged(whole.tokens, first, lengths), lengths)
    found = []
    for batch, every_step in ((whole, True), (prefixes, False)):
        collate = NextItemCollator(ITEMS, every_step, lay_out=layout_named("grouped", LENGTH))
        assert collate.counts(batch)["num_items_in_batch"] == len(lengths)
        inputs = tensors(collate(batch, np.random.default_rng(2), slice(None)))
        found.append(loss_and_gradients(model, inputs | {"text_embeddings": text_table()}))
    assert_all_equal(found)


def test_global_routes():
    model = make(router_context="global", every_step=False)
    found = []
    for layout in LAYOUTS:
        collate = NextItemCollator(ITEMS, every_step=False, lay_out=layout_named(layout, LENGTH))
        batch = tensors(collate(histories(), np.random.default_rng(2), slice(None)))
        found.append(loss_and_gradients(model, batch | {"text_embeddings": text_table()}))
    assert_all_equal(found)


@pytest.mark.parametrize("router", ["pathway", "random", "none"])
def test_pre_training_with_views(router):
    model = make(RetrForPreTraining, router=router, sequence_loss_weight=1.0)
    tables, found = TextTables([text_table().numpy()]), []
    for layout in LAYOUTS:
        collate = PreTrainingCollator(tables, lay_out=layout_named(layout, LENGTH))
        found.append(loss_and_gradients(model, tensors(collate(histories(), np.random.default_rng(2), slice(None)))))
    assert_all_equal(found)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("router", ["pathway", "random", "none"])
def test_the_last_block_may_compute_the_ends_alone(router, kernel, side):
    """In each layout, ends in any order, against the states of a full pass."""
    model, batch = make(router=router, attn_implementation=kernel), histories(3)
    order = np.random.default_rng(4).permutation(len(batch.lengths))
    items = model.encode_items(None, text_table())
    for name in LAYOUTS:
        layout = layout_named(name, LENGTH + 1)(batch.lengths)
        rows, positions = torch.zeros(2, *layout.shape, dtype=torch.long)
        rows.view(-1)[layout.places(batch.lengths)] = torch.from_numpy(batch.tokens)
        nth = np.arange(len(batch.tokens)) - np.repeat(batch.first, batch.lengths)
        positions.view(-1)[layout.places(batch.lengths)] = torch.from_numpy(nth)
        ends = torch.from_numpy(layout.ends(batch.lengths)[order])
        if name == "padded" and side == "left":
            shift = (rows == 0).sum(1)
            ends = ends + shift[order]
            rows = torch.stack([row.roll(int(by)) for row, by in zip(rows, shift, strict=True)])
        inputs = {"attention_mask": (rows != 0).long(), "item_embeddings": items, "length_groups": layout.groups}
        inputs["position_ids"] = positions if layout.packed else None
        model.config.max_position_embeddings = LENGTH + 1
        model.model.embed_positions = torch.nn.Embedding.from_pretrained(torch.ones(LENGTH + 1, 16).cumsum(0) / 9)
        whole = model.model(rows, **inputs).last_hidden_state.flatten(0, 1)[ends]
        alone = model.model(rows, sequence_ends=ends, **inputs).last_hidden_state
        assert alone.shape == (len(order), 1, 16)
        torch.testing.assert_close(alone.squeeze(1), whole, atol=1e-5, rtol=1e-4)
        shown = model.model(rows, sequence_ends=ends, output_routes=True, **inputs)
        torch.testing.assert_close(shown.last_hidden_state, alone, atol=1e-5, rtol=1e-4)
        assert router == "none" or shown.routes[-1].shape == rows.shape


def test_the_last_block_projects_one_query_a_history():
    model, batch = make(), histories(3)
    layout = layout_named("grouped", LENGTH)(batch.lengths)
    rows = torch.ones(layout.shape, dtype=torch.long)
    model.config.max_position_embeddings = LENGTH + 1
    model.model.embed_positions = torch.nn.Embedding(LENGTH + 1, 16)
    asked = []
    for block in model.model.layers:
        block.self_attn.q_proj.register_forward_hook(lambda module, inputs, output: asked.append(output.shape[1]))
        block.up_proj.register_forward_hook(lambda module, inputs, output: asked.append(output.shape[1]))
    ends = torch.from_numpy(layout.ends(batch.lengths))
    model.encode_users(rows, rows, ends, length_groups=layout.groups, text_embeddings=text_table())
    tokens, users = layout.shape[1], len(batch.lengths)
    assert asked == [tokens, tokens, users, users]


def test_rows_of_several_histories_have_no_logits():
    """There is no one last item: ``encode_users`` is told which."""
    model, rows = make(), torch.ones(1, 6, dtype=torch.long)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    for several in ({"length_groups": ((2, 3),)}, {"position_ids": positions}):
        assert model(rows, text_embeddings=text_table(), **several).logits is None
    assert model(rows, text_embeddings=text_table()).logits.shape == (1, ITEMS + 1)


def test_groups_that_do_not_fit_the_row_are_refused():
    model, rows = make(), torch.ones(1, 7, dtype=torch.long)
    for groups, told in ((((2, 3),), "hold 6 tokens: expected one row of as many, came"), (((1, 7), (1, 0)), None)):
        if told:
            with pytest.raises(ValueError, match=told):
                model.model(rows, length_groups=groups, text_embeddings=text_table())
    with pytest.raises(ValueError, match="histories of 12 items, the model reads 9"):
        model.model(torch.ones(1, 12, dtype=torch.long), length_groups=((1, 12),), text_embeddings=text_table())


@pytest.mark.parametrize("sampling", ["uniform", "popularity"])
def test_popularity_reaches_the_draw(sampling):
    """One item has all the counts: drawn as every negative, it is the only one whose vector learns beside targets."""
    model = make(objective="sampled_softmax", negative_sampling=sampling, num_negatives=64, item_features="id",
                 vocab_size=ITEMS + 1, router="none")  # fmt: skip
    counts = torch.zeros(ITEMS + 1)
    counts[17] = 9
    rows, labels = torch.tensor([[1, 2]]), torch.tensor([[2, 3]])
    model(rows, labels=labels, item_counts=counts).loss.backward()
    learned = set(model.model.embed_tokens.weight.grad.abs().sum(1).nonzero().flatten().tolist())
    assert learned == {1, 2, 3, 17} if sampling == "popularity" else len(learned) > 10
    if sampling == "popularity":
        with pytest.raises(ValueError, match="item_counts"):
            model(rows, labels=labels)
