"""Gradient of binary masks, by a second, mirrored forward pass (ARM). Torch only.

Yin and Zhou, *ARM: Augment-REINFORCE-Merge Gradient for Stochastic Binary Networks*, ICLR 2019, as Rec-denoiser uses it
(Chen et al., RecSys 2022). Symbols: Φ logits of the mask, g the logistic function, U uniform noise, L the data loss.
"""

import functools
from collections.abc import Callable

import torch
import torch.distributed as dist


def arm_gradient(loss_difference: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """One draw of the gradient of E[L] towards Φ, unbiased: scalar and U of any shape -> the shape of U.

        ∇_Φ E[L] = E_U[ (L(1[U ≥ g(-Φ)]) - L(1[U < g(Φ)])) (U - ½) ]

    loss_difference: L of the mirrored mask less L of the plain one, all else equal.
    """
    return loss_difference * (uniform - 0.5)


def shared_uniform(like: torch.Tensor) -> torch.Tensor:
    """Uniform noise in [0, 1) of a tensor's shape, the same on all processes.

    From torch's generator, which a checkpoint holds; of several processes from that of the first. All then have one
    mask, and the gradients that they add up are that of their loss differences added up.
    """
    uniform = torch.empty_like(like, requires_grad=False).uniform_()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.broadcast(uniform, 0)
    return uniform


class MaskDraws:
    """Draws the binary masks of one forward pass, and remembers their noise: the plain ones, or the mirrored ones."""

    def __init__(self, mirrored: bool = False):
        self.mirrored = mirrored
        self.drawn: list[tuple[torch.Tensor, torch.Tensor]] = []  # (Φ, U) of each mask, where Φ is trained

    def mask(self, logits: torch.Tensor) -> torch.Tensor:
        """Φ of any shape -> bool, True with probability g(Φ): 1[U < g(Φ)], or mirrored 1[U ≥ g(-Φ)]."""
        uniform = shared_uniform(logits)
        if logits.requires_grad:
            self.drawn.append((logits, uniform))
        logits = logits.detach()
        return uniform >= (-logits).sigmoid() if self.mirrored else uniform < logits.sigmoid()

    def surrogate(self, loss_difference: torch.Tensor) -> torch.Tensor:
        """A scalar 0 whose gradient towards each square Φ is ``arm_gradient``, on and below the diagonal."""
        return sum(
            (arm_gradient(loss_difference, uniform).tril() * (logits - logits.detach())).sum()
            for logits, uniform in self.drawn
        )


def antithetic(forward: Callable) -> Callable:
    """Decorator of a head's ``forward``: in training, with ``attention="denoising"``, its loss gets the ARM surrogate.

    The head runs twice, with gradient and without, with the same random numbers (dropout, routes, negatives): only the
    masks differ, else the difference would be noise. ``forward`` returns ``loss`` and ``data_loss``, and hands
    ``mask_draws`` to the attentions; its loss keeps its value, and the random state ends where one pass leaves it.

    Raises:
        ValueError: gradient checkpointing.

    NOTE: one U for a whole micro-batch, hence one loss difference for all links: unbiased, of high variance.
    """

    @functools.wraps(forward)
    def both_sides(self, *args, **kwargs):
        if self.config.attention != "denoising" or not self.training or not torch.is_grad_enabled():
            return forward(self, *args, **kwargs)
        if any(layer.gradient_checkpointing for layer in self.model.layers):
            raise ValueError(
                "gradient checkpointing draws masks anew and loses second derivatives: leave it out with "
                'attention="denoising"'
            )
        draws, sources = MaskDraws(), _random_sources(self.device, kwargs.get("route_generator"))
        states = [get_state() for get_state, _ in sources]
        output = forward(self, *args, mask_draws=draws, **kwargs)
        if output.loss is None or not draws.drawn:
            return output
        for (_, set_state), state in zip(sources, states, strict=True):
            set_state(state)
        with torch.no_grad():
            mirrored = forward(self, *args, mask_draws=MaskDraws(mirrored=True), **kwargs)
        difference = mirrored.data_loss - output.data_loss.detach()
        output.loss = output.loss + draws.surrogate(difference)
        return output

    return both_sides


def _random_sources(device: torch.device, generator: torch.Generator | None) -> list[tuple[Callable, Callable]]:
    """(get_state, set_state) of everything that a forward pass draws from."""
    sources = [(torch.get_rng_state, torch.set_rng_state)]
    if device.type != "cpu":
        accelerator = torch.get_device_module(device)
        sources.append((accelerator.get_rng_state, accelerator.set_rng_state))
    if generator is not None:
        sources.append((generator.get_state, generator.set_state))
    return sources
