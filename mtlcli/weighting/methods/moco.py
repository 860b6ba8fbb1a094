"""MoCo: multi-objective gradient correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import combine_rows, multiply_by_gramian, select_rows, write_rows
from mtlcli.weighting.solvers.simplex import project_onto_simplex, restrict_to_present


@weightings.register("moco")
class MoCo(JacobianWeighting):
    """MoCo: apply MGDA to gradients that are tracked over the steps, which corrects the bias of stochastic ones.

    With the gradients g_t of step k, Y the matrix with columns y_t, and Π the projection onto the simplex:

        y_t ← y_t − β_k (y_t − g_t),    λ ← Π(λ − γ_k (YᵀY + ρI) λ),    update = T Y λ
        β_k = β / k^beta_decay,    γ_k = γ / k^gamma_decay

    y starts at 0 and λ at 1/T. The paper's update is Yλ, with λ that sum to 1; T times that is in the scale of the sum
    of the tasks, with weights Tλ. As y starts at 0, the first updates are smaller (β g in the first step). The update
    may conflict with a task's gradient of the current step. It is not invariant to scale: γ has the unit 1/gradient²,
    so that larger gradients change λ faster.

    Note:
        Deviations from the paper. y is not projected onto a ball with the (unknown) Lipschitz constant as its radius,
        as in the official code. The y and λ of an update are those after the step, as in the official code. Its
        variants for some data sets (gradients scaled to the norms of the losses and a softmax in place of Π, both also
        in LibMTL, and the derivative 2YᵀYλ) are not in the paper and not implemented. β is constant by default, as in
        the paper's theorems for constant step sizes: with the exponent 0.5 of some of that code, y falls behind a
        network that Adam moves equally far in each step (`configs/multimnist.yaml` at a learning rate of 0.005 reached
        11 %, and 94 % with the default). A task that is absent from a step keeps its y, λ and k of β_k; the λ of the
        present tasks are scaled to sum to 1 for the step, and back to their previous sum. With `every`, the steps
        between two solutions use Tλ with their own gradients.

    Args:
        tasks: The T tasks.
        beta: Step size β of the tracked gradients; 1 replaces them by the gradients of the step.
        beta_decay: Exponent with which β decreases over the steps; 0 for a constant β.
        gamma: Step size γ of λ.
        gamma_decay: Exponent with which γ decreases over the steps; 0 for a constant γ.
        rho: Regularization ρ; larger values make the λ more equal.

    References:
        Fernando, Shen, Liu, Chaudhury, Murugesan and Chen, "Mitigating Gradient Bias in Multi-objective Learning: A
        Provably Convergent Approach", ICLR 2023, arXiv:2210.12624, algorithm 1.
    """

    gradients = ("parameters",)  # features belong to the examples of one step and cannot be tracked over steps
    tracked: Tensor
    shares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
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
        self.register_buffer("steps", torch.zeros(len(self.tasks), dtype=torch.int64))  # in which each task was present

    def allocate(self, size: int) -> None:
        """Register the tracked gradients y, [T, size].

        Args:
            size: Number of columns of the Jacobian.
        """
        super().allocate(size)
        self.register_buffer("tracked", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Update y and λ; return T Y λ and the weights Tλ, see `JacobianWeighting.update`."""
        steps = select_rows(self.steps, present) + 1
        write_rows(self.steps, present, steps)
        rates = self.beta * steps.to(jacobian.dtype) ** -self.beta_decay
        tracked = select_rows(self.tracked, present).lerp_(jacobian, rates[:, None])
        write_rows(self.tracked, present, tracked)

        shares, total = restrict_to_present(self.shares, present, gramian)
        slopes = multiply_by_gramian(tracked, shares) + self.rho * shares
        gamma = self.gamma * steps.max().to(gramian.dtype) ** -self.gamma_decay
        shares = project_onto_simplex(shares - gamma * slopes)
        write_rows(self.shares, present, total * shares)
        weights = len(present) * shares
        return combine_rows(weights, tracked), weights
