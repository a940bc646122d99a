"""RecGURU's three phases, a step each. Batches come in; ``scripts/recguru.py`` runs the steps.

    1 reconstruction   Σ_{a, b} L_rec
    2 adversarial      5 steps of the critic:  min_D  mean D(g_b) - mean D(g_a) + 0.1 E(‖∇D(g̃)‖ - 1)²
                       1 step of all else:     min    mean D(g_a) - mean D(g_b) + Σ_{a, b} L_rec
    3 target           L_BPR + L_rec of b; with ``fix_enc`` L_BPR reads g without gradient, L_rec trains the encoder on

Losses and letters are in ``recguru_losses``.

Their name -> ours: ``train_recon_x`` -> ``Reconstruction``; ``train_gan_all``, its first half -> ``Adversarial``, its
second -> ``Target``; ``ScheduledOptim`` -> ``noam``.

NOTE Phase 3 takes both losses from one batch, with one g; the authors draw a batch for each.
NOTE No users are shared by domains: the MSE term for such users is left out (the authors' main passes overlap=False).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .recguru import RecGuru
from .recguru_losses import Reading, critic_gap, gradient_penalty, recommendation_loss, reconstruction_loss

Batches = dict[str, Iterator[dict[str, Any]]]  # of each side


def noam(optimizer: torch.optim.Optimizer, width: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rate d^(-1/2) min(n^(-1/2), n w^(-3/2)) of step n = 1, 2, .. (Vaswani et al., 2017)."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: width**-0.5 * min((done + 1) ** -0.5, (done + 1) * warmup**-1.5)
    )


class Phase:
    """What updates weights, and by which loss.

    Attributes:
        optimizers, schedulers: everything that a resumed phase needs beside the model.
    """

    schedulers: tuple = ()

    def __init__(self, model: RecGuru, settings: Any):
        self.model, self.settings = model, settings

    def step(self, batches: Batches, share: float) -> dict[str, float]:
        """One step: reads its batches and updates weights; ``share`` of the phase is done. Returns its losses."""
        raise NotImplementedError

    def update(self, optimizer: torch.optim.Optimizer, **losses: Tensor) -> dict[str, float]:
        """Goes one step down the sum of the losses; where it is not finite, weights stay as they are."""
        total = sum(losses.values())
        if torch.isfinite(total):
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def state(self) -> list[dict]:
        """The states of optimisers and schedulers."""
        return [part.state_dict() for part in (*self.optimizers, *self.schedulers)]

    def load(self, state: list[dict]) -> None:
        """Takes what ``state`` gave."""
        for part, saved in zip((*self.optimizers, *self.schedulers), state, strict=True):
            part.load_state_dict(saved)


class Reconstruction(Phase):
    """Phase 1."""

    def __init__(self, model: RecGuru, settings: Any):
        super().__init__(model, settings)
        optimizer = torch.optim.Adam(trained_with_encoder(model), lr=1.0, betas=(0.9, 0.98), eps=1e-9)
        self.optimizers = (optimizer,)
        self.schedulers = (noam(optimizer, model.config.hidden_size, settings.warmup_steps),)

    def step(self, batches: Batches, share: float) -> dict[str, float]:
        """One batch of each domain."""
        readings = [Reading(self.model, side, next(stream)) for side, stream in batches.items()]
        losses = {f"reconstruction_{r.side}": reconstruction_loss(r, self.settings.num_negatives) for r in readings}
        told = self.update(self.optimizers[0], **losses)
        self.schedulers[0].step()
        return told


class Adversarial(Phase):
    """Phase 2."""

    def __init__(self, model: RecGuru, settings: Any):
        super().__init__(model, settings)
        rate = {"lr": settings.adversarial_learning_rate, "betas": (0.5, 0.9)}
        self.optimizers = tuple(
            torch.optim.Adam(weights, **rate) for weights in (trained_with_encoder(model), model.critic.parameters())
        )

    def step(self, batches: Batches, share: float) -> dict[str, float]:
        """Each step of the critic, and the encoder's, reads a batch of each domain."""
        critic, told = self.model.critic, {}
        for _ in range(self.settings.critic_steps):
            with torch.no_grad():
                users = [Reading(self.model, side, next(stream)).users for side, stream in batches.items()]
            penalty = self.settings.gradient_penalty * gradient_penalty(critic, *users)
            told = self.update(self.optimizers[1], critic=-critic_gap(critic, *users), penalty=penalty)
        readings = [Reading(self.model, side, next(stream)) for side, stream in batches.items()]
        losses = {f"reconstruction_{r.side}": reconstruction_loss(r, self.settings.num_negatives) for r in readings}
        return told | self.update(self.optimizers[0], gap=critic_gap(critic, *(r.users for r in readings)), **losses)


class Target(Phase):
    """Phase 3.

    Args:
        counts: how often each target item is in the training histories, [items + 1]. After the share ``popular_after``
            of the phase the negatives of L_BPR are drawn by counts^(3/4), before it uniformly (the authors').
    """

    def __init__(self, model: RecGuru, settings: Any, counts: Tensor):
        super().__init__(model, settings)
        rate = settings.target_learning_rate
        self.optimizers = (torch.optim.Adam(trained_with_encoder(model), lr=rate, betas=(0.9, 0.98)),)
        self.popular = counts.to(model.positions) ** 0.75

    def step(self, batches: Batches, share: float) -> dict[str, float]:
        """One batch of the target."""
        settings, reading = self.settings, Reading(self.model, "b", next(batches["b"]))
        weights = self.popular if share >= settings.popular_after else None
        return self.update(
            self.optimizers[0],
            bpr=recommendation_loss(reading, settings.num_bpr_negatives, weights, settings.fix_enc),
            reconstruction_b=reconstruction_loss(reading, settings.num_negatives),
        )


def trained_with_encoder(model: RecGuru) -> list[nn.Parameter]:
    """All weights but the critic's: ``opt_rec``, ``opt_gen`` and ``opt_final_rec`` hold these."""
    return [weight for name, weight in model.named_parameters() if not name.startswith("critic.")]
