"""The seed document's objective of related tasks, literally, in float64 NumPy. Nothing of `mtlcli` or torch is used."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def objective(losses: Array, lambdas: list[float], relations: Array) -> float:
    """Σ_i Σ_j R_ij λ_i λ_j L_i L_j."""
    total = 0.0
    for i in range(len(losses)):
        for j in range(len(losses)):
            total += relations[i, j] * lambdas[i] * lambdas[j] * losses[i] * losses[j]
    return total


def weights(losses: Array, lambdas: list[float], relations: Array) -> Array:
    """Its derivative by each loss, by the product rule: 2 λ_i Σ_j R_ij λ_j L_j for a symmetric R."""
    found = np.zeros(len(losses))
    for i in range(len(losses)):
        for j in range(len(losses)):
            term = relations[i, j] * lambdas[i] * lambdas[j]
            found[i] += term * losses[j]
            found[j] += term * losses[i]
    return found


def clipped(relations: Array) -> Array:
    """Higham 1988: (B + H) / 2, with H the polar factor of the symmetric B = U S Vᵀ, H = V S Vᵀ.

    It is B without its negative eigenvalues, made here from the singular values.
    """
    _, values, right = np.linalg.svd(relations)
    polar: Array = right.T @ np.diag(values) @ right
    return (relations + polar) / 2
