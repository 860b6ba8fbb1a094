"""The losses of the task kinds, row by row in float64 Python, with their gradients. Missing labels are None.

Each returns (mean loss, gradient by the predictions), both 0 where nothing is labelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Label = float | None


def cross_entropy(logits: Array, labels: Sequence[int | None], smoothing: float = 0.0) -> tuple[float, Array]:
    total, count, gradient = 0.0, sum(label is not None for label in labels), np.zeros_like(logits)
    for row, label in enumerate(labels):
        if label is None:
            continue
        classes = logits.shape[1]
        target_probabilities = [(1 - smoothing) * (k == label) + smoothing / classes for k in range(classes)]
        shifted = logits[row] - logits[row].max()
        log_p = shifted - math.log(sum(math.exp(x) for x in shifted))
        total -= sum(q * lp for q, lp in zip(target_probabilities, log_p, strict=True))
        gradient[row] = [(math.exp(lp) - q) / count for q, lp in zip(target_probabilities, log_p, strict=True)]
    return (total / count if count else 0.0), gradient


def binary(logits: Array, labels: Sequence[Label], pos_weight: float = 1.0) -> tuple[float, Array]:
    total, count, gradient = 0.0, sum(label is not None for label in labels), np.zeros_like(logits)
    for row, label in enumerate(labels):
        if label is None:
            continue
        p = 1 / (1 + math.exp(-logits[row]))
        factor = pos_weight if label == 1 else 1.0
        total -= factor * math.log(p if label == 1 else 1 - p)
        gradient[row] = factor * (p - label) / count
    return (total / count if count else 0.0), gradient


def multilabel(logits: Array, labels: Sequence[Sequence[Label]]) -> tuple[float, Array]:
    """Mean over the rows with a label of each row's mean over its labelled entries."""
    rows = [[label for label in row if label is not None] for row in labels]
    count, total, gradient = sum(bool(row) for row in rows), 0.0, np.zeros_like(logits)
    for row, entries in enumerate(labels):
        for column, label in enumerate(entries):
            if label is None:
                continue
            p = 1 / (1 + math.exp(-logits[row, column]))
            total -= math.log(p if label == 1 else 1 - p) / len(rows[row])
            gradient[row, column] = (p - label) / len(rows[row]) / count
    return (total / count if count else 0.0), gradient


def regression(prediction: Array, labels: Sequence[Label], loss: str, delta: float = 1.0) -> tuple[float, Array]:
    total, count, gradient = 0.0, sum(label is not None for label in labels), np.zeros_like(prediction)
    for row, label in enumerate(labels):
        if label is None:
            continue
        e = float(prediction[row]) - label
        if loss == "mse":
            value, slope = e * e, 2 * e
        elif loss == "l1":
            value, slope = abs(e), math.copysign(1, e)
        elif abs(e) <= delta:
            value, slope = e * e / 2, e
        else:
            value, slope = delta * (abs(e) - delta / 2), math.copysign(delta, e)
        total += value
        gradient[row] = slope / count
    return (total / count if count else 0.0), gradient


def pinball(prediction: Array, labels: Sequence[Label], levels: Sequence[float]) -> tuple[float, Array]:
    """Mean over the rows of the mean over the levels of Koenker and Bassett's ρ_τ(y − q)."""
    total, count, gradient = 0.0, sum(label is not None for label in labels), np.zeros_like(prediction)
    for row, label in enumerate(labels):
        for column, level in enumerate(levels):
            if label is None:
                continue
            e = label - prediction[row, column]
            total += (level * e if e >= 0 else (level - 1) * e) / len(levels)
            gradient[row, column] = (-level if e >= 0 else 1 - level) / len(levels) / count
    return (total / count if count else 0.0), gradient


def poisson(rates: Array, labels: Sequence[Label]) -> tuple[float, Array]:
    """Mean of log p(y; y) − log p(y; μ) with the Poisson probabilities p(y; μ) = μ^y exp(−μ) / y!."""
    total, count, gradient = 0.0, sum(label is not None for label in labels), np.zeros_like(rates)

    def log_p(y: float, rate: float) -> float:
        return (y * math.log(rate) if y else 0.0) - rate - math.lgamma(y + 1)

    for row, label in enumerate(labels):
        if label is None:
            continue
        total += log_p(label, label) - log_p(label, rates[row])
        gradient[row] = (1 - label / rates[row]) / count
    return (total / count if count else 0.0), gradient


def corn(logits: Array, labels: Sequence[int | None]) -> tuple[float, Array, Array]:
    """Mean of −log P(y), from the definition of CORN: conditional probabilities, their products, and differences.

    Returns:
        The loss, its gradient, and the probabilities of the classes [B, K].
    """
    count, gradient = sum(label is not None for label in labels), np.zeros_like(logits)
    conditional = 1 / (1 + np.exp(-logits))
    above = np.cumprod(conditional, axis=1)  # P(y > r_k)
    ones, zeros = np.ones((len(logits), 1)), np.zeros((len(logits), 1))
    probabilities = np.hstack([ones, above]) - np.hstack([above, zeros])
    total = 0.0
    for row, label in enumerate(labels):
        if label is None:
            continue
        total -= math.log(probabilities[row, label])
        for k in range(min(label + 1, logits.shape[1])):
            gradient[row, k] = (conditional[row, k] - (label > k)) / count
    return (total / count if count else 0.0), gradient, probabilities
