"""UPGrad: unconflicting projection of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.dual_cone import NormEps, RegEps, project_onto_dual_cone


@weightings.register("upgrad")
class UPGrad(GramianWeighting):
    """UPGrad: project each gradient onto the directions that conflict with no task, and sum.

        update = Σ_t π(g_t),    π(x) the point nearest to x in {d: g_i·d ≥ 0 for all i}
        w = Σ_t argmin_v vᵀ G v  subject to  v ≥ e_t

    Without conflicts all weights are 1. Otherwise a conflict is resolved by increasing the weights of the other
    gradients, so all weights are at least 1 and sum to more than T.

    As in TorchJD, G is first divided by its trace, and `reg_eps` is added to its diagonal, so that w is unique. The
    weights are invariant to a common scale of all gradients while the trace is above `norm_eps`. To first order no
    task's loss increases: G w ≥ −reg_eps·tr(G)·w.

    Note:
        Deviations from the paper. The sum of the tasks, where the paper takes their mean. TorchJD, the authors' code,
        calls a QP solver on the CPU for each task; here all problems are solved at once, exactly, on the device of G.

    Args:
        tasks: The T tasks.
        norm_eps: Value of Σ_t ‖g_t‖² below which the gradients are summed without projection.
        reg_eps: Ridge added to the diagonal of G after it is divided by its trace.

    References:
        Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024, arXiv:2406.16232, equation 3 and
        proposition 1.
    """

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, norm_eps: NormEps = 1e-4, reg_eps: RegEps = 1e-4
    ) -> None:
        super().__init__(tasks)
        self.norm_eps = norm_eps
        self.reg_eps = reg_eps

    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        each = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
        return project_onto_dual_cone(each, gramian, self.norm_eps, self.reg_eps).sum(0)
