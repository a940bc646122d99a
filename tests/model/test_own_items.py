"""Which items of its own history a step does not have for negatives."""

import torch

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.modeling_retr import RetrForPreTraining
from retr_hf.model.own_items import hide_own_items, undo_chances

# Two histories in one row, 1 2 3 1 and 4 5: the items read, the next ones, and the places in their history.
READ, NEXT, POSITIONS = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 3, 1, 5]]), torch.tensor([[0, 1, 2, 0]])


def hidden(rows, values):
    assert ((values == float("-inf")) | (rows == 0) | (values == 7)).all()
    return [set(row[value == float("-inf")].tolist()) - {0} for row, value in zip(rows, values, strict=True)]


def test_all_but_the_target():
    assert hidden(*hide_own_items(None, READ, NEXT, POSITIONS, torch.arange(4))) == [{1, 3}, {1, 2}, {2, 3}, {4}]


def test_what_terms_of_the_score_learn_from_stays():
    past = torch.tensor([[1, 0, 0], [2, 1, 0], [3, 2, 1], [4, 0, 0]]), torch.full((4, 3), 7.0)
    rows, values = hide_own_items(past, READ, NEXT, POSITIONS, torch.arange(4))
    assert hidden(rows, values) == [{1, 3}, {1}, set(), set()]
    assert torch.equal(rows[:, :3], past[0]) and torch.equal(values[:, :3], past[1])


def test_only_steps_with_a_target():
    labels = torch.tensor([[2, 3, -100, 5]])
    assert hidden(*hide_own_items(None, READ, labels, POSITIONS, torch.tensor([0, 3]))) == [{1, 3}, {4}]


def test_own_items_are_there_for_certain():
    chances = torch.tensor([0.0, -1.0, -2.0, -3.0, -4.0, -5.0])
    rows, values = undo_chances(chances, READ, NEXT, POSITIONS, torch.arange(4))
    given = [sorted(row[row > 0].tolist()) for row in rows]
    assert given == [[1, 3], [1, 2], [2, 3], [4]]  # each once, not the target
    assert torch.equal(values, chances[rows])


def test_chances_are_of_other_histories_alone():
    """A repeat term learns from the past items, which a batch of their history holds for certain: with every item of
    the catalogue in the batch, chances change what the others weigh, and the own items not."""
    torch.manual_seed(0)
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, text_size=4, num_experts=2, router="none",
        repeat_term=True, max_position_embeddings=4,
    )  # fmt: skip
    model = RetrForPreTraining(config).eval()
    about = {"text_embeddings": torch.randn(6, 4), "table_item_ids": torch.arange(6),
             "input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[2, 3, 4]])}  # fmt: skip

    def loss(*rare):
        chances = torch.zeros(6)
        chances[list(rare)] = -1.0
        with torch.no_grad():
            return model(**about, table_log_chances=chances).loss.item()

    assert loss(1) == loss(1, 2, 3, 4) == loss()  # the history's own, targets too
    assert loss(5) > loss()
