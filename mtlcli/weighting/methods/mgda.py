"""The shortest vector in the convex hull of the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.min_norm import cosines, nearest_to_zero

SMALLEST = 1e-15


@weightings.register("mgda")
class MGDA(GramianWeighting):
    """MGDA, multiple-gradient descent: the direction that improves all tasks, or none where no direction does.

    Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", Comptes Rendus Mathématique
    350, 2012; Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, equation 3:

        α = argmin ‖Σ_t α_t g_t‖²,   α_t ≥ 0,  Σ_t α_t = 1        w = T α,    update Jᵀw

    At the minimum g_t · Σα g ≥ ‖Σα g‖² for every task, with equality where α_t > 0; so the update is in conflict with
    no task (T = 2: α_1 = (g_2 − g_1)·g_2 / ‖g_1 − g_2‖², clipped to [0, 1]). Where a convex combination of the
    gradients is 0 the point is Pareto stationary, and so is the update: 0. By the definition, this is what one task
    *with* labels does whose gradient is 0: it gets all the weight, and nothing moves. A task without labels has left
    the problem before.

    With a normalization n, the problem is solved for the gradients g_t / n_t, those of the losses L_t / n_t if n was
    constant: w ∝ α_t / n_t, scaled to Σw = T. So all of them keep the promise above.

    Deviations: the exact minimum, by an active-set method (see `min_norm`), where the paper's Frank–Wolfe, and the
    official code's projected steps, stop at an approximation, for two tasks at α = 0.001 and 0.999 too. Gradients that
    are dependent get the α of the smallest Σα²‖g‖². The normalizations are the official code's ("not included in the
    paper"), but that code divides the gradients only to find α, and then descends along Σα_t g_t of the undivided ones,
    which may be in conflict with some task. n takes the absolute value of a loss, and at least 1e-15 of the greatest n.

    Options:
        normalization: n_t: `none` 1, `l2` ‖g_t‖, `loss` L_t, `loss+` L_t‖g_t‖.
    """

    def __init__(
        self, tasks: Sequence[WeightedTask], *, normalization: Literal["none", "l2", "loss", "loss+"] = "none"
    ) -> None:
        super().__init__(tasks)
        self.normalization = normalization

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        unit, lengths, zero = cosines(gramian)
        normalized = lengths
        if self.normalization != "none":
            factors = torch.ones_like(lengths) if self.normalization == "loss" else lengths
            if self.normalization != "l2":
                factors = factors * losses.abs()
            greatest = factors.amax()
            normalized = lengths / (factors / torch.where(greatest > 0, greatest, 1.0)).clamp(min=SMALLEST)
        # z is for g / ‖g‖: α, for g / n, is z n / ‖g‖, and what g itself gets is α / n.
        weights = nearest_to_zero(unit, normalized, torch.zeros_like(zero)) / lengths
        total = weights.sum()
        return torch.where(total > 0, weights * (len(present) / total), 1.0)
