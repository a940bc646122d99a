"""The cheap noise: its statistics, its gradient, its seed."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from retr_hf.model.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.2, 0.5, 0.9, 0.999])
def test_statistics(p):
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    y = dropout(x, p)
    level = min(max(round(p * 256), 1), 255) / 256
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - level)).item()}
    dropped = (y == 0).float()
    spread = (level * (1 - level) / x.numel()) ** 0.5
    assert dropped.mean().item() == pytest.approx(level, abs=5 * spread)
    # every place of the eight bytes of a draw alike, the one with the sign bit too
    for place in range(8):
        own = dropped.flatten()[place::8]
        assert own.mean().item() == pytest.approx(level, abs=5 * spread * 8**0.5)
    # neighbours are independent: dropped together as often as the product says
    for distance in (1, 7, 8, 1001):
        flat = dropped.flatten()
        together = (flat[distance:] * flat[:-distance]).mean().item()
        assert together == pytest.approx(level**2, abs=5 * (level**2 * (1 - level**2) / x.numel()) ** 0.5)


def test_gradient_goes_where_the_values_went():
    torch.manual_seed(0)
    x, residual = torch.randn(2, 50, 40, requires_grad=True).unbind()
    module = Dropout(0.3).train()
    y = module(x, residual)
    kept = (y != residual).float()
    scale = 256 / (256 - 77)  # 0.3 * 256 = 76.8
    torch.testing.assert_close(y, residual + kept * x * scale)
    gradient = torch.randn(50, 40)
    of_x, of_residual = torch.autograd.grad(y, (x, residual), gradient)
    torch.testing.assert_close(of_x, gradient * kept * scale)
    assert torch.equal(of_residual, gradient)


def test_seeds_and_recomputation_repeat_it():
    x = torch.randn(300, 7, requires_grad=True)
    torch.manual_seed(5)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(5)
    assert torch.equal(dropout(x, 0.5), first) and not torch.equal(first, second)
    y = checkpoint(lambda x: dropout(x, 0.5).pow(2), x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.where(y > 0, 8 * x, 0.0).detach())  # d(2x)² / dx, the same mask twice


def test_it_is_the_identity_in_evaluation_and_at_zero():
    x = torch.randn(4, 5)
    assert dropout(x, 0.5, training=False) is x and dropout(x, 0.0) is x
    assert torch.equal(Dropout(0.5).eval()(x, x), x + x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_types_are_kept(dtype):
    x = torch.ones(64, 64, dtype=dtype, requires_grad=True)
    y = Dropout(0.5).train()(x, torch.zeros_like(x))
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype and set(y.unique().tolist()) == {0.0, 2.0}
