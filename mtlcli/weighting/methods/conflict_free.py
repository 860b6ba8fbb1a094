"""ConFIG: conflict-free inverse gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import JacobianWeighting
from mtlcli.weighting.solvers.backend import Array, Backend, run_solver, solve_linear
from mtlcli.weighting.solvers.gramian import block_width, normalize_gramian, rank_tolerance


@weightings.register("conflict_free")
class ConFIG(JacobianWeighting):
    """ConFIG: find an update with the same positive cosine to the gradient of every task.

    With U(g) = g/‖g‖ and Û [t, P] the unit gradients:

        g_v = U(Û⁺ 1),    update = (Σ_t g_t·g_v) g_v

    It is Jᵀw with w_t = s x_t / ‖g_t‖, x = (Û Ûᵀ)⁺ 1. The scale is that of the paper: identical tasks get their sum,
    orthogonal ones a shorter update. Scaling the loss of one task changes the length of the update only. If the
    gradients are linearly independent, all cosines are equal and positive, so there is no conflict.

    The update is summed in float64, in blocks, because float32 is insufficient for nearly opposed gradients. The
    pseudoinverse is computed by a Cholesky factorization with pivoting and a QR decomposition of its factor, in a fixed
    number of steps.

    Note:
        Deviations from the paper. If all gradients cancel (such as two opposed ones) the direction is undefined and the
        update is 0. Zero gradients are left out and get weight 0. A gradient counts as linearly dependent if its angle
        to the span of the others is below 2e-6 rad, the resolution of float32. TorchJD's rank tolerance grows with P:
        with 400,000 float32 parameters it finds no direction between two tasks with a cosine of −0.999, this
        implementation does.

    Args:
        tasks: The T tasks.

    References:
        Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
        arXiv:2408.11104, equations 2 and 3.
    """

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        weights: Tensor = run_solver(solve_config, gramian, rank_tolerance(gramian))
        blocks = torch.split(jacobian, block_width(jacobian), 1)
        update = torch.cat([(weights @ block.to(gramian.dtype)).to(jacobian.dtype) for block in blocks])
        return update, weights


def solve_config(xp: Backend, gramian: Array, tolerance: float) -> Array:
    """Compute the weights of ConFIG from the Gramian.

    Args:
        xp: Backend, NumPy or torch.
        gramian: [t, t], Gramian G = J Jᵀ of the gradients.
        tolerance: Relative tolerance from `rank_tolerance`.

    Returns:
        [t] weights.
    """
    rest, lengths, inverses = normalize_gramian(xp, gramian)  # rest: Û Ûᵀ minus the part due to the columns so far
    columns, pivots = [], []
    for _ in range(len(lengths)):
        pivot = rest.diagonal().argmax()[None]
        largest = rest.diagonal()[pivot]
        column = rest[:, pivot] / xp.sqrt(largest)
        rest = rest - column * column.T
        columns.append(column)
        pivots.append(largest)
    # A pivot is the squared distance of a gradient to the span of the previous ones. Pivots never increase, so the
    # columns from the first zero pivot on are ignored, whatever their content.
    full = xp.concatenate(pivots) > tolerance
    triangle = xp.concatenate(columns, 1)  # Û Ûᵀ = L Lᵀ
    if xp is np and full.all():  # all columns are used, so no basis is needed
        half = solve_linear(xp, triangle, lengths * inverses)
        solution, total = solve_linear(xp, triangle.T, half), lengths.sum()
    else:
        basis, factor = xp.linalg.qr(xp.where(full, triangle, 0.0))  # Û Ûᵀ = B F Fᵀ Bᵀ
        ones = xp.where(full, basis.sum(0), 0.0)  # Bᵀ 1
        factor = factor + xp.diag(xp.where(full, 0.0 * ones, 1.0))
        half = solve_linear(xp, factor, ones)
        solution = basis @ solve_linear(xp, factor.T, half)  # the min-norm solution x
        total = (lengths * (basis @ ones)).sum()  # Σ g_t·(Û⁺ 1)
    square = (half * half).sum()  # ‖Û⁺ 1‖², about 1/t² or more unless the gradients cancel
    return solution * inverses * xp.where(square > 1e-12, total / square, 0.0)
