"""Weights from how fast each task's loss falls, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("dwa")
class DWA(LossWeighting):
    """Dynamic Weight Average: tasks whose loss falls slower than the others' count for more.

    Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, equation 7, with L_t(e) the mean
    training loss of epoch e and temperature τ:

        r_t(e) = L_t(e−1) / L_t(e−2),    w_t(e) = T exp(r_t/τ) / Σ_i exp(r_i/τ),    objective = Σ_t w_t L_t

    All weights are 1 in the first two epochs; they always sum to the number of tasks.

    Deviations: with tasks absent from a step, the weights of those present are scaled to sum to their number. An epoch
    in which a task had no label doesn't count for it: its r is that of the last two in which it had one, and 1 before
    there are two. A ratio that isn't finite (a loss was 0) is taken for 1.

    Options:
        temperature: τ; the larger, the closer the weights are to 1.
    """

    losses: Tensor
    weights: Tensor

    def __init__(self, tasks: Sequence[WeightedTask], *, temperature: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.temperature = temperature
        # [L(e−2), L(e−1)] of each task, NaN where there is none yet.
        self.register_buffer("losses", torch.full((2, len(self.tasks)), float("nan")))
        self.register_buffer("weights", torch.ones(len(self.tasks)))

    def end_epoch(self, losses: Tensor) -> None:
        """Take the epoch's mean losses [T] in, and set the next epoch's weights."""
        losses = losses.detach().to(self.losses)
        self.losses = torch.where(losses.isnan(), self.losses, torch.stack([self.losses[1], losses]))
        rates = (self.losses[1] / self.losses[0]).nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
        # Written so that equal rates give exactly 1.
        exponentials = torch.exp((rates - rates.max()) / self.temperature)
        self.weights = exponentials / exponentials.mean()

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        weights = self.select(self.weights, present)
        if len(present) < len(self.tasks):
            weights = weights / weights.mean()
        return (weights * losses).sum(), weights
