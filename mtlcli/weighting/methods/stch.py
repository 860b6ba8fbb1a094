"""The smooth maximum of the losses instead of their sum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask

FLOOR = 1e-12


@weightings.register("stch")
class STCH(LossWeighting):
    """Smooth Tchebycheff scalarization (STCH): a smooth maximum of the tasks, so that the worst one counts for most.

    Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML
    2024, with the objectives f_t that the authors' multi-task code (Xi-L/STCH, STCH_MTL) gives it:

        g(θ|λ) = μ log Σ_t exp(λ_t (f_t − z_t) / μ),    f_t = log(L_t / n_t),    z_t = 0
        objective = T g,    so the gradient of L_t gets the weight T λ_t softmax_t(λ f / μ) / L_t

    The nadir n_t is the task's mean loss in the last epoch of a warm-up, in which the objective is Σ_t λ_t log L_t,
    with weights λ_t / L_t. Throughout, as with `imtl_l` at its minimum, it isn't the weights that sum to the number of
    tasks T but, with equal λ, the weighted losses: Σ_t w_t L_t = T. No choice of units for a loss makes a difference.

    λ_t is the task's `weight:`, scaled to a mean of 1 over the tasks present (all 1 in the official code); the paper's
    sum to 1, so that its μ is 1/T of ours.

    Deviations from the official code: the objective is the paper's, where the code takes the largest term out of it (a
    constant to its gradient, but then its value can't be compared between steps). The nadir is the mean over the
    epoch's labelled examples, where the code averages its batches (the same with batches of one size). A loss below
    1e-12 (or 0, or negative) counts as 1e-12 and gets the weight 0; the code adds 1e-20, and weights of up to 1e20
    follow. A task that is absent from a step leaves the sum, and T is the number of those present. An epoch in which a
    task had no labels doesn't count for its nadir: it is that of its last epoch with labels in the warm-up, or its
    first one after, until when its f_t has the value 0. With one task it is log L, up to a constant.

    Options:
        mu: μ, the smoothness: near 0 only the worst task counts, the larger, the more equally all do.
        warmup_epochs: how many epochs of Σ λ log L come first (5 is the official code's 4, which counts from 0).
    """

    linear = False
    uses_task_weights = True
    preferences: Tensor
    nadir: Tensor
    epoch: Tensor

    def __init__(
        self, tasks: Sequence[WeightedTask], *, mu: PositiveFloat = 1.0, warmup_epochs: PositiveInt = 5
    ) -> None:
        super().__init__(tasks)
        self.mu = mu
        self.warmup_epochs = warmup_epochs
        # Set by the configuration, not learned: no part of the state.
        self.register_buffer("preferences", torch.tensor([task.weight for task in self.tasks]), persistent=False)
        # NaN where there is none yet.
        self.register_buffer("nadir", torch.full((len(self.tasks),), float("nan")))
        self.register_buffer("epoch", torch.tensor(0))

    def end_epoch(self, losses: Tensor) -> None:
        """Take the epoch's mean losses [T] for the nadir, in the warm-up and where there is none yet."""
        losses = losses.detach().to(self.nadir)
        wanted = (self.epoch < self.warmup_epochs) | self.nadir.isnan()
        self.nadir = torch.where(wanted & losses.isfinite(), losses, self.nadir)
        self.epoch = self.epoch + 1

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        count, warming_up = len(present), self.epoch < self.warmup_epochs  # a tensor: not read, both are computed
        preferences, nadir = self.select(self.preferences, present), self.select(self.nadir, present)
        preferences = preferences / preferences.mean().clamp(min=FLOOR)  # all of them may be 0
        floored = losses.clamp(min=FLOOR)
        logarithms = floored.log()
        origin = torch.where(nadir.isnan(), logarithms.detach(), nadir.clamp(min=FLOOR).log())
        terms = preferences * (logarithms - origin) / self.mu
        smooth = count * self.mu * terms.logsumexp(0)
        objective = torch.where(warming_up, (preferences * logarithms).sum(), smooth)
        portions = torch.where(warming_up, 1.0, count * terms.softmax(0))
        weights = (portions * preferences / floored).masked_fill(losses < FLOOR, 0.0)
        return objective, weights.detach()
