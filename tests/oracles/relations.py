"""The measures of `mtl relate`, written from their equations with loops, in NumPy float64."""

from __future__ import annotations

import itertools
import math
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
    """Every assignment of tasks to networks is tried. The score: Σ over tasks, mean influence of those beside it."""
    tasks = len(influence)
    best: tuple[set[frozenset[int]], float] = (set(), -math.inf)
    for assigned in itertools.product(range(networks), repeat=tasks):
        total = 0.0
        for task in range(tasks):
            beside = [other for other in range(tasks) if other != task and assigned[other] == assigned[task]]
            total += sum(influence[other, task] for other in beside) / max(1, len(beside))
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
