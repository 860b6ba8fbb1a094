"""Mixtures of experts from the papers' equations, one example at a time, in float64 NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Expert = Callable[[Array], Array]


def softmax_gate(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """g(x) = softmax(W x) of Ma et al. 2018, equation 8: x [D], W [E, D] → [E]."""
    logits = weight @ x + (0.0 if bias is None else bias)
    exponentials = np.array([math.exp(value) for value in logits])
    return exponentials / exponentials.sum()


def mixture(weights: Array, experts: Sequence[Expert], x: Array) -> Array:
    """Σ_e g_e f_e(x), equation 7."""
    return sum((g * expert(x) for g, expert in zip(weights, experts, strict=True)), np.zeros_like(experts[0](x)))


@dataclass(frozen=True)
class Level:
    """One extraction level of PLE: owner (a task, or `shared`) → its experts; owner → the matrix of its gate.

    The last level has no gate for `shared`.
    """

    experts: Mapping[str, Sequence[Expert]]
    gates: Mapping[str, Array]


def progressive(x: Array, levels: Sequence[Level], tasks: Sequence[str]) -> dict[str, Array]:
    """task → the input of its tower for one example, Tang et al. 2020.

    g^{k,j} = w^{k,j}(g^{k,j−1}) S^{k,j}: the selector of a gate is what the level below gives its owner; S^{k,j} are
    the outputs of the task's own experts above those of the shared ones, and of all tasks' for the shared gate.
    """
    inputs = dict.fromkeys([*tasks, "shared"], x)
    for level in levels:
        outputs = {owner: [expert(inputs[owner]) for expert in experts] for owner, experts in level.experts.items()}
        after: dict[str, Array] = {}
        for owner, weight in level.gates.items():
            chosen = [outputs[task] for task in tasks] if owner == "shared" else [outputs[owner]]
            rows = np.array([row for group in [*chosen, outputs["shared"]] for row in group])
            after[owner] = softmax_gate(inputs[owner].ravel(), weight) @ rows
        inputs = after
    return inputs


def smooth_step(t: float, gamma: float) -> float:
    """S(t) of Hazimeh et al. 2021."""
    if t <= -gamma / 2:
        return 0.0
    if t >= gamma / 2:
        return 1.0
    return -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5


def selector(z: Array, experts: int, gamma: float) -> Array:
    """r(z), a single-expert selector: [bits] → [experts]. Expert e has its number's binary digits, the first high."""
    probabilities = []
    for number in range(experts):
        digits = f"{number:0{len(z)}b}"
        steps = [smooth_step(float(t), gamma) for t in z]
        probabilities.append(math.prod(s if digit == "1" else 1 - s for s, digit in zip(steps, digits, strict=True)))
    return np.array(probabilities)


def dselect_k(z: Array, alpha: Array, experts: int, gamma: float) -> tuple[Array, Array]:
    """q = Σ_i σ(α)_i r(z_i) and the selectors: z [k, bits], α [k] → ([experts], [k, experts])."""
    selectors = np.array([selector(row, experts, gamma) for row in z])
    shares = np.exp(alpha) / np.exp(alpha).sum()
    return shares @ selectors, selectors


def gate_entropy(selectors: Array, reachable: float = 0.0) -> float:
    """Σ_i −Σ_e r_e log r_e + reachable · (1 / Σ_e r_e − 1), with 0 log 0 = 0: [k, experts] → a number."""
    total = 0.0
    for r in selectors:
        total += sum(-p * math.log(p) for p in r if p > 0) + reachable * (1 / float(r.sum()) - 1)
    return total
