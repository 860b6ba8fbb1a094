"""CAGrad: conflict-averse gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.min_norm import prepare_cosines, solve_min_norm


@weightings.register("cagrad")
class CAGrad(GramianWeighting):
    """CAGrad: improve the worst task as much as possible within a ball around the mean gradient.

    With g_0 the mean of the gradients and g_ω = Σ_t ω_t g_t:

        max_d min_t g_t·d  subject to  ‖d − g_0‖ ≤ c ‖g_0‖
        ω = argmin g_ω·g_0 + √φ ‖g_ω‖,   ω_t ≥ 0,  Σ_t ω_t = 1,   φ = c² ‖g_0‖²
        d = g_0 + (√φ / ‖g_ω‖) g_ω,      update = T d,  so  w_t = 1 + T √φ ω_t / ‖g_ω‖

    With c = 0 it is `uniform`. The update of identical tasks is (1 + c) times their sum: the weights do not sum to T.
    For c < 1 the mean loss always decreases to first order; d may conflict with single tasks.

    Note:
        Deviations from the paper. The minimum is exact, by an active-set method, where the official code runs SLSQP or
        20 steps of gradient descent. The mean is multiplied by T, as there. The code divides d by 1 + c² by default,
        which is not in the paper: see `rescale`. If ‖g_ω‖ is 0 at the minimum, every d in the ball with min g_t·d = 0
        is a solution; a component of 1e-5 of each gradient's length, orthogonal to all others, then selects one. A task
        with a zero gradient cannot improve: it gets no ω, but counts for T and for the mean.

    Args:
        tasks: The T tasks.
        c: Radius of the ball relative to ‖g_0‖; the paper's theory requires c < 1.
        rescale: Divisor of the update: `none`; `squared` for 1 + c² (rescale=1 in the official code); `linear` for 1 +
            c (rescale=2).

    References:
        Liu, Liu, Jin, Stone and Liu, "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
        arXiv:2110.14048, equation 3 and algorithm 1.
    """

    def __init__(
        self,
        tasks: Sequence[WeightedTask | str],
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
        unit, lengths, zero = prepare_cosines(gramian)
        lengths = lengths.masked_fill(zero, torch.inf)
        mean = gramian.mean(1)  # g_t · g_0
        radius = self.c * mean.mean().clamp(min=0.0).sqrt()
        extra = solve_min_norm(unit, lengths, zero, mean / lengths, radius) / lengths
        return (1.0 + len(present) * extra) / self.divisor
