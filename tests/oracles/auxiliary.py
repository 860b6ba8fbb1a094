"""The auxiliary losses (reconstruction, adversarial, orthogonality) from their equations, in float64 NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def reconstruction(x: Array, rebuilt: Array) -> float:
    """Mean over examples of ‖x − Decoder(Encoder(x))‖², the norm of all of an example's elements."""
    return float(np.mean([np.linalg.norm((a - b).ravel()) ** 2 for a, b in zip(x, rebuilt, strict=True)]))


def reversal_factor(progress: float) -> float:
    """λ_p of Ganin et al. 2016, 2 / (1 + exp(−10 p)) − 1, in its other form tanh(5 p)."""
    return math.tanh(5 * progress)


@dataclass(frozen=True)
class LinearAdversary:
    """Features z = V x, and a discriminator softmax(U n + b) of n = √F z / ‖z‖: V [F, I], U [K, F], b [K]."""

    trunk: Array
    weight: Array
    bias: Array

    def gradients(self, x: Array, labels: NDArray[np.int64], factor: float) -> tuple[float, Array, Array, Array]:
        """The mean cross-entropy, and what V, U and b descend along: −λ ∂/∂V, ∂/∂U, ∂/∂b."""
        z = x @ self.trunk.T
        length = np.linalg.norm(z, axis=1, keepdims=True)
        n = math.sqrt(z.shape[1]) * z / length
        logits = n @ self.weight.T + self.bias
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        entropy = -np.log(probabilities[np.arange(len(x)), labels]).mean()
        error = (probabilities - np.eye(len(self.bias))[labels]) / len(x)  # ∂ / ∂ logits
        to_n = error @ self.weight
        to_z = (to_n - (to_n * n).mean(1, keepdims=True) * n) * math.sqrt(z.shape[1]) / length
        return float(entropy), -factor * to_z.T @ x, error.T @ n, error.sum(0)


def overlap(shared: Array, private: Array) -> float:
    """‖Sᵀ H‖²_F / n², written out: the mean over pairs of examples (i, j) of cos(s_i, s_j) cos(h_i, h_j).

    For ‖Sᵀ H‖²_F = tr(H Hᵀ S Sᵀ); the cosines are those of the centred rows.
    """
    total = 0.0
    s, h = shared - shared.mean(0), private - private.mean(0)
    for i in range(len(s)):
        for j in range(len(s)):
            total += _cosine(s[i], s[j]) * _cosine(h[i], h[j])
    return total / len(s) ** 2


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
