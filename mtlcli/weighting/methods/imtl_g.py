"""An update that has the same projection on every task's gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.solvers.backend import on_host
from mtlcli.weighting.solvers.gramian import rank_tolerance, units


@weightings.register("imtl_g")
class IMTLG(GramianWeighting):
    """IMTL-G, Impartial Multi-Task Learning's gradient balance: an update that projects equally on all unit gradients.

    Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3,
    with g_t the gradients and u_t = g_t/‖g_t‖:

        update·u_t is the same for all t,    Σ_t w_t = T

    The paper's closed form, α = g₁ Uᵀ (D Uᵀ)⁻¹ with the rows g₁ − g_t of D and u₁ − u_t of U, is the solution of
    C x = μ 1 with the cosines C, w_t = x_t/‖g_t‖ and the μ for which Σw = T. Solved in this form it is exact however
    unequal the norms are. For two tasks w_t ∝ 1/‖g_t‖, whatever the angle.

    Dependent gradients. Where they cancel, the conditions hold with μ = 0, an update of 0: for two opposed gradients,
    g₂ = −c g₁, the closed form gives w = 2 (c, 1)/(1 + c), and for a third task beside them w₃ = 0. So where the part
    of 1 that C maps to 0, which is the limit of μ (C + εI)⁻¹ 1 for ε → 0, has no negative entries, it is x. The point
    is Pareto stationary then. For any other dependent gradients (tasks alike; more tasks than parameters) x is the
    least-squares solution of Quinton and Rey ("Jacobian Descent", 2024) and TorchJD, w ∝ G⁺ (‖g_1‖, …, ‖g_T‖): the
    projections are as equal as they can be.

    Promised: the weights sum to T, and the direction of the update, up to its sign, doesn't change with the scale of
    any single loss. Not promised is descent: a weight may be negative, and where Σx_t/‖g_t‖ is, the update has the same
    *negative* projection on all gradients, as it has in the paper. Where it is 0, to rounding, no weights sum to T, and
    all of them are 0. A task whose gradient is 0 has no direction: its weight is 0, and the others' sum to T.

    Deviations: the paper's weights sum to 1. TorchJD gives least squares for opposed gradients too: weights without
    bound as c goes to 1, and an update that raises the second loss. Its rule for a Σw of 0 is one of absolute size, and
    sets huge gradients to 0.
    """

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        tolerance = rank_tolerance(gramian)
        cosines, lengths, inverses = units(torch, gramian)
        ones = torch.where(lengths > 0, 1.0, 0.0).to(gramian.dtype)
        # On the diagonal a zero gradient gets 1, so that it isn't taken for one that the others cancel.
        values, vectors = torch.linalg.eigh(cosines + torch.diag(1.0 - ones))  # ascending
        regular = values > tolerance * values[-1]
        parts = ones @ vectors
        solution = vectors @ torch.where(regular, parts / values, 0.0)
        cancelling = vectors @ torch.where(regular, 0.0, parts)
        # A part of 1 in the null space below the root of the tolerance is the eigenvectors' rounding.
        small = tolerance**0.5
        largest = cancelling.max()
        convex = (largest > small) & (cancelling.min() >= -small * largest)
        cancelling = torch.where(cancelling > small * largest, cancelling, 0.0)
        solution = torch.where(convex, cancelling, solution) * inverses
        # Elsewhere than on the CPU, reading whether it is needed would wait for the device.
        direct = regular[0] | convex
        if not on_host(gramian) or not bool(direct):
            solution = torch.where(direct, solution, _least_squares(gramian, lengths))
        total = solution.sum()
        vanishes = total.abs() <= tolerance * solution.abs().sum()
        return torch.where(vanishes, 0.0, len(gramian) * solution / total)


def _least_squares(matrix: Tensor, right: Tensor) -> Tensor:
    """The shortest x [t] of the least |M x − b|."""
    tolerance = rank_tolerance(matrix)
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    parts = right @ vectors
    # A part of b outside the range of M is 0 but for rounding, which would be magnified.
    kept = (values > tolerance * values[-1]) & (parts.abs() > tolerance * right.norm())
    solution: Tensor = vectors @ torch.where(kept, parts / values, 0.0)
    return solution
