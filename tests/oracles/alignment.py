"""Aligned-MTL and IMTL-G from the equations of their papers, in float64 NumPy, independent of `mtlcli` and torch.

They use the Jacobian J [T, P] instead of its Gramian, in the scale of the sum of the tasks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def aligned_jacobian(jacobian: Array, scale: str = "min") -> tuple[Array, Array]:
    """Return the aligned Jacobian and the matrix of its weights (Senushkin et al. 2023, algorithm 1).

    With the compact J = U Σ Vᵀ, singular values above 1e-6 of the largest, it is σ U Vᵀ = B J.
    """
    left, values, right = np.linalg.svd(jacobian, full_matrices=False)
    kept = values > 1e-6 * values[0]
    left, values, right = left[:, kept], values[kept], right[kept]
    squares = values**2  # the eigenvalues of the Gramian, the largest first
    square = {"min": squares[-1], "median": np.sort(squares)[(len(squares) - 1) // 2], "rmse": squares.mean()}[scale]
    sigma = np.sqrt(square)
    return sigma * left @ right, sigma * (left / values) @ left.T


def aligned_mtl(jacobian: Array, scale: str = "min") -> Array:
    """Return the weights of the sum of the aligned gradients."""
    return aligned_jacobian(jacobian, scale)[1] @ np.ones(len(jacobian))


def imtl_g(jacobian: Array) -> Array:
    """Return the weights of IMTL-G: α₂..α_T = g₁Uᵀ(DUᵀ)⁻¹, α₁ = 1 − Σ, with rows g₁ − g_t of D and u₁ − u_t of U."""
    tasks = len(jacobian)
    if tasks == 1:
        return np.ones(1)
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    differences, directions = jacobian[0] - jacobian[1:], units[0] - units[1:]
    others = np.linalg.solve((differences @ directions.T).T, directions @ jacobian[0])
    return tasks * np.concatenate([[1 - others.sum()], others])


def cancelling(jacobian: Array) -> Array | None:
    """Return the projection [T] of 1 onto the left null space of the unit gradients if it is a convex combination.

    The null space belongs to the singular values below 1e-6 of the largest. None if the projection is 0 or has
    negative entries.
    """
    units = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
    left, values, _ = np.linalg.svd(units)
    rank = int((values > 1e-6 * values[0]).sum())
    component: Array = left[:, rank:] @ left[:, rank:].sum(0)
    return component if component.max() > 1e-6 and component.min() > -1e-6 else None


def imtl_g_of_dependent_gradients(jacobian: Array) -> Array:
    """Return the weights of dependent gradients: of a vanishing combination, else those of Quinton and Rey 2024.

    The latter are v = G⁺d with the norms d, divided by its sum. Zero gradients do not take part.
    """
    lengths = np.linalg.norm(jacobian, axis=1)
    component = cancelling(jacobian) if lengths.all() else None
    if component is None:
        solution = np.linalg.pinv(jacobian @ jacobian.T, rcond=1e-12, hermitian=True) @ lengths
    else:
        solution = component / lengths
    result: Array = len(jacobian) * solution / solution.sum()
    return result


def projections(update: Array, jacobian: Array) -> Array:
    """Return the projections of the update onto the unit gradients, [T]."""
    result: Array = (jacobian @ update) / np.linalg.norm(jacobian, axis=1)
    return result
