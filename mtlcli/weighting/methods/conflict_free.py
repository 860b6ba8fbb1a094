"""The direction that has the same positive cosine with every task's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting
from mtlcli.weighting.solvers.backend import Array, Module, solve, solved
from mtlcli.weighting.solvers.gramian import block_width, rank_tolerance, units


@weightings.register("conflict_free")
class ConFIG(JacobianWeighting):
    """ConFIG: the update has the same cosine with every task's gradient, and a positive one.

    Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
    equations 2 and 3, with U(g) = g/‖g‖ and Û [t, P] the unit gradients:

        g_v = U(Û⁺ 1),    update = (Σ_t g_t·g_v) g_v

    It is Jᵀw with w_t = s x_t / ‖g_t‖, x = (Û Ûᵀ)⁺ 1. The scale is the method's own, and that of the sum of the tasks:
    t tasks alike get their sum, orthogonal ones a shorter update. A scaling of one task's loss changes the update's
    length only. Promised, where the gradients are linearly independent: equal positive cosines, so no conflict.

    The update is summed in float64, in blocks: near-opposed gradients are beyond float32. The pseudoinverse is by a
    Cholesky factorization with pivots and a QR of its factor, which are a fixed number of steps. A gradient counts as
    a combination of the others where its direction is within 2e-6 of their span (an angle, in radians), which float32
    can't tell from 0.

    Deviations: where all gradients cancel (two that are opposed) the direction isn't defined and the update is 0; zero
    gradients are left out, and get the weight 0. TorchJD's rank tolerance grows with P: at 400 000 float32 parameters
    it finds no direction between two tasks with a cosine of −0.999, and this does.
    """

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        weights: Tensor = solved(direction, gramian, rank_tolerance(gramian))
        blocks = torch.split(jacobian, block_width(jacobian), 1)
        update = torch.cat([(weights @ block.to(gramian.dtype)).to(jacobian.dtype) for block in blocks])
        return update, weights


def direction(xp: Module, gramian: Array, tolerance: float) -> Array:
    """The weights [t] from G = J Jᵀ, by NumPy or torch. tolerance: `rank_tolerance`."""
    rest, lengths, inverses = units(xp, gramian)  # rest: what of Û Ûᵀ the columns so far don't make up
    columns, pivots = [], []
    for _ in range(len(lengths)):
        pivot = rest.diagonal().argmax()[None]
        largest = rest.diagonal()[pivot]
        column = rest[:, pivot] / xp.sqrt(largest)
        rest = rest - column * column.T
        columns.append(column)
        pivots.append(largest)
    # A pivot is a squared distance from the others' span. They never rise: the columns from the first that is 0 on
    # don't count, whatever is in them.
    full = xp.concatenate(pivots) > tolerance
    triangle = xp.concatenate(columns, 1)  # Û Ûᵀ = L Lᵀ
    if xp is np and full.all():  # nothing to leave out: no basis is needed
        half = solve(xp, triangle, lengths * inverses)
        solution, total = solve(xp, triangle.T, half), lengths.sum()
    else:
        basis, factor = xp.linalg.qr(xp.where(full, triangle, 0.0))  # Û Ûᵀ = B F Fᵀ Bᵀ
        ones = xp.where(full, basis.sum(0), 0.0)  # Bᵀ 1
        factor = factor + xp.diag(xp.where(full, 0.0 * ones, 1.0))
        half = solve(xp, factor, ones)
        solution = basis @ solve(xp, factor.T, half)  # x, of the least norm
        total = (lengths * (basis @ ones)).sum()  # Σ g_t·(Û⁺ 1)
    square = (half * half).sum()  # ‖Û⁺ 1‖², at least about 1/t² unless the gradients cancel
    return solution * inverses * xp.where(square > 1e-12, total / square, 0.0)
