"""Weightings that modify the gradients one by one, from their papers, in float64 NumPy.

Plain loops over the gradient vectors without a Gramian, independent of `mtlcli` and torch. Each returns the update, in
the scale of the sum of the tasks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Orders = Sequence[Sequence[int]]


def pcgrad(gradients: Array, orders: Orders) -> Array:
    """Yu et al. 2020, algorithm 1. orders[i]: the other tasks in the order in which task i meets them."""
    projected = []
    for i, order in enumerate(orders):
        running = gradients[i].copy()
        for j in order:
            other = gradients[j]  # the original gradient of task j, not its projected one
            product = float(running @ other)
            if product < 0:
                running = running - product / float(other @ other) * other
        projected.append(running)
    return np.sum(projected, axis=0)  # type: ignore[no-any-return]


def gradvac(gradients: Array, targets: Array, orders: Orders, beta: float) -> tuple[Array, Array]:
    """Wang et al. 2021, algorithm 1 with one component (the whole model). targets [T, T]: φ̂ before the step.

    Returns (update, new targets). Pairs with an undefined cosine are skipped; a running gradient that has shrunk to a
    millionth of the original one counts as 0, and φ̂/√(1−φ̂²) is at most 100.
    """
    targets, vaccinated = targets.copy(), []
    for i, order in enumerate(orders):
        running = gradients[i].copy()
        for j in order:
            other = gradients[j]
            length, length_other = math.sqrt(float(running @ running)), math.sqrt(float(other @ other))
            if length_other == 0 or length <= 1e-6 * math.sqrt(float(gradients[i] @ gradients[i])):
                continue
            cosine = max(-1.0, min(1.0, float(running @ other) / (length * length_other)))
            target = targets[i, j]
            if cosine < target:
                sine_target = max(math.sqrt(max(0.0, 1 - target**2)), abs(target) / 100)
                factor = (
                    length * (target * math.sqrt(1 - cosine**2) - cosine * sine_target) / (length_other * sine_target)
                )
                running = running + max(0.0, factor) * other
            targets[i, j] = (1 - beta) * target + beta * cosine
        vaccinated.append(running)
    return np.sum(vaccinated, axis=0), targets


def graddrop(gradients: Array, uniform: Array, leak: float = 0.0) -> tuple[Array, Array]:
    """Chen et al. 2020, algorithm 1 without the sign of the input. uniform [P]: the random numbers.

    Returns (update, the fraction of each task's squared gradient that was kept, 1 for a zero gradient).
    """
    update, kept, whole = np.zeros(gradients.shape[1]), np.zeros(len(gradients)), np.zeros(len(gradients))
    for p in range(gradients.shape[1]):
        size = sum(abs(g) for g in gradients[:, p])
        if size == 0:
            continue
        purity = 0.5 * (1 + sum(gradients[:, p]) / size)
        for i, g in enumerate(gradients[:, p]):
            mask = (purity > uniform[p]) * (g > 0) + (purity < uniform[p]) * (g < 0)
            factor = leak + (1 - leak) * mask
            update[p] += factor * g
            kept[i] += factor * g**2
            whole[i] += g**2
    return update, np.array([k / w if w > 0 else 1.0 for k, w in zip(kept, whole, strict=True)])


def config(gradients: Array, relative: float = 1e-5) -> Array:
    """Liu et al. 2025, equations 2 and 3, by the pseudoinverse (SVD) of the unit gradients.

    relative: singular values below this fraction of the largest count as 0.
    """
    units = np.array([g / np.linalg.norm(g) if np.linalg.norm(g) > 0 else g for g in gradients])
    direction = np.linalg.pinv(units, rcond=relative) @ np.ones(len(units))
    if np.linalg.norm(direction) < 1e-6:  # only where the tasks cancel: each alone asks for a length of at least 1
        return np.zeros_like(direction)
    direction = direction / np.linalg.norm(direction)
    return sum(float(g @ direction) for g in gradients) * direction
