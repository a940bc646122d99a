"""S3-Rec's objectives by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from retr_hf.baselines.s3rec import S3RecObjectives


def build(attributes=4, width=3, zero=False):
    torch.manual_seed(0)
    weights = {"aap_weight": 0.2, "mip_weight": 1.0, "map_weight": 1.0, "sp_weight": 0.5}
    objectives = S3RecObjectives(SimpleNamespace(hidden_size=width, num_attributes=attributes, **weights))
    if zero:
        for weight in objectives.linear.parameters():
            torch.nn.init.zeros_(weight)
    return objectives


def test_with_zero_maps_every_term_is_a_multiple_of_log_2():
    objectives, states = build(zero=True), torch.randn(5, 3)
    for name in ("mip", "sp"):
        got = objectives.contrast(name, states, torch.randn(5, 3), torch.randn(5, 3))
        assert got.item() == pytest.approx(5 * math.log(2), abs=1e-5)
    for name in ("aap", "map"):  # an item without attributes still has A negatives
        for has in (torch.zeros(5, 4).bool(), torch.ones(5, 4).bool()):
            assert objectives.attribute_loss(name, states, has).item() == pytest.approx(20 * math.log(2), abs=1e-5)


def test_terms_by_their_equations():
    objectives, states, own, other = build(), *torch.randn(3, 2, 3)
    linear = objectives.linear["mip"]
    want = 0.0
    for f, e, n in zip(states, own, other, strict=True):
        mapped = linear.weight @ f + linear.bias
        inner = torch.sigmoid(mapped @ e) - torch.sigmoid(mapped @ n)
        want -= torch.log(torch.sigmoid(inner))
    torch.testing.assert_close(objectives.contrast("mip", states, own, other), want)
    has, linear = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 0]]).bool(), objectives.linear["map"]
    p = torch.sigmoid((states @ linear.weight.T + linear.bias) @ objectives.attributes.weight.T)
    want = -(has * p.log() + ~has * (1 - p).log()).sum()
    torch.testing.assert_close(objectives.attribute_loss("map", states, has), want)


def test_a_contrast_never_falls_below_its_floor():
    """σ within σ: between -log σ(1) and -log σ(-1)."""
    objectives, ones = build(), 1e4 * torch.ones(1, 3)
    states = torch.randn(1, 3)
    one, other = (objectives.contrast("sp", states, sign * ones, -sign * ones).item() for sign in (1, -1))
    assert sorted((one, other)) == pytest.approx([0.313262, 1.313262], abs=1e-5)


def test_without_attributes_two_objectives_are_left():
    assert build(attributes=0).weights == {"mip": 1.0, "sp": 0.5}
