"""Weights under which all losses fall at the same rate, learned from what each step did to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import put

FLOOR = 1e-12


@weightings.register("famo")
class FAMO(LossWeighting):
    """FAMO: the logarithms of all losses are to fall at the same rate; those that fall slower get more weight.

    Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1, with z the
    softmax of the logits ξ, which start at 0:

        objective = T c Σ_t z_t log L_t,    c = (Σ_i z_i / L_i)⁻¹, a constant,    so L_t gets the weight T c z_t / L_t
        δ = (∂z/∂ξ)ᵀ (log L(before the step) − log L(after it)),    ξ ← ξ − β (δ + γ ξ)

    L after the step is of the same examples: a second forward pass, from which all the learning comes. It costs no
    gradient of a single task.

    The weights sum to the number of tasks T (the paper's to 1). In w_t L_t ∝ z_t no choice of units for a loss makes a
    difference, nor does it in ξ.

    The last line is algorithm 1's. As in the paper's experiments, its algorithm 2 and its code, the default takes the
    step with Adam (β₁ 0.9, β₂ 0.999, ε 1e−8), with the gradient δ + γ ξ; β = 0.025 belongs to it. γ is that of
    algorithm 2; the official code's default has been 0.01 and 1e−5.

    Deviations: a loss below 1e-12 (or 0, or negative) counts as 1e-12, gets the weight 0 and leaves the others theirs;
    the code adds 1e-8. For tasks absent from a step the softmax, T and δ are of those present, and their logits and
    Adam's moments stay as they are. A change that isn't finite counts as none. The code clips the gradient to a norm of
    1: here that is the YAML's to say.

    Options:
        learning_rate: β, of the logits.
        weight_decay: γ, how strongly the logits are drawn to 0, which is equal z.
        optimizer: what takes the step of the logits: `adam`, or `sgd`, plain gradient descent as in algorithm 1.
    """

    linear = False
    looks_back = True
    logits: Tensor
    means: Tensor
    squares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        learning_rate: PositiveFloat = 0.025,
        weight_decay: NonNegativeFloat = 0.001,
        optimizer: Literal["adam", "sgd"] = "adam",
    ) -> None:
        super().__init__(tasks)
        self.learning_rate, self.weight_decay, self.optimizer = learning_rate, weight_decay, optimizer
        # Adam's moments are buffers, not an optimizer's: a task that is absent from a step keeps its own.
        for name in ("logits", "means", "squares", "steps"):
            self.register_buffer(name, torch.zeros(len(self.tasks)))

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        solved, floored = losses < FLOOR, losses.clamp(min=FLOOR)
        logarithms = floored.log()
        # T c z / L is T softmax(ξ − log L), which neither overflows nor underflows
        scores = (self.select(self.logits, present) - logarithms.detach()).masked_fill(solved, -1e4)
        weights = (len(present) * scores.softmax(0)).masked_fill(solved, 0.0)
        return ((weights * floored).detach() * logarithms).sum(), weights

    @torch.no_grad()
    def after_step(self, before: Tensor, after: Tensor, present: Sequence[int]) -> None:
        """See `LossWeighting.after_step`. Moves the logits."""
        logits = self.select(self.logits, present)
        fall = (before.clamp(min=FLOOR).log() - after.clamp(min=FLOOR).log()).nan_to_num(0.0, 0.0, 0.0).to(logits)
        z = logits.softmax(0)
        gradient = z * (fall - (z * fall).sum()) + self.weight_decay * logits
        if self.optimizer == "adam":
            steps = self.select(self.steps, present) + 1
            means = self.select(self.means, present).lerp(gradient, 0.1)
            squares = self.select(self.squares, present).lerp(gradient.square(), 0.001)
            put(self.steps, present, steps)
            put(self.means, present, means)
            put(self.squares, present, squares)
            # 1 − β^n, exact for β near 1 in float32 too
            mean, square = means / -(steps * math.log(0.9)).expm1(), squares / -(steps * math.log(0.999)).expm1()
            gradient = mean / (square.sqrt() + 1e-8)
        put(self.logits, present, logits - self.learning_rate * gradient)
