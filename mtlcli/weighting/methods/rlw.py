"""RLW: random loss weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask
from mtlcli.weighting.randomness import SeededMixin


@weightings.register("rlw")
class RLW(SeededMixin, LossWeighting):
    """RLW, Random Loss Weighting: draw new weights at every step from a fixed distribution.

    With z drawn anew at every step:

        w = T softmax(z),    objective = Σ_t w_t L_t

    Note:
        Deviations from the paper. The weights sum to the number of tasks (paper: 1). If tasks are absent from a step,
        the softmax is over those present and the weights sum to their number.

    Args:
        tasks: The T tasks.
        distribution: Distribution of z: `normal` for N(0, 1) or `uniform` for U[0, 1).

    References:
        Lin, Ye, Zhang and Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task Learning",
        TMLR 2022, arXiv:2111.10603.
    """

    def __init__(
        self, tasks: Sequence[WeightedTask | str], *, distribution: Literal["normal", "uniform"] = "normal"
    ) -> None:
        super().__init__(tasks)
        self.distribution = distribution
        self._draw: Tensor | None = None

    def start_step(self) -> None:
        """Draw z [T] for the step."""
        draw = torch.randn if self.distribution == "normal" else torch.rand
        self._draw = draw(len(self.tasks), generator=self.generator)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        assert self._draw is not None, "call start_step() before each step: it draws the weights"
        draw = self.select(self._draw, present)
        weights = (len(present) * draw.softmax(0)).to(losses.device, non_blocking=True)
        return (weights * losses).sum(), weights
