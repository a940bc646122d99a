"""SINE's network against its equations, written out for one history; what order and padding mean to it."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from retr_hf.baselines.sine import Sine


def build(**changes):
    torch.manual_seed(0)
    fields = {"hidden_size": 6, "num_prototypes": 5, "num_interests": 3, "interest_temperature": 0.3}
    fields |= {"prototype_penalty": 0.5, "hidden_dropout": 0.4}
    return Sine(SimpleNamespace(**fields | changes)).eval()


def read(network, x):
    return network(x[None], torch.ones(1, len(x), dtype=torch.bool))[0]


def test_by_the_equations():
    network, x = build(), torch.randn(4, 6)
    c, w3 = network.prototypes.weight, network.assign.weight.T
    a = ((x @ network.summary.weight.T).tanh() @ network.summary_weight.weight[0]).softmax(0)
    s = c @ (a @ x)
    chosen = s.argsort(descending=True)[:3]
    c_u = torch.stack([c[j] * s[j].sigmoid() for j in chosen])
    of_k = (normalize(x @ w3, dim=-1) @ network.prototype_norm(c_u).T).softmax(1)
    phi = []
    for k in range(3):
        w_k1 = network.position.weight[6 * k : 6 * (k + 1)].T
        of_t = ((x @ w_k1).tanh() @ network.position_weight.weight[k]).softmax(0)
        phi.append(normalize(sum(of_k[t, k] * of_t[t] * x[t] for t in range(4)), dim=0))
    x_hat = of_k @ c_u
    weight = ((x_hat @ w3).tanh() @ network.intention_weight.weight[0]).softmax(0)
    intention = network.intention_norm(weight @ x_hat)
    share = torch.stack([p @ intention / 0.3 for p in phi]).softmax(0)
    want = sum(share[k] * phi[k] for k in range(3))
    torch.testing.assert_close(read(network, x), want.expand(4, 6), atol=1e-5, rtol=0)


def test_order_means_nothing():
    network, x = build(), torch.randn(7, 6)
    torch.testing.assert_close(read(network, x[torch.randperm(7)]), read(network, x), atol=1e-5, rtol=0)


def test_equal_prototypes_share_evenly():
    """k = P and equal prototypes: P_{k|t} = 1 / k, so x̂_t is the prototype and the interests differ by W_k alone."""
    network, x = build(num_prototypes=3), torch.randn(4, 6)
    with torch.no_grad():
        network.prototypes.weight.copy_(network.prototypes.weight[:1].expand(3, 6).clone())
        network.position.weight.copy_(network.position.weight[:6].repeat(3, 1))
        network.position_weight.weight.copy_(network.position_weight.weight[:1].expand(3, 6).clone())
    of_t = ((x @ network.position.weight[:6].T).tanh() @ network.position_weight.weight[0]).softmax(0)
    torch.testing.assert_close(read(network, x)[0], normalize(of_t @ x, dim=0), atol=1e-5, rtol=0)


def test_penalty_by_hand():
    """C = ((1, -1), (2, -2)), means 0: M = ((1, 2), (2, 4)), so ρ ½ (25 - 17) = 2."""
    network = build(hidden_size=2, num_prototypes=2, num_interests=1)
    network.prototypes.weight.data = torch.tensor([[1.0, -1.0], [2.0, -2.0]])
    assert network.penalty().item() == pytest.approx(0.5 * 0.5 * 8)
