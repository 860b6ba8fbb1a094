"""What the tasks gain from the update, shared out by α-fairness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.bargaining import bargain


@weightings.register("fairgrad")
class FairGrad(GramianWeighting):
    """FairGrad: the fair allocation of what the tasks' losses fall by, as in communication networks.

    Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, equation 4: the d in a ball that maximizes
    Σ_t (g_t·d)^(1−a) / (1−a) is

        d ∝ Jᵀv    with    G v = v^(−1/a),  v > 0        (element by element)
        w = T v / Σ_t v_t,    update Jᵀw

    a → 0 is the sum of the tasks, a = 1 `nash_mtl`, and the larger a, the nearer it comes to max-min fairness. Every
    g_t·d is positive where the update isn't 0: it is in conflict with no task.

    Deviations: solved by Newton's method (see `newton`), where the official code calls SciPy's least squares. The scale
    of v is set by the gradients; ours is scaled to a sum of T, like all weights here, and the code's clipping of the
    update to a norm of 1 is left to the run's own gradient clipping. Where some combination of the gradients is 0
    (Pareto stationary) there is no solution: the direction that v grows in is found with a ridge of 1e-8 of G's
    diagonal, and the update is nearly 0. A task whose gradient is 0 has no part in it and the weight 1; the others'
    weights sum to their number. For an a below 0.5 or above 5, together with norms 1 to 1e4 apart and more, the
    solution can be out of reach of the 40 steps that are taken at most; the weights are those reached by then.

    Options:
        alpha: a, the fairness (2 in the official code's runs on images and molecules; the code's own default is 1).
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, alpha: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.alpha = alpha

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        return bargain(gramian, self.alpha)
