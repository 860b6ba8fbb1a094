"""GradVac: gradient vaccine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import WeightedTask
from mtlcli.weighting.randomness import SequentialProjection
from mtlcli.weighting.solvers.backend import Array, Backend, run_solver
from mtlcli.weighting.solvers.gramian import normalize_gramian

MAX_COTANGENT = 100.0
MIN_SQUARE = 1e-12  # of g_i', relative to g_i


@weightings.register("gradvac")
class GradVac(SequentialProjection):
    """GradVac, Gradient Vaccine: raise the cosine of each pair of gradients to its moving average.

    From g_i' = g_i, for each other task j in a random order, drawn anew for each i in each step, with φ the cosine of
    g_i' and g_j:

        if φ < φ̂_ij:  g_i' ← g_i' + ‖g_i'‖ (φ̂ √(1−φ²) − φ √(1−φ̂²)) / (‖g_j‖ √(1−φ̂²)) g_j,  so that the cosine is φ̂
        φ̂_ij ← (1−β) φ̂_ij + β φ,    update = Σ_i g_i'

    The g_j are the original gradients. The targets φ̂ start at 0, so the first step is that of `pcgrad`; they are the
    state of the method. It is computed on the Gramian, for all i at once. The weights are at least 1; if every cosine
    is above its target all are 1. The direction of g_i' does not depend on the units of the losses.

    Note:
        Deviations from the paper. There is one group of parameters, all shared ones (the paper's "whole model").
        φ̂/√(1−φ̂²) is at most 100 (φ̂ = ±0.99995), where the paper divides by zero: for nearly parallel tasks the
        result would be rounding error. A pair with an undefined cosine (a gradient is 0, or g_i' has shrunk to a
        millionth of g_i) leaves its target unchanged, as do absent tasks.

    Args:
        tasks: The T tasks.
        beta: Step size β of the moving average; 0 is `pcgrad`.

    References:
        Wang, Tsvetkov, Firat and Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
        Massively Multilingual Models", ICLR 2021, arXiv:2010.05874, algorithm 1.
    """

    targets: Tensor

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, beta: Annotated[float, Field(ge=0, le=1)] = 0.01
    ) -> None:
        super().__init__(tasks)
        self.beta = beta
        self.register_buffer("targets", torch.zeros(len(self.tasks), len(self.tasks)))

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """Update the targets and return the weights, see `GramianWeighting.weights`."""
        if len(present) == 1:
            return torch.ones_like(losses, dtype=gramian.dtype)
        orders = self.get_orders(present).to(gramian.device, non_blocking=True)
        everyone = torch.arange(len(present), device=gramian.device)
        old, index = self._targets(present)
        weights: Tensor
        weights, new = run_solver(raise_cosines, gramian, old.to(gramian.dtype), orders, everyone, self.beta)
        self.targets = new.to(old.dtype) if index is None else self.targets.index_put(index, new.to(old.dtype))
        return weights

    def _targets(self, present: Sequence[int]) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return the targets of the present tasks [t, t], and their index in [T, T] (None if all are present)."""
        if len(present) == len(self.tasks):
            return self.targets, None
        index = torch.tensor(present).to(self.targets.device, non_blocking=True)
        return self.targets[index[:, None], index], (index[:, None], index)


def raise_cosines(
    xp: Backend, gramian: Array, targets: Array, orders: Array, everyone: Array, beta: float
) -> tuple[Array, Array]:
    """Compute the weights of Σ_i g_i' and the new targets.

    Args:
        xp: Backend, NumPy or torch.
        gramian: [t, t], Gramian of the gradients.
        targets: [t, t], target cosines φ̂.
        orders: [t−1, t], order in which task i (column i) meets the others.
        everyone: [t], the indices 0 … t−1.
        beta: Step size of the targets.

    Returns:
        Weights [t] and new targets [t, t].
    """
    cosines, lengths, inverses = normalize_gramian(xp, gramian)
    nonzero = xp.sign(lengths)  # 1, or 0 for a zero gradient
    # Cotangents of the target angles, [t−1, t] like `orders`; 0 keeps the product with a zero gradient at 0.
    met = targets[everyone, orders]
    cotangents = xp.clip(met / xp.sqrt(1.0 - met * met), -MAX_COTANGENT, MAX_COTANGENT) * nonzero[orders]
    # products[s, i]: of g_i'/‖g_i‖ and the g_j/‖g_j‖ that task i meets in step s; square: of g_i'/‖g_i‖ and itself.
    products, square, zeros = cosines[everyone, orders], nonzero, nonzero * 0.0
    # effects[s, s', i]: change of the product of step s' (used if later) per g_j/‖g_j‖ added in step s.
    effects = cosines[orders[:, None], orders]
    squares, added = [], []
    for step in range(len(orders)):
        squares.append(square)
        along = products[step]
        across = xp.maximum(square - along * along, zeros)  # squared component orthogonal to g_j, unchanged
        raised = xp.maximum(xp.sqrt(across) * cotangents[step], along)
        square = across + raised * raised
        added.append(raised - along)
        products[step + 1 :] += added[step] * effects[step, step + 1 :]
    size = xp.stack(squares)
    cosine = xp.where(size > MIN_SQUARE, xp.clip(products / xp.sqrt(size), -1.0, 1.0), met)
    new, coefficients = targets + 0.0, targets * 0.0
    new[everyone, orders] = met + beta * nonzero[orders] * (cosine - met)
    coefficients[everyone, orders] = xp.stack(added)
    return (lengths[:, None] * coefficients).sum(0) * inverses + 1.0, new
