"""MGDA: multiple-gradient descent algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.min_norm import prepare_cosines, solve_min_norm

MIN_NORMALIZATION = 1e-15  # relative to the largest


@weightings.register("mgda")
class MGDA(GramianWeighting):
    """MGDA: descend along the min-norm point of the convex hull of the gradients, which improves all tasks.

        α = argmin ‖Σ_t α_t g_t‖²,   α_t ≥ 0,  Σ_t α_t = 1        w = T α,    update = Jᵀw

    At the minimum g_t · Σα g ≥ ‖Σα g‖² for every task, with equality where α_t > 0, so the update conflicts with no
    task (T = 2: α_1 = (g_2 − g_1)·g_2 / ‖g_1 − g_2‖², clipped to [0, 1]). If a convex combination of the gradients is
    0, the point is Pareto stationary and the update is 0. By this definition, a task *with* labels and a zero gradient
    gets all the weight and stops the training; a task without labels is absent from the problem.

    With a normalization n, the problem is solved for the gradients g_t / n_t, those of the losses L_t / n_t for
    constant n: w ∝ α_t / n_t, scaled to Σw = T. The update still conflicts with no task.

    Note:
        Deviations from the paper. The minimum is exact, by an active-set method, where the Frank-Wolfe algorithm of the
        paper and the projected steps of the official code stop at an approximation (with two tasks, α within [0.001,
        0.999]). For linearly dependent gradients, α has the smallest Σα²‖g‖². The normalizations are those of the
        official code ("not included in the paper"); the code solves for α with normalized gradients but descends along
        Σα_t g_t of the original ones, which may conflict with a task. n uses the absolute value of a loss, and is at
        least 1e-15 of the largest n.

    Args:
        tasks: The T tasks.
        normalization: Normalization n_t: `none` for 1, `l2` for ‖g_t‖, `loss` for L_t, `loss+` for L_t‖g_t‖.

    References:
        Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus
        Mathématique 350, 2012; Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
        arXiv:1810.04650, equation 3.
    """

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, normalization: Literal["none", "l2", "loss", "loss+"] = "none"
    ) -> None:
        super().__init__(tasks)
        self.normalization = normalization
        self.uses_losses = normalization in ("loss", "loss+")

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        unit, lengths, zero = prepare_cosines(gramian)
        normalized = lengths
        if self.normalization != "none":
            factors = torch.ones_like(lengths) if self.normalization == "loss" else lengths
            if self.normalization != "l2":
                factors = factors * losses.abs()
            largest = factors.amax()
            normalized = lengths / (factors / torch.where(largest > 0, largest, 1.0)).clamp(min=MIN_NORMALIZATION)
        # The solution z weights g / ‖g‖. α = z n / ‖g‖ weights g / n, so the weight of g is α / n = z / ‖g‖.
        weights = solve_min_norm(unit, normalized, torch.zeros_like(zero)) / lengths
        total = weights.sum()
        return torch.where(total > 0, weights * (len(present) / total), 1.0)
