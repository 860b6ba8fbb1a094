"""IMTL-L: impartial multi-task learning, loss balance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("imtl_l")
class IMTLL(LossWeighting):
    """IMTL-L: learn a scale per task that brings all scaled losses to the same size.

        objective = Σ_t e^(s_t) L_t − s_t

    The derivative with respect to s_t is e^(s_t) L_t − 1: at the minimum every scaled loss is 1, whatever its units,
    and the weight of a task is 1 / L_t. No likelihood is assumed, so classification and regression are treated alike.

    The s_t are parameters of the network's optimizer (`scale`, a tensor [1] per task). With s = 0, the default start,
    every weight is 1. The sum of the weights is not fixed: it grows as the losses decrease.

    Note:
        Deviations from the paper. The gradients of the shared parameters are scaled as well as those of the heads; the
        paper's full method uses IMTL-G for the shared ones. A task that is absent from a step keeps its s, and its −s
        leaves the objective together with its loss. While a loss is exactly 0 or negative, its s has no minimum and
        grows.

    Args:
        tasks: The T tasks.
        init: Initial value of every s_t; the weights start at exp(init).

    References:
        Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section
        3.2.
    """

    def __init__(self, tasks: Sequence[WeightedTask | str], *, init: float = 0.0) -> None:
        super().__init__(tasks)
        # one parameter per task: that of an absent task has no gradient, whereas momentum would move a zero gradient
        self.scale = nn.ParameterList(nn.Parameter(torch.tensor([float(init)])) for _ in self.tasks)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        scale = torch.cat([self.scale[task] for task in present])
        weights = torch.exp(scale)
        return (weights * losses - share * scale).sum(), weights.detach()
