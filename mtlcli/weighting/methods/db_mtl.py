"""DB-MTL: dual balancing of losses and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import block_width, combine_rows, select_rows, write_rows

FLOOR = 1e-8  # ε of the paper, added to the losses
NEGLIGIBLE = 1e-12  # norm relative to the largest


@weightings.register("db_mtl")
class DBMTL(JacobianWeighting):
    """DB-MTL: average the gradients of the log-losses over time and scale them to the largest norm.

    With the gradients g_t of the losses L_t in step k:

        ĝ_t ← β_k ĝ_t + (1 − β_k) g_t / (L_t + ε),    update = α Σ_t ĝ_t / ‖ĝ_t‖,    α = max_t ‖ĝ_t‖
        ĝ_t = 0 at first,    β_k = β / k^beta_decay,    ε = 1e-8

    The scale is that of the paper: each of the T tasks adds a vector of length α, the length of the gradient of a
    *log-loss*. Identical tasks give T g / L, that is, weights of 1 if the losses are 1. As ĝ starts at 0, the first
    update is smaller by the factor 1 − β_1. The update does not depend on the units of the losses.

    Note:
        Deviations from the paper. Heads are trained on their own losses, where the paper uses log-losses for them too.
        A loss below 0 counts as 0. A task with ‖ĝ_t‖ below 1e-12 of the largest is left out (the paper adds ε to its
        norm). A task that is absent from a step keeps its ĝ and k, and is not part of the sum or the maximum. With
        `every`, the steps between two solutions use the weights α / (‖ĝ_t‖ (L_t + ε)) with their own gradients. Both
        defaults are those of the authors' code in LibMTL.

    Args:
        tasks: The T tasks.
        beta: Decay rate β of the moving average; 0 uses the gradients of the current step only.
        beta_decay: Exponent with which β decreases over the steps; 0 for a constant β.

    References:
        Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang and Kwok, "Dual-Balancing for Multi-Task Learning", 2023,
        arXiv:2308.12029, algorithm 1.
    """

    gradients = ("parameters",)  # features belong to the examples of one step and cannot be averaged over steps
    uses_losses = True
    averages: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
        *,
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        beta_decay: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(tasks)
        self.beta, self.beta_decay = beta, beta_decay
        self.register_buffer("steps", torch.zeros(len(self.tasks), dtype=torch.int64))  # in which each task was present

    def allocate(self, size: int) -> None:
        """Register the moving averages ĝ, [T, size].

        Args:
            size: Number of columns of the Jacobian.
        """
        super().allocate(size)
        self.register_buffer("averages", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        steps = select_rows(self.steps, present) + 1
        write_rows(self.steps, present, steps)
        decay = self.beta * steps.to(gramian.dtype) ** -self.beta_decay
        slopes = 1.0 / (losses.clamp(min=0.0) + FLOOR)  # derivatives of the log-losses
        old_factors = decay.to(jacobian.dtype)[:, None]
        new_factors = ((1.0 - decay) * slopes).to(jacobian.dtype)[:, None]
        averages, width = select_rows(self.averages, present), block_width(jacobian)
        squares = torch.zeros_like(gramian[0])
        for average, gradients in zip(torch.split(averages, width, 1), torch.split(jacobian, width, 1), strict=True):
            average.mul_(old_factors).addcmul_(gradients, new_factors)
            squares += torch.linalg.vector_norm(average, dim=1, dtype=gramian.dtype).square()
        write_rows(self.averages, present, averages)

        norms = squares.sqrt()
        relative = norms / norms.max()  # NaN if all are 0
        factors = torch.where(relative > NEGLIGIBLE, 1.0 / relative, 0.0)
        return combine_rows(factors, averages), factors * slopes
