"""GLS: geometric loss strategy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting

FLOOR = 1e-12


@weightings.register("gls")
class GLS(LossWeighting):
    """GLS, Geometric Loss Strategy: minimize the geometric mean of the losses.

        objective F = (Π_t L_t)^(1/T) = exp(mean_t log L_t),    so the gradient of L_t gets the weight F / (T L_t)

    Scaling the loss of a task scales the objective without changing the balance of the tasks. As in the paper, the
    weights are those of a *mean*, not of a sum as for most methods here: equal losses have weight 1/T each, so that a
    learning rate tuned for `uniform` is effectively T times too small.

    Note:
        Deviations from the paper. Computed in the logarithmic domain, which neither overflows nor underflows with many
        tasks. A loss below 1e-12 (including 0 and negative ones, for which the geometric mean is undefined) counts as
        1e-12 and gets weight 0. If tasks are absent from a step, the mean is over those present. The paper's focused
        loss, which counts a task twice, is not implemented.

    Args:
        tasks: The T tasks.

    References:
        Chennupati, Sistu, Yogamani and Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
        Strategy for Multi-Task Learning", CVPR Workshops 2019, arXiv:1904.08492, equation 2.
    """

    linear = False

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        floored = losses.clamp(min=FLOOR)
        objective = floored.log().mean().exp()
        weights = (objective / (len(present) * floored)).masked_fill(losses < FLOOR, 0.0)
        return objective, weights.detach()
