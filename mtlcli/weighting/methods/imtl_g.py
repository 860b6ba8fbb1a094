"""IMTL-G: impartial multi-task learning, gradient balance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.solvers.backend import is_on_host
from mtlcli.weighting.solvers.gramian import normalize_gramian, rank_tolerance


@weightings.register("imtl_g")
class IMTLG(GramianWeighting):
    """IMTL-G: find an update with equal projections onto the unit gradients of all tasks.

    With the gradients g_t and u_t = g_t/‖g_t‖:

        update·u_t is the same for all t,    Σ_t w_t = T

    The paper's closed form, α = g₁ Uᵀ (D Uᵀ)⁻¹ with the rows g₁ − g_t of D and u₁ − u_t of U, equals w_t = x_t/‖g_t‖,
    where C x = μ 1 with the cosine matrix C and the μ for which Σw = T. In this form the solution is accurate however
    unequal the norms are. For two tasks w_t ∝ 1/‖g_t‖, at any angle.

    Linearly dependent gradients: if they cancel, the conditions hold with μ = 0, an update of 0. For two opposed
    gradients, g₂ = −c g₁, the closed form gives w = 2 (c, 1)/(1 + c), and for an additional task w₃ = 0. So if the
    component of 1 in the null space of C, the limit of μ (C + εI)⁻¹ 1 for ε → 0, has no negative entries, it is x, and
    the point is Pareto stationary. For all other dependent gradients (identical tasks, or more tasks than parameters) x
    is the least-squares solution of Quinton and Rey ("Jacobian Descent", 2024) and TorchJD, w ∝ G⁺ (‖g_1‖, …, ‖g_T‖):
    the projections are as equal as possible.

    The weights sum to T, and the direction of the update does not depend on the scale of a single loss, up to its sign.
    Descent is not guaranteed: weights may be negative, and if Σx_t/‖g_t‖ is, the update has the same *negative*
    projection onto all gradients, as in the paper. If it is 0 up to rounding, no weights sum to T, and all of them are
    0. A task with a zero gradient gets weight 0, and the others sum to T.

    Note:
        Deviations from the paper. The paper's weights sum to 1. TorchJD uses least squares for opposed gradients too,
        with weights that are unbounded for c → 1 and an update that increases the second loss; its threshold for a Σw
        of 0 is absolute, so that huge gradients count as 0.

    Args:
        tasks: The T tasks.

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section
        3.
    """

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        tolerance = rank_tolerance(gramian)
        cosines, lengths, inverses = normalize_gramian(torch, gramian)
        ones = torch.where(lengths > 0, 1.0, 0.0).to(gramian.dtype)
        # a zero gradient gets 1 on the diagonal, so that it does not count as linearly dependent
        values, vectors = torch.linalg.eigh(cosines + torch.diag(1.0 - ones))  # ascending
        regular = values > tolerance * values[-1]
        components = ones @ vectors
        solution = vectors @ torch.where(regular, components / values, 0.0)
        cancelling = vectors @ torch.where(regular, 0.0, components)
        # components in the null space below the root of the tolerance are rounding errors of the eigenvectors
        small = tolerance**0.5
        largest = cancelling.max()
        convex = (largest > small) & (cancelling.min() >= -small * largest)
        cancelling = torch.where(cancelling > small * largest, cancelling, 0.0)
        solution = torch.where(convex, cancelling, solution) * inverses
        # on other devices it is always computed: reading whether it is needed would wait
        direct = regular[0] | convex
        if not is_on_host(gramian) or not bool(direct):
            solution = torch.where(direct, solution, _least_squares(gramian, lengths))
        total = solution.sum()
        vanishes = total.abs() <= tolerance * solution.abs().sum()
        return torch.where(vanishes, 0.0, len(gramian) * solution / total)


def _least_squares(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the minimum-norm least-squares solution x [t] of M x = b."""
    tolerance = rank_tolerance(matrix)
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    components = right @ vectors
    # components of b outside of the range of M are rounding errors, which the division would amplify
    kept = (values > tolerance * values[-1]) & (components.abs() > tolerance * right.norm())
    solution: Tensor = vectors @ torch.where(kept, components / values, 0.0)
    return solution
