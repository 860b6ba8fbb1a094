"""The worst-off task improved as much as possible, near the mean gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.min_norm import cosines, nearest_to_zero


@weightings.register("cagrad")
class CAGrad(GramianWeighting):
    """CAGrad, conflict-averse gradient descent: within a ball around the mean gradient, what helps the worst task most.

    Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021, equation 3
    and algorithm 1, with g_0 the mean of the gradients and g_ω = Σ_t ω_t g_t:

        max_d min_t g_t·d  subject to  ‖d − g_0‖ ≤ c ‖g_0‖
        ω = argmin g_ω·g_0 + √φ ‖g_ω‖,   ω_t ≥ 0,  Σ_t ω_t = 1,   φ = c² ‖g_0‖²
        d = g_0 + (√φ / ‖g_ω‖) g_ω,      update T d,  so  w_t = 1 + T √φ ω_t / ‖g_ω‖

    c = 0 is `uniform`. The update of tasks all alike is (1 + c) times their sum: the weights don't sum to T. For c < 1
    the mean loss always falls; a single task may still be in conflict with d.

    Deviations: the exact minimum, by an active-set method (see `min_norm`), where the official code runs SLSQP, or 20
    steps of gradient descent. The mean is multiplied by T, as there. The code divides d by 1 + c² by default, an
    equation that the paper doesn't have: `rescale`. Where ‖g_ω‖ is 0 at the minimum, any d does in the ball for which
    min g_t·d = 0; each gradient then counts as having a part of its own, of 1e-5 its length. A task whose gradient is 0
    can't be improved: it has no ω, but it counts for T and for the mean.

    Options:
        c: the radius of the ball, as a part of ‖g_0‖; the paper's theory has c < 1.
        rescale: `none`; `squared` divides the update by 1 + c² (the official code's rescale=1), `linear` by 1 + c (2).
    """

    def __init__(
        self,
        tasks: Sequence[WeightedTask],
        *,
        c: Annotated[float, Field(ge=0, le=100)] = 0.4,
        rescale: Literal["none", "squared", "linear"] = "none",
    ) -> None:
        super().__init__(tasks)
        self.c = c
        self.divisor = {"none": 1.0, "squared": 1.0 + c**2, "linear": 1.0 + c}[rescale]

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        unit, lengths, zero = cosines(gramian)
        lengths = lengths.masked_fill(zero, torch.inf)
        mean = gramian.mean(1)  # g_t · g_0
        radius = self.c * mean.mean().clamp(min=0.0).sqrt()
        extra = nearest_to_zero(unit, lengths, zero, mean / lengths, radius) / lengths
        return (1.0 + len(present) * extra) / self.divisor
