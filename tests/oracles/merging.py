"""Merging of models fine-tuned from a common start, from the papers' equations, in float64 NumPy.

Each function takes flat parameter vectors and returns one. Independent of `mtlcli` and torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(models: Sequence[Array]) -> Array:
    """Wortsman et al. 2022, the uniform soup: 1/T Σ θ_t."""
    return sum(models) / len(models)  # type: ignore[return-value]


def task_arithmetic(start: Array, models: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """Ilharco et al. 2023, section 2: θ_0 + Σ λ_t (θ_t − θ_0)."""
    merged = start.copy()
    for model, coefficient in zip(models, coefficients, strict=True):
        merged = merged + coefficient * (model - start)
    return merged


def trim(vector: Array, density: float) -> Array:
    """Keep the ⌈density · P⌉ entries of largest magnitude, and those that equal the smallest of them in magnitude."""
    count = int(np.ceil(density * len(vector)))
    threshold = np.sort(np.abs(vector))[len(vector) - count]
    return np.where(np.abs(vector) >= threshold, vector, 0.0)


def elect_and_average(vectors: Sequence[Array]) -> Array:
    """Yadav et al. 2023, algorithm 1, steps 2 and 3, one parameter at a time."""
    merged = np.zeros(len(vectors[0]))
    for p in range(len(merged)):
        sign = np.sign(sum(vector[p] for vector in vectors))
        agreeing = [vector[p] for vector in vectors if vector[p] != 0 and np.sign(vector[p]) == sign]
        merged[p] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return merged


def ties(start: Array, models: Sequence[Array], density: float, coefficient: float) -> Array:
    """Yadav et al. 2023, algorithm 1: θ_0 + λ τ_m."""
    return start + coefficient * elect_and_average([trim(model - start, density) for model in models])


def dare(start: Array, models: Sequence[Array], masks: Sequence[Array], drop: float) -> list[Array]:
    """Yu et al. 2024, equation 1: θ_0 + (1 − m_t) ⊙ δ_t / (1 − p) of each model; masks are 1 where δ is dropped."""
    return [start + (1 - mask) * (model - start) / (1 - drop) for model, mask in zip(models, masks, strict=True)]
