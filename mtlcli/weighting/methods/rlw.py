"""Random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, Seeded, WeightedTask


@weightings.register("rlw")
class RLW(Seeded, LossWeighting):
    """Random Loss Weighting: new weights at every step, from a fixed distribution.

    Lin, Ye, Zhang and Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
    TMLR 2022, with z drawn anew at every step:

        w = T softmax(z),    objective = Σ_t w_t L_t

    Deviations: the paper's weights sum to 1, these to the number of tasks, as all of ours do. With tasks absent from a
    step, the softmax is over those present and the weights sum to their number.

    Options:
        distribution: of z: `normal` N(0, 1) or `uniform` U[0, 1).
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, distribution: Literal["normal", "uniform"] = "normal") -> None:
        super().__init__(tasks)
        self.distribution = distribution
        self._draw: Tensor | None = None

    def start_step(self) -> None:
        """Draw the step's z [T]."""
        draw = torch.randn if self.distribution == "normal" else torch.rand
        self._draw = draw(len(self.tasks), generator=self.generator)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        assert self._draw is not None, "start_step() draws the weights, and wasn't called"
        draw = self.select(self._draw, present)
        weights = (len(present) * draw.softmax(0)).to(losses.device, non_blocking=True)
        return (weights * losses).sum(), weights
