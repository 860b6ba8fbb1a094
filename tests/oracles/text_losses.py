"""Losses and metrics of tags and of pairs of texts, in float64 NumPy, example by example. Missing labels are None."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def tagging(logits: Array, tags: Sequence[Sequence[int | None]], weights: Array | None = None) -> float:
    """Weighted mean of −log p over all labelled words."""
    total = amount = 0.0
    for row, sentence in enumerate(tags):
        for position, tag in enumerate(sentence):
            if tag is None:
                continue
            weight = 1.0 if weights is None else np.broadcast_to(weights.T, logits.shape[1::-1]).T[row, position]
            scores = logits[row, position] - logits[row, position].max()
            total += weight * (np.log(np.exp(scores).sum()) - scores[tag])
            amount += weight
    return total / amount if amount else 0.0


def cosine(u: Array, v: Array) -> float:
    return float(u @ v / np.sqrt((u @ u) * (v @ v)))


def squared(pairs: Array, cosines: Sequence[float | None]) -> float:
    """Mean of (cos(u, v) − c)² over the labelled pairs."""
    errors = [(cosine(*pair) - c) ** 2 for pair, c in zip(pairs, cosines, strict=True) if c is not None]
    return float(np.mean(errors)) if errors else 0.0


def cosent(
    pairs: Array, scores: Sequence[float | None], sharpness: float, weights: Sequence[float] | None = None
) -> float:
    """log(1 + Σ w_i w_j exp(sharpness · (cos_j − cos_i))) over the pairs i, j with score_i > score_j."""
    total = 1.0
    for i, first in enumerate(scores):
        for j, second in enumerate(scores):
            if first is not None and second is not None and first > second:
                factor = 1.0 if weights is None else weights[i] * weights[j]
                total += factor * np.exp(sharpness * (cosine(*pairs[j]) - cosine(*pairs[i])))
    return float(np.log(total))


def info_nce(
    pairs: Array, labels: Sequence[int | None], temperature: float, symmetric: bool, by_class: bool = False
) -> Array:
    """Loss of each labelled pair (van den Oord et al., eq. 4, with cosines); the mean of both directions if symmetric.

    Pairs of the same class are no negatives of each other if `by_class`.
    """
    rows = [row for row, label in enumerate(labels) if label is not None]
    losses = []
    for i in rows:
        candidates = [j for j in rows if j == i or not by_class or labels[j] != labels[i]]
        ways = []
        for a, b in ((0, 1), (1, 0)) if symmetric else ((0, 1),):
            scores = {j: cosine(pairs[i, a], pairs[j, b]) / temperature for j in candidates}
            ways.append(np.log(sum(np.exp(score) for score in scores.values())) - scores[i])
        losses.append(np.mean(ways))
    return np.array(losses)


def ranks(pairs: Array, candidates: int, way: int) -> list[int]:
    """Rank of the partner of each first (way 0) or second text (way 1) in its group of consecutive pairs."""
    result = []
    for i in range(len(pairs)):
        group = range(i // candidates * candidates, min(len(pairs), (i // candidates + 1) * candidates))
        own = cosine(pairs[i, way], pairs[i, 1 - way])
        result.append(1 + sum(cosine(pairs[i, way], pairs[j, 1 - way]) > own for j in group if j != i))
    return result
