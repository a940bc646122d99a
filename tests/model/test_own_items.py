"""Which items of its own history a step does not have for negatives."""

import torch

from retr_hf.model.own_items import hide_own_items

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
