"""The direction that has the same positive cosine with every task's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.gradients import JacobianWeighting
from mtlcli.weighting.gramian import units
from mtlcli.weighting.rows import block_width


@weightings.register("conflict_free")
class ConFIG(JacobianWeighting):
    """ConFIG: the update has the same cosine with every task's gradient, and a positive one.

    Liu, Chu and Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks", ICLR 2025,
    equations 2 and 3, with U(g) = g/‖g‖ and Û [t, P] the unit gradients:

        g_v = U(Û⁺ 1),    update = (Σ_t g_t·g_v) g_v

    It is Jᵀw with w_t = s x_t / ‖g_t‖, x = (Û Ûᵀ)⁺ 1. The scale is the method's own, and that of the sum of the tasks:
    t tasks alike get their sum, orthogonal ones a shorter update. A scaling of one task's loss changes the update's
    length only. Promised, where the gradients are linearly independent: equal positive cosines, so no conflict.

    Û Ûᵀ is squared, so it is made here in float64, whatever the device's precision of matrix products: the rank of Û
    and near-opposed gradients are beyond float32. The pseudoinverse is by a Cholesky factorization with pivots and a QR
    of its factor, which are a fixed number of steps. A gradient counts as a combination of the others where its
    direction is within 3e-6 of their span (an angle, in radians), which float32 can't tell from 0.

    Deviations: where all gradients cancel (two that are opposed) the direction isn't defined and the update is 0; zero
    gradients are left out, and get the weight 0. TorchJD's rank tolerance grows with P: at 400 000 float32 parameters
    it finds no direction between two tasks with a cosine of −0.999, and this does.
    """

    @torch.no_grad()
    def update(
        self, jacobian: Tensor, gramian: Tensor, losses: Tensor, present: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See `JacobianWeighting.update`."""
        products, kind = torch.zeros_like(gramian), gramian.dtype
        blocks = torch.split(jacobian.to(kind) if jacobian.numel() <= 2**20 else jacobian, block_width(jacobian), 1)
        for block in blocks:
            rows = block.to(kind)
            products.addmm_(rows, rows.T)
        weights = self.solve(products)
        update = torch.cat([(weights @ block.to(kind)).to(jacobian.dtype) for block in blocks])
        return update, weights

    @staticmethod
    def solve(gramian: Tensor) -> Tensor:
        """The weights [t] from G = J Jᵀ."""
        rest, lengths, inverses = units(gramian)  # what of Û Ûᵀ the columns so far don't make up
        columns, pivots = [], []
        for _ in range(len(lengths)):
            largest, pivot = rest.diagonal().max(0, keepdim=True)
            column = rest.index_select(1, pivot) * largest.rsqrt()
            rest = rest.addcmul(column, column.T, value=-1)
            columns.append(column)
            pivots.append(largest)
        # A pivot is a squared distance from the others' span. They never rise: the columns from the first that is 0 on
        # don't count, whatever is in them.
        full = torch.cat(pivots) > torch.finfo(gramian.dtype).eps ** 0.7
        rank = full.to(gramian.dtype)
        basis, factor = torch.linalg.qr(torch.where(full, torch.cat(columns, 1), 0.0))  # Û Ûᵀ = B F Fᵀ Bᵀ
        ones = basis.sum(0) * rank  # Bᵀ 1
        factor = factor + (1 - rank).diag()
        half = torch.linalg.solve_triangular(factor, ones[:, None], upper=True)
        solution: Tensor = basis @ torch.linalg.solve_triangular(factor.T, half, upper=False)  # x, of the least norm
        direction = half.square().sum()  # ‖Û⁺ 1‖², at least about 1/t² unless the gradients cancel
        total = (lengths * (basis @ ones)).sum()  # Σ g_t·(Û⁺ 1)
        scale = torch.where(direction > 1e-12, total / direction.clamp(min=1e-12), 0.0)
        return solution[:, 0] * inverses * scale
