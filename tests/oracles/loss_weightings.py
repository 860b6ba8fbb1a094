"""Loss-level weightings from the equations of their papers, in float64 NumPy, independent of `mtlcli` and torch.

Each returns (objective, weights): the weights are the derivatives of the objective with respect to the losses, in the
scale of the sum of the tasks (weights that sum to 1 in the paper are multiplied by T), except for GLS.
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
    """Kendall et al. 2018: L/(2σ²) + log σ for a Gaussian (equation 7), L/σ² + log σ for a softmax (equation 10).

    Also returns the derivative with respect to each s = log σ².
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
    """Liu et al. 2019, equation 7: the weights of the epoch after those of `history` (epoch → task → loss)."""
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


def imtl_l(losses: Array, scales: Array) -> tuple[float, Array, Array]:
    """Liu et al. 2021, IMTL-L: the sum of e^s L − s. Also returns the derivative with respect to each s."""
    objective, weights, slopes = 0.0, [], []
    for loss, s in zip(losses, scales, strict=True):
        objective += math.exp(s) * loss - s
        weights.append(math.exp(s))
        slopes.append(math.exp(s) * loss - 1)
    return objective, np.array(weights), np.array(slopes)


def stch_warm_up(losses: Array, lambdas: list[float]) -> tuple[float, Array]:
    """Lin et al. 2024, official code: the sum of the log-losses, here with λ of mean 1."""
    tasks = len(losses)
    lambdas = [tasks * weight / sum(lambdas) for weight in lambdas]
    objective = float(sum(weight * math.log(loss) for weight, loss in zip(lambdas, losses, strict=True)))
    return objective, np.array([weight / loss for weight, loss in zip(lambdas, losses, strict=True)])


def stch(losses: Array, lambdas: list[float], nadir: Array, mu: float) -> tuple[float, Array]:
    """Lin et al. 2024: g = μ' log Σ exp(λ_i f_i / μ'), with λ on the simplex, f = log(L / nadir) and z = 0.

    With Λ = T λ (mean 1) and μ = T μ', T μ log Σ exp(Λ_i f_i / μ) is T² g, the official code's objective for equal λ.
    """
    tasks = len(losses)
    simplex = [weight / sum(lambdas) for weight in lambdas]
    own_mu = mu / tasks
    powers = [
        (loss / worst) ** (weight / own_mu) for loss, worst, weight in zip(losses, nadir, simplex, strict=True)
    ]  # exp(λ f / μ')
    g = own_mu * math.log(sum(powers))
    slopes = [power / sum(powers) * weight / loss for power, weight, loss in zip(powers, simplex, losses, strict=True)]
    return tasks**2 * g, np.array([tasks**2 * slope for slope in slopes])
