"""The measures of `mtl relate`, written from their equations with loops, in NumPy float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


def pearson(x: Array, y: Array) -> float:
    """Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² Σ (y − ȳ)²)."""
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    together = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    alone = sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y)
    return float(together / math.sqrt(alone))


def linear_model(x: Array, targets: Array, heads: Array, w: Array, lr: float) -> tuple[Array, Array, Array]:
    """Tasks of a linear trunk and fixed linear heads: losses [T], inner products of gradients [T, T], and the losses
    after a step along each task's gradient [T, T].

    L_j(W) = mean over the examples of (h_j · W x − y_j)², so ∂L_j/∂W = 2 mean (h_j · W x − y_j) h_j xᵀ.
    x: [N, D]. targets: [N, T]. heads: [T, F]. w: [F, D].
    """
    tasks = len(heads)

    def loss(task: int, weight: Array) -> float:
        return float(
            np.mean([(heads[task] @ weight @ row - y) ** 2 for row, y in zip(x, targets[:, task], strict=True)])
        )

    def gradient(task: int) -> Array:
        total = np.zeros_like(w)
        for row, y in zip(x, targets[:, task], strict=True):
            total += 2 * (heads[task] @ w @ row - y) * np.outer(heads[task], row) / len(x)
        return total

    gradients = [gradient(task) for task in range(tasks)]
    losses = np.array([loss(task, w) for task in range(tasks)])
    gramian = np.array([[float(np.sum(a * b)) for b in gradients] for a in gradients])
    after = np.array([[loss(task, w - lr * g) for task in range(tasks)] for g in gradients])
    return losses, gramian, after


def best_partition(influence: Array, networks: int) -> tuple[set[frozenset[int]], float]:
    """Try all assignments of tasks to networks. The score is Σ over tasks of the mean influence of its companions."""
    tasks = len(influence)
    best: tuple[set[frozenset[int]], float] = (set(), -math.inf)
    for assigned in itertools.product(range(networks), repeat=tasks):
        total = 0.0
        for task in range(tasks):
            companions = [other for other in range(tasks) if other != task and assigned[other] == assigned[task]]
            total += sum(influence[other, task] for other in companions) / max(1, len(companions))
        if total > best[1] + 1e-12:
            groups = {frozenset(t for t in range(tasks) if assigned[t] == number) for number in set(assigned)}
            best = (groups, total)
    return best


def average_linkage(matrix: Array, cut: float) -> set[frozenset[int]]:
    """The most similar two groups are joined, while the mean similarity between them is at least `cut`."""
    groups = [frozenset([task]) for task in range(len(matrix))]
    while len(groups) > 1:
        similarity, a, b = max(
            (float(np.mean([matrix[i, j] for i in first for j in second])), k, m)
            for (k, first), (m, second) in itertools.combinations(enumerate(groups), 2)
        )
        if similarity < cut:
            break
        groups = [group for k, group in enumerate(groups) if k not in (a, b)] + [groups[a] | groups[b]]
    return set(groups)


def centred_bootstrap(
    statistic: Callable[..., float], samples: list[Array], resamples: int, seed: int
) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of a statistic over resampled rows of each sample, with their mean moved to the
    statistic of the samples.
    """
    random = np.random.default_rng(seed)
    values = [
        statistic(*[sample[random.integers(len(sample), size=len(sample))] for sample in samples])
        for _ in range(resamples)
    ]
    moved = sorted(value - sum(values) / resamples + statistic(*samples) for value in values)
    return moved[round(0.025 * (resamples - 1))], moved[round(0.975 * (resamples - 1))]


def adjusted_mutual_information(pairs: Array) -> float:
    """(MI − E[MI]) / (mean entropy − E[MI]) of the two columns of classes, with E[MI] by Vinh et al. 2010:

    Σ_ij Σ_k (k/N) log(N k / (a_i b_j)) a_i! b_j! (N−a_i)! (N−b_j)! / (N! k! (a_i−k)! (b_j−k)! (N−a_i−b_j+k)!).
    """
    n = len(pairs)
    rows = [sum(1 for y, _ in pairs if y == value) for value in sorted({y for y, _ in pairs.tolist()})]
    columns = [sum(1 for _, z in pairs if z == value) for value in sorted({z for _, z in pairs.tolist()})]
    cells = [pairs.tolist().count(list(pair)) for pair in sorted({tuple(pair) for pair in pairs.tolist()})]

    def entropy(amounts: list[int]) -> float:
        return -sum(amount / n * math.log(amount / n) for amount in amounts)

    def factorial(number: int) -> float:
        return math.lgamma(number + 1)

    expected = 0.0
    for a, b in itertools.product(rows, columns):
        for k in range(max(1, a + b - n), min(a, b) + 1):
            above = factorial(a) + factorial(b) + factorial(n - a) + factorial(n - b)
            below = sum(map(factorial, (n, k, a - k, b - k, n - a - b + k)))
            expected += k / n * math.log(n * k / (a * b)) * math.exp(above - below)
    mean = (entropy(rows) + entropy(columns)) / 2
    return (entropy(rows) + entropy(columns) - entropy(cells) - expected) / (mean - expected)


def logistic_error(x: Array, y: Array, judged: Array, of: Array) -> float:
    """Error on judged inputs of the logistic regression that minimizes ½ |w|² + Σ log(1 + exp(−s (w·x + b))), s = ±1.

    By Newton's method; b isn't penalized.
    """
    extended = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    penalty = np.diag([1.0] * x.shape[1] + [0.0])
    w = np.zeros(x.shape[1] + 1)
    for _ in range(20):
        p = 1 / (1 + np.exp(-extended @ w))
        hessian = penalty + (extended * (p * (1 - p))[:, None]).T @ extended
        w -= np.linalg.solve(hessian, penalty @ w + extended.T @ (p - y))
    return float(np.mean((judged @ w[:-1] + w[-1] > 0) != of))
