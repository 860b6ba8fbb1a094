"""Weightings with averaged or tracked gradients from the equations of their papers, in float64 loops.

Each takes a history with one entry per step and returns the update of every step, in the scale of the sum of the
tasks. All tasks are present. Independent of `mtlcli` and torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def project(vector: Array) -> Array:
    """Return the point of the simplex nearest to `vector`: max(v − τ, 0), with τ by bisection."""
    low, high = float(vector.max()) - 1.0, float(vector.max())
    for _ in range(70):
        middle = (low + high) / 2
        if np.maximum(vector - middle, 0.0).sum() > 1:
            low = middle
        else:
            high = middle
    return np.array([max(entry - high, 0.0) for entry in vector])


def moco(
    history: Sequence[Array], beta: float, beta_decay: float, gamma: float, gamma_decay: float, rho: float
) -> list[tuple[Array, Array]]:
    """Fernando et al. 2023, algorithm 1. Also returns the weights T λ of every step."""
    tasks, size = history[0].shape
    tracked = np.zeros((tasks, size))
    shares = np.array([1 / tasks] * tasks)
    results = []
    for k, gradients in enumerate(history, start=1):
        for task in range(tasks):
            tracked[task] = tracked[task] - beta / k**beta_decay * (tracked[task] - gradients[task])
        products = np.array([[tracked[i] @ tracked[j] for j in range(tasks)] for i in range(tasks)])
        regularized = products + rho * np.eye(tasks)
        shares = project(shares - gamma / k**gamma_decay * (regularized @ shares))
        update = np.zeros(size)
        for task in range(tasks):
            update += tasks * shares[task] * tracked[task]
        results.append((update, tasks * shares))
    return results


def sdmgrad(
    history: Sequence[Array], step_size: float, iterations: int, regularization: float
) -> list[tuple[Array, Array]]:
    """Xiao et al. 2023, algorithm 1, with [3, T, P] gradients per step; β is `step_size` / the largest row sum of |A|.

    Also returns the weights w + λ/T of every step, scaled to sum to T.
    """
    tasks = history[0].shape[1]
    shares = np.array([1 / tasks] * tasks)
    results = []
    for first, second, third in history:
        products = np.array([[first[i] @ second[j] for j in range(tasks)] for i in range(tasks)])
        largest = max(sum(abs(entry) for entry in row) for row in products)
        for _ in range(iterations):
            direction = sum(shares[task] * second[task] for task in range(tasks)) + regularization * second.mean(0)
            slopes = np.array([first[task] @ direction for task in range(tasks)])
            shares = project(shares - step_size / largest * slopes)
        update = sum(shares[task] * third[task] for task in range(tasks)) + regularization * third.mean(0)
        factor = tasks / (1 + regularization)
        results.append((factor * np.asarray(update), factor * (shares + regularization / tasks)))
    return results


def db_mtl(history: Sequence[Array], losses: Sequence[Array], beta: float, beta_decay: float) -> list[Array]:
    """Lin et al. 2023, algorithm 1."""
    tasks, size = history[0].shape
    averages = np.zeros((tasks, size))
    results = []
    for k, (gradients, values) in enumerate(zip(history, losses, strict=True), start=1):
        forgetting = beta / k**beta_decay
        for task in range(tasks):
            of_logarithm = gradients[task] / (values[task] + 1e-8)
            averages[task] = forgetting * averages[task] + (1 - forgetting) * of_logarithm
        norms = [math.sqrt(sum(entry**2 for entry in row)) for row in averages]
        update = np.zeros(size)
        for task in range(tasks):
            update += max(norms) * averages[task] / norms[task]
        results.append(update)
    return results


def excess_mtl(history: Sequence[Array], robust_step_size: float, warmup_steps: int) -> list[Array]:
    """He et al. 2024, equations 6, 7 and 9, with weights that start at 1 and sum to T; returns those of every step."""
    tasks, size = history[0].shape
    squares = np.zeros((tasks, size))
    weights = np.ones(tasks)
    baselines: list[Array] = []
    results = []
    for gradients in history:
        excess = np.zeros(tasks)
        for task in range(tasks):
            for entry in range(size):
                squares[task, entry] += gradients[task, entry] ** 2
                excess[task] += gradients[task, entry] ** 2 / math.sqrt(squares[task, entry] + 1e-7)
        if len(baselines) < warmup_steps:
            baselines.append(excess)
        else:
            baseline = sum(baselines) / warmup_steps
            weights = weights * np.exp(robust_step_size * excess / baseline)
            weights = tasks * weights / weights.sum()
        results.append(weights)
    return results
