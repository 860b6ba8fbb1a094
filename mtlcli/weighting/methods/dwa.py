"""DWA: dynamic weight average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("dwa")
class DWA(LossWeighting):
    """DWA, Dynamic Weight Average: increase the weights of tasks whose loss decreases slowly.

    With L_t(e) the mean training loss of epoch e and temperature τ:

        r_t(e) = L_t(e−1) / L_t(e−2),    w_t(e) = T exp(r_t/τ) / Σ_i exp(r_i/τ),    objective = Σ_t w_t L_t

    All weights are 1 in the first two epochs; they always sum to the number of tasks.

    Note:
        Deviations from the paper. If tasks are absent from a step, the weights of those present are scaled to sum to
        their number. An epoch without labels of a task does not count for it: its r is that of the last two epochs with
        labels, and 1 before there are two. A ratio that is not finite (after a loss of 0) counts as 1.

    Args:
        tasks: The T tasks.
        temperature: Temperature τ; larger values bring the weights closer to 1.

    References:
        Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, arXiv:1803.10704, equation
        7.
    """

    losses: Tensor
    weights: Tensor

    def __init__(self, tasks: Sequence[WeightedTask | str], *, temperature: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        # [L(e−2), L(e−1)] of each task, NaN before the first epochs with labels
        self.register_buffer("losses", torch.full((2, len(self.tasks)), float("nan")))
        self.register_buffer("weights", torch.ones(len(self.tasks)))

    def end_epoch(self, losses: Tensor) -> None:
        """Set the weights of the next epoch from the mean losses of the last one.

        Args:
            losses: [T], mean training losses of the epoch; NaN for a task without labels.
        """
        losses = losses.detach().to(self.losses)
        self.losses = torch.where(losses.isnan(), self.losses, torch.stack([self.losses[1], losses]))
        rates = (self.losses[1] / self.losses[0]).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        # in this form, equal rates give weights of exactly 1
        exponentials = torch.exp((rates - rates.max()) / self.temperature)
        self.weights = exponentials / exponentials.mean()

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        weights = self.select(self.weights, present)
        if len(present) < len(self.tasks):
            weights = weights / weights.mean()
        return (weights * losses).sum(), weights
