"""The sum of the gradients, projected so that it conflicts with none of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.dual_cone import NormEps, RegEps, project


@weightings.register("dualproj")
class DualProj(GramianWeighting):
    """DualProj: the sum of the gradients is projected onto the directions that conflict with no task.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NIPS 2017, equation 11, with the gradients
    of all tasks as the memory's and their sum as the gradient g to be corrected:

        update = the nearest point to Σ_t g_t in {d: g_i·d ≥ 0 for all i}
        w = argmin_v vᵀ G v  with  v ≥ 1

    Where the sum conflicts with no task, it is the update and all weights are 1. All weights are at least 1: a conflict
    is resolved by adding to the gradients the sum conflicts with, and the weights sum to more than the number of tasks
    then.

    As in TorchJD's DualProj, G is first divided by its trace, and `reg_eps` is added to its diagonal, so that w is
    unique. The weights are invariant to the scale of all the gradients, while the trace is above `norm_eps`. Promised:
    no task's loss rises to first order, G w ≥ −reg_eps·tr(G)·w.

    Deviations: the sum of the tasks where TorchJD takes their mean. The paper's γ, a constant added to the weights in
    practice, is 0.

    Options:
        norm_eps: where Σ_t ‖g_t‖² is below it, the gradients are summed as they are.
        reg_eps: what is added to the diagonal of G, after it is divided by its trace.
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, norm_eps: NormEps = 1e-4, reg_eps: RegEps = 1e-4) -> None:
        super().__init__(tasks)
        self.norm_eps = norm_eps
        self.reg_eps = reg_eps

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        return project(gramian.new_ones(1, len(gramian)), gramian, self.norm_eps, self.reg_eps)[0]
