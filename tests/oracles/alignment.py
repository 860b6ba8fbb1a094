"""Aligned-MTL and IMTL-G, from their papers' equations, in float64 NumPy. Nothing of `mtlcli` or torch is used.

They start from the Jacobian J [T, P], not from its Gramian, and are in the scale of the sum of the tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def aligned_jacobian(jacobian: Array, scale: str = "min") -> tuple[Array, Array]:
    """Senushkin et al. 2023, algorithm 1: (the aligned Jacobian, its weights' matrix).

    With J = U Σ Vᵀ (compact, only the singular values above 1e-6 of the largest) it is σ U Vᵀ = B J.
    """
    left, values, right = np.linalg.svd(jacobian, full_matrices=False)
    kept = values > 1e-6 * values[0]
    left, values, right = left[:, kept], values[kept], right[kept]
    squares = values**2  # the eigenvalues of the Gramian, the largest first
    square = {"min": squares[-1], "median": np.sort(squares)[(len(squares) - 1) // 2], "rmse": squares.mean()}[scale]
    sigma = np.sqrt(square)
    return sigma * left @ right, sigma * (left / values) @ left.T


def aligned_mtl(jacobian: Array, scale: str = "min") -> Array:
    """The weights of the sum of the aligned gradients."""
    return aligned_jacobian(jacobian, scale)[1] @ np.ones(len(jacobian))


def imtl_g(jacobian: Array) -> Array:
    """Liu et al. 2021, IMTL-G: α₂..α_T = g₁Uᵀ(DUᵀ)⁻¹ and α₁ = 1 − Σ, D's rows g₁ − g_t and U's rows u₁ − u_t."""
    tasks = len(jacobian)
    if tasks == 1:
        return np.ones(1)
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    differences, directions = jacobian[0] - jacobian[1:], units[0] - units[1:]
    others = np.linalg.solve((differences @ directions.T).T, directions @ jacobian[0])
    return tasks * np.concatenate([[1 - others.sum()], others])


def cancelling(jacobian: Array) -> Array | None:
    """The part [T] of 1 that is in the left null space of the unit gradients, where it is a convex combination of them.

    These are the singular vectors whose values are below 1e-6 of the largest. None where it is 0 or has negative
    entries.
    """
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(units)
    rank = int((values > 1e-6 * values[0]).sum())
    part: Array = left[:, rank:] @ left[:, rank:].sum(0)
    return part if part.max() > 1e-6 and part.min() > -1e-6 else None


def imtl_g_of_dependent_gradients(jacobian: Array) -> Array:
    """The weights of gradients that cancel, Jᵀw = 0; otherwise those of Quinton and Rey 2024 (IMTL-G for dependent
    rows): v = G⁺d with d the norms, divided by its sum. A zero gradient has no part in it."""
    lengths = np.linalg.norm(jacobian, axis=1)
    part = cancelling(jacobian) if lengths.all() else None
    if part is None:
        solution = np.linalg.pinv(jacobian @ jacobian.T, rcond=1e-12, hermitian=True) @ lengths
    else:
        solution = part / lengths
    result: Array = len(jacobian) * solution / solution.sum()
    return result


def projections(update: Array, jacobian: Array) -> Array:
    """The update's projections on the tasks' unit gradients, [T]."""
    result: Array = (jacobian @ update) / np.linalg.norm(jacobian, axis=1)
    return result
