"""FairGrad: α-fair resource allocation between tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.bargaining import solve_bargaining


@weightings.register("fairgrad")
class FairGrad(GramianWeighting):
    """FairGrad: find the α-fair allocation of the decrease of the losses.

    The d in a ball that maximizes Σ_t (g_t·d)^(1−a) / (1−a) is

        d ∝ Jᵀv    with    G v = v^(−1/a),  v > 0        (element-wise)
        w = T v / Σ_t v_t,    update = Jᵀw

    The limit a → 0 is the sum of the tasks, a = 1 is `nash_mtl` without `max_norm`, and a → ∞ is max-min fairness.
    Every g_t·d is positive unless the update is 0: it conflicts with no task.

    Note:
        Deviations from the paper. Solved by Newton's method, where the official code calls SciPy's least squares. The
        scale of v depends on the gradients; here it is scaled to a sum of T, and the code's clipping of the update to a
        norm of 1 is left to `training.clip_norm`. If a combination of the gradients is 0 (Pareto stationary), there is
        no solution: the direction in which v grows is computed with a ridge of 1e-8 on G's diagonal, and the update is
        nearly 0. A task with a zero gradient does not take part and gets weight 1; the other weights sum to the number
        of the other tasks. For a below 0.5 or above 5, with norms that differ by factors of 1e4 or more, 40 Newton
        steps may not suffice; the weights are then those of the last step.

    Args:
        tasks: The T tasks.
        alpha: Fairness a. The official code's experiments on images and molecules use 2; its default is 1.

    References:
        Ban and Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024, arXiv:2402.15638, equation 4.
    """

    def __init__(self, tasks: Sequence[WeightedTask | str], *, alpha: PositiveFloat = 2.0) -> None:
        super().__init__(tasks)
        self.alpha = alpha

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        return solve_bargaining(gramian, self.alpha)
