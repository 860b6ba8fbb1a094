"""Nash-MTL and FairGrad, from their definitions. Nothing of `mtlcli` is used.

Jacobians [T, P] and Gramians [T, T] are float64 NumPy arrays.
"""

from __future__ import annotations

import cvxpy
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def residual(gramian: Array, weights: Array, fairness: float = 1.0) -> float:
    """max |α^(1/a) (G α) − 1| for the α in proportion to the weights that comes nearest; fairness 1: |α (G α) − 1|.

    Navon et al. 2022, equation 2 (a = 1); Ban and Ji 2024, equation 4. The factor s, α = s w, from the sum of the
    equations times α: s² wᵀGw = s^(1 − 1/a) Σ w^(1 − 1/a).
    """
    total = (weights ** (1 - 1 / fairness)).sum() / (weights @ gramian @ weights)
    alpha = weights * total ** (fairness / (fairness + 1))
    return float(np.abs(alpha ** (1 / fairness) * (gramian @ alpha) - 1).max())


def direction(jacobian: Array, fairness: float = 1.0) -> Array:
    """What the α is for: the d, ‖d‖ ≤ 1, with the greatest Σ log g_t·d, or Σ (g_t·d)^(1 − a) / (1 − a); by a solver."""
    step = cvxpy.Variable(jacobian.shape[1])
    gains = jacobian @ step
    if fairness == 1:
        utility = cvxpy.sum(cvxpy.log(gains))
    else:
        utility = cvxpy.sum(cvxpy.power(gains, 1 - fairness)) / (1 - fairness)
    problem = cvxpy.Problem(cvxpy.Maximize(utility), [cvxpy.norm(step, 2) <= 1])
    problem.solve(cvxpy.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return np.asarray(step.value)


def two_tasks(gramian: Array) -> Array:
    """G α = 1/α for two tasks, in closed form: the two equations' first terms are the same, a²‖g_1‖² = b²‖g_2‖², so the
    weights are as 1 to 1 for gradients of length 1."""
    lengths = np.sqrt(gramian.diagonal())
    return np.asarray(1 / lengths / (1 / lengths).sum())
