"""Balance of the losses by their logarithms, and of the gradients by their norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import block_width, combine, put, take

FLOOR = 1e-8  # the paper's ε, of the losses
NEGLIGIBLE = 1e-12  # a norm, as a part of the largest


@weightings.register("db_mtl")
class DBMTL(JacobianWeighting):
    """DB-MTL: the gradients of the losses' logarithms, averaged over the steps and all brought to the largest norm.

    Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Tsang and Kwok, "Dual-Balancing for Multi-Task Learning", 2023
    (arXiv:2308.12029, accepted by Neural Networks), Algorithm 1, with the gradients g_t of the losses L_t in step k:

        ĝ_t ← β_k ĝ_t + (1 − β_k) g_t / (L_t + ε),    update = α Σ_t ĝ_t / ‖ĝ_t‖,    α = max_t ‖ĝ_t‖
        ĝ_t = 0 at first,    β_k = β / k^beta_decay,    ε = 1e-8

    Scale: its own, the paper's. All T tasks add a vector of the length α, which is that of the gradient of a
    *logarithm*: T tasks alike give T g / L, so weights of 1 where the losses are 1 (once ĝ has forgotten its start: the
    first update is 1 − β_1 times that). No choice of units for a loss makes a difference.

    Deviations: the heads are trained on their own losses, where the paper trains them on the logarithms too. A loss
    below 0 counts as 0. A task whose ĝ is less than 1e-12 of the largest is left out (the paper adds ε to its norm).
    A task that is absent from a step keeps its ĝ and its k, and isn't in the step's sum or maximum. With `every`, the
    steps between use the weights α / (‖ĝ_t‖ (L_t + ε)) with the gradients of their own. Both defaults are those of the
    authors' code (LibMTL).

    Options:
        beta: β, how much of ĝ stays; 0: the step's gradients alone.
        beta_decay: how fast β falls with the steps; 0: not at all.
    """

    gradients = ("parameters",)  # the features of one step's examples have nothing to do with the next one's
    averages: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        beta: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        beta_decay: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__(tasks)
        self.beta, self.beta_decay = beta, beta_decay
        self.register_buffer("steps", torch.zeros(len(self.tasks), dtype=torch.int64))  # in which each was present

    def allocate(self, size: int) -> None:
        """Make the ĝ of all tasks, [T, size]."""
        self.register_buffer("averages", torch.zeros(len(self.tasks), size))

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        steps = take(self.steps, present) + 1
        put(self.steps, present, steps)
        kept = self.beta * steps.to(gramian.dtype) ** -self.beta_decay
        slopes = 1.0 / (losses.clamp(min=0.0) + FLOOR)  # of the logarithms
        kept_rows, new_rows = kept.to(jacobian.dtype)[:, None], ((1.0 - kept) * slopes).to(jacobian.dtype)[:, None]
        averages, width = take(self.averages, present), block_width(jacobian)
        squares = torch.zeros_like(gramian[0])
        for own, gradients in zip(torch.split(averages, width, 1), torch.split(jacobian, width, 1), strict=True):
            own.mul_(kept_rows).addcmul_(gradients, new_rows)
            squares += torch.linalg.vector_norm(own, dim=1, dtype=gramian.dtype).square()
        put(self.averages, present, averages)

        norms = squares.sqrt()
        parts = norms / norms.max()  # NaN where all are 0
        factors = torch.where(parts > NEGLIGIBLE, 1.0 / parts, 0.0)
        return combine(factors, averages), factors * slopes
