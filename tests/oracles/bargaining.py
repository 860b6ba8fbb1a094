"""Nash-MTL and FairGrad from their definitions, independent of `mtlcli`.

Jacobians [T, P] and Gramians [T, T] are float64 NumPy arrays.
"""

from __future__ import annotations

import cvxpy
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def residual(gramian: Array, weights: Array, fairness: float = 1.0) -> float:
    """Return max |α^(1/a) (G α) − 1| for the best α proportional to the weights; a is the fairness.

    Navon et al. 2022, equation 2 (a = 1); Ban and Ji 2024, equation 4. The factor s of α = s w follows from the sum of
    the equations times α: s² wᵀGw = s^(1 − 1/a) Σ w^(1 − 1/a).
    """
    total = (weights ** (1 - 1 / fairness)).sum() / (weights @ gramian @ weights)
    alpha = weights * total ** (fairness / (fairness + 1))
    return float(np.abs(alpha ** (1 / fairness) * (gramian @ alpha) - 1).max())


def direction(jacobian: Array, fairness: float = 1.0) -> Array:
    """Return the d, ‖d‖ ≤ 1, that maximizes Σ log g_t·d or Σ (g_t·d)^(1 − a) / (1 − a), by a numerical solver."""
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
    """Solve G α = 1/α for two tasks in closed form.

    The first terms of the two equations are equal, a²‖g_1‖² = b²‖g_2‖², so unit gradients have equal weights.
    """
    lengths = np.sqrt(gramian.diagonal())
    return np.asarray(1 / lengths / (1 / lengths).sum())
