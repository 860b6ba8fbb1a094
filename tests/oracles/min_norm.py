"""The min-norm point of a convex hull (MGDA) and CAGrad's direction by definition, independent of `mtlcli`.

Jacobians [T, P] and Gramians [T, T] are float64 NumPy arrays.
"""

from __future__ import annotations

import cvxpy
import numpy as np
import quadprog
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


def two_tasks(first: Array, second: Array) -> Array:
    """Return the weights of the min-norm point of two gradients (Désidéri 2012; Sener and Koltun 2018, algorithm 1)."""
    difference = first - second
    alpha = min(max(float((second - first) @ second / (difference @ difference)), 0.0), 1.0)
    return np.array([alpha, 1 - alpha])


def shortest(jacobian: Array) -> Array:
    """Return the min-norm point of the hull [P] for any rank.

    The z ≥ 0 that minimizes ‖Jᵀz‖² + (1 − Σz)², divided by its sum, gives the weights.
    """
    unit = jacobian / np.abs(jacobian).max()
    system = np.vstack([unit.T, np.ones(len(unit))])
    z, _ = nnls(system, np.append(np.zeros(unit.shape[1]), 1.0), maxiter=10_000)
    return np.asarray((z / z.sum()) @ jacobian)


def weights_of_the_shortest(gramian: Array) -> Array:
    """Solve min ½ wᵀGw, w ≥ 0, Σw = 1 as a quadratic program, for G of full rank."""
    count = len(gramian)
    constraints = np.hstack([np.ones((count, 1)), np.eye(count)])
    return np.asarray(quadprog.solve_qp(gramian, np.zeros(count), constraints, np.eye(count + 1)[0], 1)[0])


def optimality(gramian: Array, weights: Array) -> float:
    """Return the violation of Gw ≥ wᵀGw, which holds at the minimum, relative to G's diagonal."""
    products = gramian @ weights
    return float((weights @ products - products.min()) / gramian.diagonal().mean())


def conflict_averse(jacobian: Array, c: float) -> tuple[Array, float]:
    """Return the d, ‖d − g_0‖ ≤ c ‖g_0‖, that maximizes min_t g_t·d, and the maximum (Liu et al. 2021, equation 3)."""
    mean = jacobian.mean(0)
    direction, worst = cvxpy.Variable(jacobian.shape[1]), cvxpy.Variable()
    ball = cvxpy.norm(direction - mean, 2) <= c * np.linalg.norm(mean)
    cvxpy.Problem(cvxpy.Maximize(worst), [jacobian @ direction >= worst, ball]).solve(
        cvxpy.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10
    )
    return np.asarray(direction.value), float(worst.value)


def conflict_averse_bound(jacobian: Array, weights: Array, c: float) -> float:
    """Return the dual bound g_ω·g_0 + c‖g_0‖‖g_ω‖ ≥ min_t g_t·d for all d in the ball, with ω on the simplex."""
    mean, combined = jacobian.mean(0), weights @ jacobian
    return float(combined @ mean + c * np.linalg.norm(mean) * np.linalg.norm(combined))
