"""Gradient surgery towards the similarity that the tasks' gradients usually have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import WeightedTask
from mtlcli.weighting.methods.pcgrad import SequentialProjection
from mtlcli.weighting.solvers.backend import Array, Module, solved
from mtlcli.weighting.solvers.gramian import units

STEEPEST = 100.0
VANISHED = 1e-12


@weightings.register("gradvac")
class GradVac(SequentialProjection):
    """Gradient Vaccine (GradVac): a cosine below what a pair of tasks usually has is raised to that.

    Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in Massively
    Multilingual Models", ICLR 2021, algorithm 1, with one component (all shared parameters). From g_i' = g_i, for each
    other task j in a random order, drawn anew for each i at each step, with φ the cosine of g_i' and g_j:

        where φ < φ̂_ij:  g_i' ← g_i' + ‖g_i'‖ (φ̂ √(1−φ²) − φ √(1−φ̂²)) / (‖g_j‖ √(1−φ̂²)) g_j,   which makes it φ̂
        φ̂_ij ← (1−β) φ̂_ij + β φ,    update = Σ_i g_i'

    The targets φ̂ start at 0 (so the first step is `pcgrad`'s) and are the method's state. The g_j are the tasks'
    original gradients. All of it is done on the Gramian, for all i at once.

    The weights are in the scale of the sum of the tasks: where every cosine is above its target all are 1. They are at
    least 1. No choice of units for a loss changes a cosine, so none changes the direction of any g_i'.

    Deviations: φ̂/√(1−φ̂²) counts as 100 at most (φ̂ = ±0.99995), where the paper divides by zero: what is asked of tasks
    that are all but the same would be rounding errors. A pair whose cosine isn't defined (a gradient is 0, or g_i' has
    shrunk to a millionth of g_i) leaves its target as it is. The targets of absent tasks stay as they are.

    Options:
        beta: β, how fast the targets follow the cosines; 0 is `pcgrad`.
    """

    targets: Tensor

    def __init__(self, tasks: Sequence[WeightedTask], *, beta: Annotated[float, Field(ge=0, le=1)] = 0.01) -> None:
        super().__init__(tasks)
        self.beta = beta
        self.register_buffer("targets", torch.zeros(len(self.tasks), len(self.tasks)))

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`. Moves the targets."""
        if len(present) == 1:
            return torch.ones_like(losses, dtype=gramian.dtype)
        orders = self.orders(present).to(gramian.device, non_blocking=True)
        everyone = torch.arange(len(present), device=gramian.device)
        old, index = self._targets(present)
        weights: Tensor
        weights, new = solved(vaccinate, gramian, old.to(gramian.dtype), orders, everyone, self.beta)
        self.targets = new.to(old.dtype) if index is None else self.targets.index_put(index, new.to(old.dtype))
        return weights

    def _targets(self, present: Sequence[int]) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """The present tasks' targets [t, t], and where among [T, T] they are; None where all tasks are present."""
        if len(present) == len(self.tasks):
            return self.targets, None
        index = torch.tensor(present).to(self.targets.device, non_blocking=True)
        return self.targets[index[:, None], index], (index[:, None], index)


def vaccinate(
    xp: Module, gramian: Array, targets: Array, orders: Array, everyone: Array, beta: float
) -> tuple[Array, Array]:
    """The weights [t] of Σ_i g_i', and the new targets [t, t], by NumPy or torch.

    targets: φ̂ [t, t]. orders: [t−1, t], column i holds the others in the order of task i. everyone: 0 … t−1.
    """
    cosines, lengths, inverses = units(xp, gramian)
    there = xp.sign(lengths)  # 1, or 0 for a zero gradient
    # The cotangents of the targets' angles; 0 leaves the product with a zero gradient at 0. [t−1, t], as `orders` is.
    met = targets[everyone, orders]
    slopes = xp.clip(met / xp.sqrt(1.0 - met * met), -STEEPEST, STEEPEST) * there[orders]
    # Row s, column i: the product of g_i'/‖g_i‖ with the g_j/‖g_j‖ that task i meets in step s; below, with itself.
    products, square, nothing = cosines[everyone, orders], there, there * 0.0
    # [s, s', i]: what g_j/‖g_j‖, added in step s, adds to the products of the steps s', of which the later ones matter
    effects = cosines[orders[:, None], orders]
    squares, added = [], []
    for step in range(len(orders)):
        squares.append(square)
        along = products[step]
        across = xp.maximum(square - along * along, nothing)  # the part at right angles to g_j stays
        raised = xp.maximum(xp.sqrt(across) * slopes[step], along)
        square = across + raised * raised
        added.append(raised - along)
        products[step + 1 :] += added[step] * effects[step, step + 1 :]
    size = xp.stack(squares)
    cosine = xp.where(size > VANISHED, xp.clip(products / xp.sqrt(size), -1.0, 1.0), met)
    new, coefficients = targets + 0.0, targets * 0.0
    new[everyone, orders] = met + beta * there[orders] * (cosine - met)
    coefficients[everyone, orders] = xp.stack(added)
    return (lengths[:, None] * coefficients).sum(0) * inverses + 1.0, new
