"""UPGrad and DualProj from their quadratic programs, in float64 NumPy, independent of `mtlcli`, torch and torchjd.

min vᵀ G v subject to v ≥ u is solved by quadprog and, for few tasks, by enumerating all active sets. In the scale of
the sum of the tasks.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import quadprog  # type: ignore[import-not-found]
from numpy.typing import NDArray

Array = NDArray[np.float64]


def regular(gramian: Array, norm_eps: float = 1e-4, reg_eps: float = 1e-4) -> Array:
    """Return the G of the quadratic program: trace 1 (0 if it is below norm_eps), plus reg_eps on the diagonal."""
    trace = float(np.trace(gramian))
    normalized = gramian / trace if trace >= norm_eps and trace > 0 else np.zeros_like(gramian)
    return normalized + reg_eps * np.eye(len(gramian))


def project(gramian: Array, u: Array) -> Array:
    """Return argmin vᵀ G v subject to v ≥ u, by quadprog (the dual method of Goldfarb and Idnani)."""
    solution: Array = quadprog.solve_qp(gramian, np.zeros(len(u)), np.eye(len(u)), u)[0]
    return solution


def project_by_trying(gramian: Array, u: Array) -> Array:
    """Return argmin vᵀ G v subject to v ≥ u, by enumerating the sets of entries with v = u, others with G v = 0."""
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
    """Return the weights of the sum of all projected gradients (Quinton and Rey 2024, equation 3 and proposition 1)."""
    matrix = regular(gramian, norm_eps, reg_eps)
    result: Array = np.array([project(matrix, unit) for unit in np.eye(len(matrix))]).sum(0)
    return result


def dualproj(gramian: Array, norm_eps: float = 1e-4, reg_eps: float = 1e-4) -> Array:
    """Return the weights of the projected sum of the gradients (Lopez-Paz and Ranzato 2017, equation 11)."""
    return project(regular(gramian, norm_eps, reg_eps), np.ones(len(gramian)))
