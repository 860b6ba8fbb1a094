"""Norms of matrices and their minimizers from their equations, in float64 NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nuclear(w: Array) -> float:
    """Σ σ_i, as tr √(WᵀW): the roots of the smaller Gram matrix's eigenvalues."""
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    return float(np.sqrt(np.clip(np.linalg.eigvalsh(gram), 0, None)).sum())


def multi_nuclear(u: Array, v: Array) -> float:
    """Σ_r ‖u_r‖ ‖v_r‖ of U [m, R] and V [n, R]."""
    return float(sum(np.linalg.norm(u[:, r]) * np.linalg.norm(v[:, r]) for r in range(u.shape[1])))


def soft_thresholded(x: Array, strength: float) -> Array:
    """argmin_W ½‖X − W‖²_F + strength ‖W‖_*: the singular values, each less by the strength, and none below 0.

    Cai, Candès and Shen, A singular value thresholding algorithm for matrix completion, 2010, theorem 2.1.
    """
    p, s, q = np.linalg.svd(x, full_matrices=False)
    return np.asarray((p * np.clip(s - strength, 0, None)) @ q)


def tail(x: Array, rank: int) -> float:
    """The Frobenius distance of X to the nearest matrix of that rank (Eckart and Young)."""
    return float(np.sqrt((np.linalg.svd(x, compute_uv=False)[rank:] ** 2).sum()))


def shrunk(a: float, b: float, step: float) -> float:
    """min over a', b' ≥ 0 of ½(a' − a)² + ½(b' − b)² + step a' b', by search on finer and finer grids."""
    best, low, high = np.inf, np.zeros(2), np.array([a, b]) + 1e-9
    for _ in range(30):
        grids = [np.linspace(lo, hi, 9) for lo, hi in zip(low, high, strict=True)]
        values = {(x, y): (x - a) ** 2 / 2 + (y - b) ** 2 / 2 + step * x * y for x, y in product(*grids)}
        nearest = np.array(min(values, key=values.__getitem__))
        best, width = min(best, *values.values()), (high - low) / 4
        low, high = np.clip(nearest - width, 0, None), nearest + width
    return float(best)


def soft_orthogonality(w: Array) -> float:
    """‖Gram − I‖²_F of the rows or the columns, whichever are fewer: Σ (σ² − 1)²."""
    return float(((np.linalg.svd(w, compute_uv=False) ** 2 - 1) ** 2).sum())
