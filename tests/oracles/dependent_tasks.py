"""ESMM and AITM in NumPy float64, from the equations of the papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def esmm_probabilities(logits: Sequence[Array]) -> list[Array]:
    """Return p_t = Π_{s ≤ t} σ(a_s), by a running product."""
    return [np.prod([sigmoid(a) for a in logits[: t + 1]], axis=0) for t in range(len(logits))]


def layers(x: Array, weights: Sequence[tuple[Array, Array]]) -> Array:
    for weight, bias in weights:
        x = np.maximum(x @ weight.T + bias, 0)
    return x


def transfer(previous: Array, q: Array, parameters: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return z_t and the weight of p_{t−1}, one example after another."""
    outputs, weights = [], []
    for z, own in zip(previous, q, strict=True):
        p = np.maximum(parameters["g.weight"] @ z + parameters["g.bias"], 0)
        scores = np.array([(parameters["h1"] @ u) @ (parameters["h2"] @ u) / np.sqrt(len(u)) for u in (p, own)])
        w = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        outputs.append(w[0] * parameters["h3"] @ p + w[1] * parameters["h3"] @ own)
        weights.append(w[0])
    return np.array(outputs), np.array(weights)


def calibrator(probabilities: Sequence[Array]) -> float:
    """Return Σ_t mean of max(p_t − p_{t−1}, 0)."""
    pairs = zip(probabilities[1:], probabilities[:-1], strict=True)
    return float(sum(np.mean([max(late - early, 0) for late, early in zip(a, b, strict=True)]) for a, b in pairs))
