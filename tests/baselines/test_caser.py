"""Caser's network by hand, and against its equations over each image."""

from types import SimpleNamespace

import torch

from retr_hf.baselines.caser import Caser


def build(d, length, n_h, n_v):
    torch.manual_seed(0)
    fields = {"hidden_size": d, "caser_length": length, "horizontal_filters": n_h, "vertical_filters": n_v}
    return Caser(SimpleNamespace(**fields, hidden_dropout=0.4)).eval()


def test_by_hand():
    """d = 1, L = 2, E = (1, 2): vertical (3, -1) gives 1; height 1, filter 2: max(2, 4); height 2, filter (1, 1): 3."""
    network = build(1, 2, 1, 1)
    network.dense = torch.nn.Identity()
    with torch.no_grad():
        network.vertical.weight.copy_(torch.tensor([[[3.0, -1.0]]]))
        for conv, weights in zip(network.horizontal, ([2.0], [1.0, 1.0]), strict=True):
            conv.weight.copy_(torch.tensor([[weights]]))
            conv.bias.zero_()
    states = network(torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2, dtype=torch.bool))
    assert states[0, -1].tolist() == [1.0, 4.0, 3.0]
    swapped = network(torch.tensor([[[2.0], [1.0]]]), torch.ones(1, 2, dtype=torch.bool))
    assert swapped[0, -1].tolist() == [5.0, 4.0, 3.0]


def test_each_step_by_its_own_image():
    network, d, length = build(4, 3, 5, 2), 4, 3
    tokens = torch.randn(2, 7, d)
    got = network(tokens, torch.ones(2, 7, dtype=torch.bool))
    padded = torch.cat([torch.zeros(2, length - 1, d), tokens], 1)
    for row in range(2):
        for t in range(7):
            image = padded[row, t : t + length]  # E
            vertical = [(g[0] @ image) for g in network.vertical.weight]
            horizontal = [
                torch.stack(
                    [
                        (image[j : j + a].T * conv.weight).sum((1, 2)) + conv.bias  # filters stand as [n_h, d, a]
                        for j in range(length - a + 1)
                    ]
                )
                .relu()
                .amax(0)
                for a, conv in enumerate(network.horizontal, 1)
            ]
            want = network.dense(torch.cat([*vertical, *horizontal])).relu()
            torch.testing.assert_close(got[row, t], want, atol=1e-5, rtol=0)
