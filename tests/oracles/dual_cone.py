"""UPGrad and DualProj, from their quadratic programs, in float64 NumPy. Nothing of `mtlcli`, torch or torchjd is used.

min vᵀ G v with v ≥ u is solved by quadprog's QP solver and, for few tasks, by trying every set of active constraints.
In the scale of the sum of the tasks.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import quadprog  # type: ignore[import-not-found]
from numpy.typing import NDArray

Array = NDArray[np.float64]


def regular(gramian: Array, norm_eps: float = 1e-4, reg_eps: float = 1e-4) -> Array:
    """The G of the quadratic program: of trace 1, plus reg_eps on the diagonal; none but that where it is too small."""
    trace = float(np.trace(gramian))
    normalized = gramian / trace if trace >= norm_eps and trace > 0 else np.zeros_like(gramian)
    return normalized + reg_eps * np.eye(len(gramian))


def project(gramian: Array, u: Array) -> Array:
    """argmin vᵀ G v with v ≥ u, by quadprog (Goldfarb and Idnani's dual method)."""
    solution: Array = quadprog.solve_qp(gramian, np.zeros(len(u)), np.eye(len(u)), u)[0]
    return solution


def project_by_trying(gramian: Array, u: Array) -> Array:
    """argmin vᵀ G v with v ≥ u: of all ways to hold some v at u and have (G v) = 0 for the others, the one allowed."""
    best, least = u, float("inf")
    for choice in product([False, True], repeat=len(u)):
        free, v = np.array(choice), u.copy()
        if free.any():
            v[free] = np.linalg.solve(gramian[np.ix_(free, free)], -gramian[np.ix_(free, ~free)] @ u[~free])
        value = float(v @ gramian @ v)
        if (v >= u - 1e-12).all() and value < least:
            best, least = v, value
    return best


def upgrad(gramian: Array, norm_eps: float = 1e-4, reg_eps: float = 1e-4) -> Array:
    """Quinton and Rey 2024, equation 3 and proposition 1: each task's gradient projected, and their sum."""
    matrix = regular(gramian, norm_eps, reg_eps)
    result: Array = np.array([project(matrix, unit) for unit in np.eye(len(matrix))]).sum(0)
    return result


def dualproj(gramian: Array, norm_eps: float = 1e-4, reg_eps: float = 1e-4) -> Array:
    """Lopez-Paz and Ranzato 2017, equation 11: the sum of the tasks' gradients projected."""
    return project(regular(gramian, norm_eps, reg_eps), np.ones(len(gramian)))
