"""STCH: smooth Tchebycheff scalarization."""

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
    """STCH, Smooth Tchebycheff: minimize a smooth maximum of the log-losses, so that the worst task counts most.

    With the objectives f_t of the authors' multi-task code (Xi-L/STCH, STCH_MTL):

        g(θ|λ) = μ log Σ_t exp(λ_t (f_t − z_t) / μ),    f_t = log(L_t / n_t),    z_t = 0
        objective = T g,    so the gradient of L_t gets the weight T λ_t softmax_t(λ f / μ) / L_t

    The nadir n_t is the mean loss of the task in the last epoch of a warm-up, in which the objective is Σ_t λ_t log L_t
    with weights λ_t / L_t. As with `imtl_l` at its minimum, the weighted losses sum to the number of tasks T for equal
    λ, Σ_t w_t L_t = T, not the weights. The balance does not depend on the units of the losses. λ_t is the `weight:` of
    the task, scaled to a mean of 1 over the present tasks (1 in the official code; the λ of the paper sum to 1, so that
    its μ is 1/T of the one here).

    Note:
        Deviations from the official code. The objective is that of the paper, where the code subtracts the largest term
        (a constant in its gradient, but values cannot be compared between steps). The nadir is the mean over the
        labelled examples of the epoch, where the code averages over batches. A loss below 1e-12 (including 0 and
        negative ones) counts as 1e-12 and gets weight 0; the code adds 1e-20, which leads to weights of up to 1e20.
        Tasks that are absent from a step leave the sum, and T is the number of those present. An epoch without labels
        of a task does not count for its nadir: it is the loss of the last warm-up epoch with labels, or of the first
        epoch with labels after it; until then f_t has the value 0. With one task the objective is log L, up to a
        constant.

    Args:
        tasks: The T tasks with their weights λ.
        mu: Smoothness μ; near 0 only the worst task counts, large values weight all tasks equally.
        warmup_epochs: Number of warm-up epochs with Σ λ log L. The default is that of the official code (4 there, which
            counts from 0).

    References:
        Lin, Zhang, Yang, Liu, Wang and Zhang, "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML
        2024, arXiv:2402.19078.
    """

    linear = False
    uses_task_weights = True
    preferences: Tensor
    nadir: Tensor
    epoch: Tensor

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, mu: PositiveFloat = 1.0, warmup_epochs: PositiveInt = 5
    ) -> None:
        super().__init__(tasks)
        self.mu = mu
        self.warmup_epochs = warmup_epochs
        # from the configuration, so not part of the state
        self.register_buffer("preferences", torch.tensor([task.weight for task in self.tasks]), persistent=False)
        # NaN for tasks without a nadir
        self.register_buffer("nadir", torch.full((len(self.tasks),), float("nan")))
        self.register_buffer("epoch", torch.tensor(0))

    def end_epoch(self, losses: Tensor) -> None:
        """Set the nadir from the mean losses of the epoch, during the warm-up and for tasks that have none.

        Args:
            losses: [T], mean training losses of the epoch; NaN for a task without labels.
        """
        losses = losses.detach().to(self.nadir)
        unsettled = (self.epoch < self.warmup_epochs) | self.nadir.isnan()
        self.nadir = torch.where(unsettled & losses.isfinite(), losses, self.nadir)
        self.epoch = self.epoch + 1

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        count, warming_up = (
            len(present),
            self.epoch < self.warmup_epochs,
        )  # a tensor that is never read: both objectives are computed
        preferences, nadir = self.select(self.preferences, present), self.select(self.nadir, present)
        preferences = preferences / preferences.mean().clamp(min=FLOOR)  # all weights may be 0
        floored = losses.clamp(min=FLOOR)
        logarithms = floored.log()
        origin = torch.where(nadir.isnan(), logarithms.detach(), nadir.clamp(min=FLOOR).log())
        terms = preferences * (logarithms - origin) / self.mu
        smooth = count * self.mu * terms.logsumexp(0)
        objective = torch.where(warming_up, (preferences * logarithms).sum(), smooth)
        factors = torch.where(warming_up, 1.0, count * terms.softmax(0))
        weights = (factors * preferences / floored).masked_fill(losses < FLOOR, 0.0)
        return objective, weights.detach()
