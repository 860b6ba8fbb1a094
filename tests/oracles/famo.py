"""FAMO (Liu et al. 2023) from its paper, in float64 NumPy, in the scale of the sum of the tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(logits: Array) -> Array:
    exponentials = [math.exp(value) for value in logits]
    return np.array([value / sum(exponentials) for value in exponentials])


def weights(logits: Array, losses: Array) -> Array:
    """Return T c z_t / L_t with c = (Σ z_i / L_i)⁻¹ (algorithm 1)."""
    z = softmax(logits)
    c = 1 / sum(z / losses)
    return len(losses) * c * z / losses


def difference(logits: Array, before: Array, after: Array) -> Array:
    """Return δ = (Jacobian of the softmax)ᵀ (log before − log after), with the Jacobian by central differences."""
    change = np.log(before) - np.log(after)
    step, delta = 1e-6, []
    for j in range(len(logits)):
        nudge = np.zeros(len(logits))
        nudge[j] = step
        slope = (softmax(logits + nudge) - softmax(logits - nudge)) / (2 * step)  # ∂z/∂ξ_j
        delta.append(float(slope @ change))
    return np.array(delta)


@dataclass
class Famo:
    """The logits ξ over the steps, by gradient descent (algorithm 1) or Adam (Kingma and Ba 2015; algorithm 2)."""

    count: int
    adam: bool
    rate: float = 0.025
    decay: float = 0.001
    logits: Array = field(init=False)

    def __post_init__(self) -> None:
        self.logits, self.m, self.v = (np.zeros(self.count) for _ in range(3))
        self.steps = np.zeros(self.count)

    def after_step(self, before: Array, after: Array, present: list[int] | None = None) -> None:
        there = list(range(self.count)) if present is None else present
        gradient = difference(self.logits[there], before, after) + self.decay * self.logits[there]
        for task, g in zip(there, gradient, strict=True):
            if not self.adam:
                self.logits[task] -= self.rate * g
                continue
            self.steps[task] += 1
            self.m[task] = 0.9 * self.m[task] + 0.1 * g
            self.v[task] = 0.999 * self.v[task] + 0.001 * g * g
            m, v = self.m[task] / (1 - 0.9 ** self.steps[task]), self.v[task] / (1 - 0.999 ** self.steps[task])
            self.logits[task] -= self.rate * m / (math.sqrt(v) + 1e-8)
