"""Weights that learn to bring every task's loss to 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("imtl_l")
class IMTLL(LossWeighting):
    """IMTL-L, impartial loss balance: a learned scale for each task brings all scaled losses to the same size.

    Liu, Li, Kuang, Xue, Chen, Yang, Liao and Zhang, "Towards Impartial Multi-task Learning", ICLR 2021, section 3.2:

        objective = Σ_t e^(s_t) L_t − s_t

    Its derivative by s_t is e^(s_t) L_t − 1: at the minimum every scaled loss is 1, whatever the units of its loss, and
    the weight of a task is 1 / L_t. No likelihood is assumed: classification and regression are treated alike.

    The s_t are parameters of the network's optimizer (`scale`, a tensor [1] for each task). With s = 0, where they
    start, every weight is 1. The sum of the weights is free to change: it grows as the losses fall.

    Deviations: it scales the gradients of the shared parameters as well as those of the heads; the paper's whole method
    sets the shared ones by IMTL-G instead. A task that is absent from a step keeps its s, and its −s leaves the
    objective with its loss. While a task's loss is exactly 0, or negative, its s has no minimum and grows.

    Options:
        init: where every s_t starts: the weights start at exp(init).
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, init: float = 0.0) -> None:
        super().__init__(tasks)
        # apart, so that an absent task's has no gradient at all: momentum would move one whose gradient is zero
        self.scale = nn.ParameterList(nn.Parameter(torch.tensor([float(init)])) for _ in self.tasks)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        scale = torch.cat([self.scale[task] for task in present])
        weights = torch.exp(scale)
        return (weights * losses - share * scale).sum(), weights.detach()
