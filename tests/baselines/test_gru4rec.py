"""GRU4Rec's network against its equations, written out."""

from types import SimpleNamespace

import torch

from retr_hf.baselines.gru4rec import Gru4Rec


def test_states_by_the_equations():
    """r, z = σ(e W + h U + b), n = tanh(e W + b + r (h U + b)), h = (1 - z) n + z h, then the dense layer."""
    torch.manual_seed(0)
    fields = {"hidden_size": 4, "gru_size": 6, "gru_layers": 1, "embedding_dropout": 0.3, "hidden_dropout": 0.3}
    network = Gru4Rec(SimpleNamespace(**fields)).eval()
    tokens = torch.randn(2, 5, 4)
    got = network(tokens, torch.ones(2, 5, dtype=torch.bool))
    gru, h = network.gru, torch.zeros(2, 6)
    for t in range(5):
        from_input = (tokens[:, t] @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, -1)
        from_state = (h @ gru.weight_hh_l0.T + gru.bias_hh_l0).chunk(3, -1)
        r, z = ((a + b).sigmoid() for a, b in zip(from_input[:2], from_state[:2], strict=True))
        h = (1 - z) * torch.tanh(from_input[2] + r * from_state[2]) + z * h
        torch.testing.assert_close(got[:, t], network.output(h), atol=1e-5, rtol=0)


def test_one_table_reads_and_scores():
    """With D = d the state itself meets the items: no dense layer (the authors' constrained embedding)."""
    fields = {"hidden_size": 4, "gru_size": None, "gru_layers": 1, "embedding_dropout": 0.0, "hidden_dropout": 0.0}
    assert Gru4Rec(SimpleNamespace(**fields)).output is None
