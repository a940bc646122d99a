"""Dropout whose noise is cheap on a CPU. Torch only.

Torch draws a float a mask entry, on one thread: in a small transformer that costs more than the matrix products it
regularises. Here an entry costs one random byte, eight of them a draw.

    y = x ⊙ m / (1 - p'),   m ~ Bernoulli(1 - p'),   p' = round(256 p) / 256

NOTE: on a CPU p is rounded to the next 1/256 (at least 1/256 where p > 0); the scale is that of p', so the mean is
exact. Elsewhere, and under torch.compile, which draws in parallel by itself, this is torch's own dropout.
"""

import torch
from torch import nn

_LEVELS = 256


def _is_cheap(x: torch.Tensor) -> bool:
    return x.device.type == "cpu" and x.is_floating_point() and not torch.compiler.is_compiling()


def _draw_kept(shape: torch.Size, dropped: int) -> torch.Tensor:
    """uint8 of ``shape``, 0 with probability ``dropped`` / 256 and otherwise 1, from torch's generator."""
    count = shape.numel()
    # From the lowest int64 on: without it the sign bit, the top of every eighth byte, would always be 0.
    noise = torch.empty((count + 7) // 8, dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    # NumPy compares bytes several times faster than torch does.
    kept = noise.view(torch.uint8)[:count].numpy() >= dropped
    return torch.from_numpy(kept).view(torch.uint8).view(shape)


class _ResidualDropout(torch.autograd.Function):
    """residual + dropped-out x, or without a residual the latter alone; keeps one byte an entry for the way back."""

    @staticmethod
    def forward(ctx, x, residual, probability):
        dropped = min(max(round(probability * _LEVELS), 1), _LEVELS - 1)
        kept = _draw_kept(x.shape, dropped)
        ctx.save_for_backward(kept)
        ctx.scale = _LEVELS / (_LEVELS - dropped)
        if residual is None:
            return kept.to(x.dtype).mul_(ctx.scale).mul_(x)
        return torch.addcmul(residual, x, kept.to(x.dtype), value=ctx.scale)

    @staticmethod
    def backward(ctx, gradient):
        (kept,) = ctx.saved_tensors
        gradient_x = None
        if ctx.needs_input_grad[0]:
            gradient_x = kept.to(gradient.dtype).mul_(ctx.scale).mul_(gradient)
        return gradient_x, gradient if ctx.needs_input_grad[1] else None, None


def dropout(x: torch.Tensor, p: float, training: bool = True) -> torch.Tensor:
    """As ``torch.nn.functional.dropout``: x of any shape -> the same shape."""
    if not training or p == 0:
        return x
    return _ResidualDropout.apply(x, None, p) if _is_cheap(x) else nn.functional.dropout(x, p)


class Dropout(nn.Dropout):
    """As ``torch.nn.Dropout``; given a residual it returns residual + dropout(x), in one pass over memory."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """x and residual of one shape -> the same shape."""
        if residual is None:
            return dropout(x, self.p, self.training)
        if self.training and self.p and _is_cheap(x) and x.dtype == residual.dtype:
            return _ResidualDropout.apply(x, residual, self.p)
        return residual + dropout(x, self.p, self.training)
