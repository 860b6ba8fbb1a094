"""DualProj: projection of the sum of the gradients onto their dual cone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.dual_cone import NormEps, RegEps, project_onto_dual_cone


@weightings.register("dualproj")
class DualProj(GramianWeighting):
    """DualProj: project the sum of the gradients onto the directions that conflict with no task.

    It is Gradient Episodic Memory (GEM) with the gradients of all tasks as the memory and their sum as the gradient to
    correct:

        update = the point nearest to Σ_t g_t in {d: g_i·d ≥ 0 for all i}
        w = argmin_v vᵀ G v  subject to  v ≥ 1

    If the sum conflicts with no task, it is the update and all weights are 1. Otherwise the conflict is resolved by
    increasing the weights of the gradients that the sum conflicts with, so the weights sum to more than T.

    As in TorchJD, G is first divided by its trace, and `reg_eps` is added to its diagonal, so that w is unique. The
    weights are invariant to a common scale of all gradients while the trace is above `norm_eps`. To first order no
    task's loss increases: G w ≥ −reg_eps·tr(G)·w.

    Note:
        Deviations from the paper. The sum of the tasks, where TorchJD takes their mean. The constant γ that the paper
        adds to the weights in practice is 0.

    Args:
        tasks: The T tasks.
        norm_eps: Value of Σ_t ‖g_t‖² below which the gradients are summed without projection.
        reg_eps: Ridge added to the diagonal of G after it is divided by its trace.

    References:
        Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017, arXiv:1706.08840,
        equation 11.
    """

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, norm_eps: NormEps = 1e-4, reg_eps: RegEps = 1e-4
    ) -> None:
        super().__init__(tasks)
        self.norm_eps = norm_eps
        self.reg_eps = reg_eps

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        return project_onto_dual_cone(gramian.new_ones(1, len(gramian)), gramian, self.norm_eps, self.reg_eps)[0]
