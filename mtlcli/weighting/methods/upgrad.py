"""The sum of the gradients, each projected so that it conflicts with none of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.dual_cone import NormEps, RegEps, project


@weightings.register("upgrad")
class UPGrad(GramianWeighting):
    """UPGrad: every task's gradient is projected onto the directions that conflict with no task, then they are summed.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232, 2024, equation 3 and
    proposition 1, with the sum in place of the mean:

        update = Σ_t π(g_t),    π(x) the nearest point to x in {d: g_i·d ≥ 0 for all i}
        w = Σ_t argmin_v vᵀ G v  with  v ≥ e_t

    Tasks without conflict have weight 1 each. All weights are at least 1: a conflict is resolved by adding to the
    other gradients, and the weights sum to more than the number of tasks then.

    As in TorchJD, G is first divided by its trace, and `reg_eps` is added to its diagonal, so that w is unique. The
    weights are invariant to the scale of all the gradients, while the trace is above `norm_eps`. Promised: no task's
    loss rises to first order, G w ≥ −reg_eps·tr(G)·w.

    Deviations: TorchJD, the authors' code, calls a QP solver on the CPU for each task; here all are solved at once,
    exactly and where G is.

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
        each = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
        return project(each, gramian, self.norm_eps, self.reg_eps).sum(0)
