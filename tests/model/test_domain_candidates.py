"""Candidates of a target's own domain, and divided by their chance, against plain sums."""

import pytest
import torch

from retr_hf.model.configuration_retr import RetrConfig
from retr_hf.model.domain_candidates import softmax_within_domains
from retr_hf.model.losses import softmax_loss
from retr_hf.model.modeling_retr import RetrForPreTraining

OFFSETS = torch.tensor([0, 4, 4, 9])  # domain 0 has the ids 1 .. 4, the second none, the third 5 .. 9
IDS = torch.tensor([1, 3, 4, 5, 8, 9])
DOMAIN = torch.tensor([0, 0, 0, 2, 2, 2])


def draw(seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    items = torch.randn(6, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    return queries, items, torch.tensor([0, 5, 2, 1, 3, 5, 0]), torch.rand(6, generator=generator).double().log()


def plain(queries, items, targets, chances, within=True, added=None):
    """The equation, target by target."""
    total = 0
    for t, target in enumerate(targets.tolist()):
        scores = items @ queries[t]
        if added is not None:
            for row, value in zip(added[0][t].tolist(), added[1][t], strict=True):
                if row >= 0:
                    scores = scores + value * torch.nn.functional.one_hot(torch.tensor(row), 6)
        others = [j for j in range(6) if j != target and (not within or DOMAIN[j] == DOMAIN[target])]
        below = scores[target].exp() + sum(scores[j].exp() / chances[j].exp() for j in others)
        total = total - (scores[target].exp() / below).log()
    return total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("beside", [False, True])
def test_within_domains_it_is_the_plain_sum(weighted, beside):
    queries, items, targets, chances = draw()
    added = None
    if beside:  # the second row of a target may be of another domain: left out
        values = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        added = torch.stack([targets, torch.tensor([-1, 0, 1, 5, 3, 4, 2])], dim=1), values
        inside = [[value if DOMAIN[row] == DOMAIN[t] else -1 for value, row in ((row, row) for row in rows.tolist())]
                  for rows, t in zip(added[0], targets.tolist(), strict=True)]  # fmt: skip
        added_plain = torch.tensor(inside), values
    expected = plain(
        queries, items, targets, chances if weighted else torch.zeros(6), added=added_plain if beside else None
    )
    gradient = torch.autograd.grad(expected, (queries, items))
    loss = softmax_within_domains(
        queries, items, IDS, targets, OFFSETS, num_targets=1, added=added, log_chances=chances if weighted else None
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, plainly in zip(torch.autograd.grad(loss, (queries, items)), gradient, strict=True):
        torch.testing.assert_close(ours, plainly)
    mean = softmax_within_domains(queries, items, IDS, targets, OFFSETS, added=added, log_chances=chances)
    assert weighted is False or mean.item() == pytest.approx(expected.item() / 7)


def test_chances_divide_every_candidate_but_the_target():
    queries, items, targets, chances = draw(2)
    expected = plain(queries, items, targets, chances, within=False)
    assert softmax_loss(queries, items, targets, 1, log_chances=chances).item() == pytest.approx(expected.item())
    same = softmax_loss(queries, items, targets, log_chances=torch.zeros(6))
    assert same.item() == pytest.approx(torch.nn.functional.cross_entropy(queries @ items.T, targets).item())


def test_they_belong_to_every_step():
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, text_size=4, num_experts=2, every_step=False
    )
    model, ids = RetrForPreTraining(config), torch.tensor([[1, 2]])
    about = {"input_ids": ids, "labels": ids, "table_item_ids": torch.arange(3), "text_embeddings": torch.randn(3, 4)}
    for name, given in (("table_log_chances", torch.zeros(3)), ("domain_offsets", torch.tensor([0, 2]))):
        with pytest.raises(ValueError, match="read with every_step=True"):
            model(**about, **{name: given})


def test_the_loss_of_a_model_does_not_know_other_domains():
    torch.manual_seed(0)
    config = RetrConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=8, text_size=4, num_experts=2, router="none",
        text_scale=None, initializer_range=0.5,
    )  # fmt: skip
    model, texts = RetrForPreTraining(config).eval(), torch.randn(7, 4)
    rows = torch.tensor([[1, 2]])  # items 1 .. 3 are of one domain, 4 .. 6 of the other
    about = {"input_ids": rows, "labels": rows + 1, "table_item_ids": torch.arange(7)}

    def loss(texts, **within):
        with torch.no_grad():
            return model(**about, text_embeddings=texts, **within).loss.item()

    other, within = texts.clone(), {"domain_offsets": torch.tensor([0, 3, 6])}
    other[5] += 1
    assert loss(other, **within) == loss(texts, **within) < loss(texts) != loss(other)


def test_without_targets_it_is_zero_and_has_a_gradient():
    queries, items, *_ = draw()
    loss = softmax_within_domains(queries[:0], items, IDS, torch.empty(0, dtype=torch.long), OFFSETS)
    loss.backward()
    assert loss.item() == 0 and not items.grad.any()
