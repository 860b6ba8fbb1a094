"""The objective of the relation weighting by its definition, in float64 NumPy, independent of `mtlcli` and torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def objective(losses: Array, lambdas: list[float], relations: Array) -> float:
    """Return Σ_i Σ_j R_ij λ_i λ_j L_i L_j."""
    total = 0.0
    for i in range(len(losses)):
        for j in range(len(losses)):
            total += relations[i, j] * lambdas[i] * lambdas[j] * losses[i] * losses[j]
    return total


def weights(losses: Array, lambdas: list[float], relations: Array) -> Array:
    """Return its derivative with respect to each loss by the product rule, 2 λ_i Σ_j R_ij λ_j L_j for a symmetric R."""
    result = np.zeros(len(losses))
    for i in range(len(losses)):
        for j in range(len(losses)):
            term = relations[i, j] * lambdas[i] * lambdas[j]
            result[i] += term * losses[j]
            result[j] += term * losses[i]
    return result


def clipped(relations: Array) -> Array:
    """Return the nearest positive semidefinite matrix (B + H) / 2, with the polar factor H of B (Higham 1988).

    It is B = U S Vᵀ without its negative eigenvalues, computed from the singular values: H = V S Vᵀ.
    """
    _, values, right = np.linalg.svd(relations)
    polar: Array = right.T @ np.diag(values) @ right
    return (relations + polar) / 2
