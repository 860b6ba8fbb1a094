"""GradNorm, algorithm 1 of its paper, in float64 NumPy loops, independent of `mtlcli` and torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def objective(weights: Array, norms: Array, targets: Array) -> float:
    """Return L_grad = Σ |G_i − Ḡ r_i^α| with G_i = w_i‖∇L_i‖ for given targets (Chen et al. 2018, equation 2)."""
    return float(sum(abs(w * n - target) for w, n, target in zip(weights, norms, targets, strict=True)))


def targets(weights: Array, norms: Array, losses: Array, first: Array, alpha: float) -> Array:
    """Return the targets Ḡ r_i^α of the G_i."""
    mean_norm = sum(w * n for w, n in zip(weights, norms, strict=True)) / len(norms)
    ratios = [loss / initial for loss, initial in zip(losses, first, strict=True)]
    mean_ratio = sum(ratios) / len(ratios)
    return np.array([mean_norm * (ratio / mean_ratio) ** alpha for ratio in ratios])


class GradNorm:
    """The weights of T tasks that are present in every step."""

    def __init__(self, tasks: int, alpha: float = 1.5, lr: float = 0.025) -> None:
        self.alpha, self.lr = alpha, lr
        self.weights = np.ones(tasks)
        self.first: Array | None = None
        self.mean, self.square, self.steps = np.zeros(tasks), np.zeros(tasks), 0

    def step(self, norms: Array, losses: Array) -> Array:
        """Return the weights of this step; then update them by Adam on L_grad and normalize to Σw = T."""
        if self.first is None:
            self.first = losses.copy()
        used = self.weights.copy()
        aims = targets(used, norms, losses, self.first, self.alpha)
        self.steps += 1
        for i in range(len(used)):
            excess = used[i] * norms[i] - aims[i]
            gradient = norms[i] * (int(excess > 0) - int(excess < 0))  # d|w n − target|/dw, the target a constant
            self.mean[i] = 0.9 * self.mean[i] + 0.1 * gradient
            self.square[i] = 0.999 * self.square[i] + 0.001 * gradient**2
            mean, square = self.mean[i] / (1 - 0.9**self.steps), self.square[i] / (1 - 0.999**self.steps)
            self.weights[i] -= self.lr * mean / (math.sqrt(square) + 1e-8)
        self.weights = len(used) * self.weights / self.weights.sum()
        return used
