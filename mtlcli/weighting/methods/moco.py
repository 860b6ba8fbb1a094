"""Gradients that are tracked over the steps, and weights that follow them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import combine, inner_products_with_sum, put, take
from mtlcli.weighting.solvers.simplex import project, restrict


@weightings.register("moco")
class MoCo(JacobianWeighting):
    """MoCo: a common descent direction of gradients that are averaged over the steps, against the noise of each.

    Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning: A
    Provably Convergent Approach", ICLR 2023, Algorithm 1, with the gradients g_t of step k, Y the matrix whose columns
    are the y_t, and Π the projection onto the simplex:

        y_t ← y_t − β_k (y_t − g_t),    λ ← Π(λ − γ_k (YᵀY + ρI) λ),    update = T Y λ
        β_k = β / k^beta_decay,    γ_k = γ / k^gamma_decay

    y starts at 0 and λ at 1/T. The paper's update is Yλ, with λ that sum to 1; T times that is in the scale of the sum
    of the tasks, with weights Tλ. As y starts at 0, the first updates are smaller: β g in the first step.

    A method of averages: what conflicts with a task's gradient of this step may be in its update. Not invariant to
    scale: γ is in units of 1/gradient², so that large gradients move λ faster.

    Deviations: none from Algorithm 1, but for the projection of y onto a ball of the radius of the (unknown) Lipschitz
    constant, which the official code doesn't make either. The y and λ of an update are those the step has just made,
    as in the official code. That code's variants for some data sets (gradients scaled to the norms of the losses, a
    softmax in place of Π, both of them in LibMTL, and the derivative 2YᵀYλ) aren't in the paper. β doesn't fall by
    default, as in the paper's theorems for constant step sizes: with the 0.5 of some of that code y falls ever further
    behind a network that Adam moves as far in each step, and `configs/multimnist.yaml` at a learning rate of 0.005
    ended at 11 % where this gives 94 %. A task that is absent
    from a step keeps its y, its λ, and its k of β_k; the λ of those present are scaled to sum to 1 for the step, and
    back to what they summed to. With `every`, the steps between use Tλ with the gradients of their own.

    Options:
        beta: β, how far y goes towards the step's gradient; 1: all the way.
        beta_decay: how fast β falls with the steps; 0: not at all.
        gamma: γ, the step size of λ.
        gamma_decay: how fast γ falls with the steps; 0: not at all.
        rho: ρ, the larger, the more equal are the λ.
    """

    gradients = ("parameters",)  # the features of one step's examples have nothing to do with the next one's
    tracked: Tensor
    shares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        beta: Annotated[float, Field(gt=0, le=1)] = 0.5,
        beta_decay: NonNegativeFloat = 0.0,
        gamma: PositiveFloat = 0.1,
        gamma_decay: NonNegativeFloat = 0.5,
        rho: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(tasks)
        self.beta, self.beta_decay = beta, beta_decay
        self.gamma, self.gamma_decay = gamma, gamma_decay
        self.rho = rho
        self.register_buffer("shares", torch.full((len(self.tasks),), 1.0 / len(self.tasks)))
        self.register_buffer("steps", torch.zeros(len(self.tasks), dtype=torch.int64))  # in which each was present

    def allocate(self, size: int) -> None:
        """Make the y of all tasks, [T, size]."""
        self.register_buffer("tracked", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`. The weights are those of the tracked gradients, Tλ."""
        steps = take(self.steps, present) + 1
        put(self.steps, present, steps)
        rates = self.beta * steps.to(jacobian.dtype) ** -self.beta_decay
        tracked = take(self.tracked, present).lerp_(jacobian, rates[:, None])
        put(self.tracked, present, tracked)

        shares, total = restrict(self.shares, present, gramian)
        slopes = inner_products_with_sum(tracked, shares) + self.rho * shares
        gamma = self.gamma * steps.max().to(gramian.dtype) ** -self.gamma_decay
        shares = project(shares - gamma * slopes)
        put(self.shares, present, total * shares)
        weights = len(present) * shares
        return combine(weights, tracked), weights
