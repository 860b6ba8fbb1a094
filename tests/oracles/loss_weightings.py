"""The loss-level weightings, from their papers' equations, in float64 NumPy. Nothing of `mtlcli` or torch is used.

Each returns (objective, weights), the weights being the derivatives of the objective by the losses, in the scale of
the sum of the tasks (a paper's weights that sum to 1 are multiplied by T), but for GLS, whose paper has no weights.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def uniform(losses: Array) -> tuple[float, Array]:
    return float(sum(losses)), np.array([1.0 for _ in losses])


def fixed(losses: Array, lambdas: list[float]) -> tuple[float, Array]:
    return float(sum(weight * loss for weight, loss in zip(lambdas, losses, strict=True))), np.array(lambdas)


def uncertainty(losses: Array, log_variances: Array, gaussian: list[bool]) -> tuple[float, Array, Array]:
    """Kendall et al. 2018. Gaussian: L/(2σ²) + log σ (their equation 7); softmax: L/σ² + log σ (equation 10).

    Also returns the derivative by each s = log σ².
    """
    objective, weights, slopes = 0.0, [], []
    for loss, s, normal in zip(losses, log_variances, gaussian, strict=True):
        sigma = math.sqrt(math.exp(s))
        weight = 1 / (2 * sigma**2) if normal else 1 / sigma**2
        objective += weight * loss + math.log(sigma)
        weights.append(weight)
        slopes.append(-weight * loss + 0.5)  # d(1/σ²)/ds = −1/σ², d log σ/ds = ½
    return objective, np.array(weights), np.array(slopes)


def dwa(history: list[list[float]], temperature: float = 2.0) -> Array:
    """Liu et al. 2019, equation 7: the weights of the epoch that follows those of `history` (epoch → task → loss)."""
    tasks = len(history[0]) if history else 0
    if len(history) < 2:
        return np.ones(tasks)
    rates = [history[-1][task] / history[-2][task] for task in range(tasks)]
    exponentials = [math.exp(rate / temperature) for rate in rates]
    return np.array([tasks * value / sum(exponentials) for value in exponentials])


def rlw(draw: Array) -> Array:
    """Lin et al. 2022: the softmax of the random numbers, in the scale of the sum."""
    exponentials = [math.exp(z) for z in draw]
    return np.array([len(draw) * value / sum(exponentials) for value in exponentials])


def gls(losses: Array) -> tuple[float, Array]:
    """Chennupati et al. 2019, equation 2; the weights by the product rule."""
    tasks, objective = len(losses), 1.0
    for loss in losses:
        objective *= loss ** (1 / tasks)
    return objective, np.array([objective / (tasks * loss) for loss in losses])
