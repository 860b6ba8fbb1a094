"""FAMO: fast adaptive multitask optimization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask
from mtlcli.weighting.solvers.gramian import write_rows

FLOOR = 1e-12


@weightings.register("famo")
class FAMO(LossWeighting):
    """FAMO: learn weights under which all log-losses decrease at the same rate.

    With z the softmax of the logits ξ, which start at 0:

        objective = T c Σ_t z_t log L_t,    c = (Σ_i z_i / L_i)⁻¹, a constant,    so L_t gets the weight T c z_t / L_t
        δ = (∂z/∂ξ)ᵀ (log L(before the step) − log L(after it)),    ξ ← ξ − β (δ + γ ξ)

    L after the step is computed on the same examples by a second forward pass; no gradient of a single task is needed.
    The weights sum to the number of tasks T (paper: 1). Neither w_t L_t ∝ z_t nor ξ depends on the units of the losses.

    The update of ξ above is that of algorithm 1. By default ξ is updated by Adam (β₁ = 0.9, β₂ = 0.999, ε = 1e-8) with
    the gradient δ + γ ξ, as in the paper's experiments, its algorithm 2 and the official code; β = 0.025 belongs to it.
    The default γ is that of algorithm 2 (official code: 0.01 and 1e-5 in different versions).

    Note:
        Deviations from the paper. A loss below 1e-12 (including 0 and negative ones) counts as 1e-12 and gets weight 0,
        without affecting the other weights; the code adds 1e-8. If tasks are absent from a step, the softmax, T and δ
        are those of the present tasks, and logits and Adam moments of the absent ones are unchanged. A change of a loss
        that is not finite counts as 0. The code clips the gradient to a norm of 1, which is left to
        `training.clip_norm` here.

    Args:
        tasks: The T tasks.
        learning_rate: Step size β of the logits.
        weight_decay: Decay γ of the logits towards 0, that is, towards equal z.
        optimizer: Optimizer of the logits: `adam`, or `sgd` for the plain gradient descent of algorithm 1.

    References:
        Liu, Feng, Stone and Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, arXiv:2306.03792,
        algorithm 1.
    """

    linear = False
    looks_back = True
    logits: Tensor
    means: Tensor
    squares: Tensor
    steps: Tensor

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
        *,
        learning_rate: PositiveFloat = 0.025,
        weight_decay: NonNegativeFloat = 0.001,
        optimizer: Literal["adam", "sgd"] = "adam",
    ) -> None:
        super().__init__(tasks)
        self.learning_rate, self.weight_decay, self.optimizer = learning_rate, weight_decay, optimizer
        # Adam's moments are buffers, so that those of absent tasks stay unchanged.
        for name in ("logits", "means", "squares", "steps"):
            self.register_buffer(name, torch.zeros(len(self.tasks)))

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        vanished, floored = losses < FLOOR, losses.clamp(min=FLOOR)
        logarithms = floored.log()
        # T c z / L is T softmax(ξ − log L), which neither overflows nor underflows
        scores = (self.select(self.logits, present) - logarithms.detach()).masked_fill(vanished, -1e4)
        weights = (len(present) * scores.softmax(0)).masked_fill(vanished, 0.0)
        return ((weights * floored).detach() * logarithms).sum(), weights

    @torch.no_grad()
    def after_step(self, before: Tensor, after: Tensor, present: Sequence[int]) -> None:
        """Update the logits, see `LossWeighting.after_step`."""
        logits = self.select(self.logits, present)
        fall = (before.clamp(min=FLOOR).log() - after.clamp(min=FLOOR).log()).nan_to_num(0.0, 0.0, 0.0).to(logits)
        z = logits.softmax(0)
        gradient = z * (fall - (z * fall).sum()) + self.weight_decay * logits
        if self.optimizer == "adam":
            steps = self.select(self.steps, present) + 1
            means = self.select(self.means, present).lerp(gradient, 0.1)
            squares = self.select(self.squares, present).lerp(gradient.square(), 0.001)
            write_rows(self.steps, present, steps)
            write_rows(self.means, present, means)
            write_rows(self.squares, present, squares)
            # 1 − β^n, accurate in float32 for β near 1
            mean, square = means / -(steps * math.log(0.9)).expm1(), squares / -(steps * math.log(0.999)).expm1()
            gradient = mean / (square.sqrt() + 1e-8)
        write_rows(self.logits, present, logits - self.learning_rate * gradient)
