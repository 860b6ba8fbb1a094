"""The product of the losses instead of their sum."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting

FLOOR = 1e-12


@weightings.register("gls")
class GLS(LossWeighting):
    """Geometric Loss Strategy: the geometric mean of the losses, which no scaling of a task's loss can unbalance.

    Chennupati, Sistu, Yogamani and Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy
    for Multi-Task Learning", CVPR Workshops 2019, equation 2:

        objective F = (Π_t L_t)^(1/T) = exp(mean_t log L_t),    so the gradient of L_t gets the weight F / (T L_t)

    The weights are those of a *mean*, as the paper has it, not of a sum as elsewhere here: equal losses have weight 1/T
    each. A learning rate tuned for `uniform` is T times larger in effect than here.

    Deviations: computed through logarithms, which neither overflow nor underflow at many tasks. A loss below 1e-12
    (or 0, or negative, for which the geometric mean isn't defined) counts as 1e-12 and gets the weight 0. A task that
    is absent from a step leaves the mean: T is then the number of those present. The paper's focused loss (a task
    counted twice) isn't here.
    """

    linear = False

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        floored = losses.clamp(min=FLOOR)
        objective = floored.log().mean().exp()
        weights = (objective / (len(present) * floored)).masked_fill(losses < FLOOR, 0.0)
        return objective, weights.detach()
