"""The gradients' bargaining solution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.bargaining import bargain


@weightings.register("nash_mtl")
class NashMTL(GramianWeighting):
    """Nash-MTL: the tasks bargain for the update, and none can gain a percent without the others losing more.

    Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-Task Learning as a Bargaining Game", ICML
    2022, claim 3.1: the d in a ball that maximizes Σ_t log g_t·d, a task's utility being what its loss falls by, is

        d ∝ Jᵀα    with    G α = 1/α,  α > 0        (element by element)
        w = T α / Σ_t α_t,    update Jᵀw, shortened to ‖Jᵀw‖ ≤ max_norm

    Every task gets the same share, α_t g_t·d, so the update is in conflict with none where it isn't 0. Its direction is
    the same whatever the units of a loss: with c L_t for L_t, α_t becomes α_t / c.

    Deviations: solved by Newton's method (see `newton`), where the paper and the official code run up to 20 convex
    programs and stop at a residual of 1e-3. Nash's own α has a scale set by the gradients, ‖Jᵀα‖² = T always (with the
    Gramian divided by its norm, as in the official code, T ‖G‖); ours is scaled to a sum of T, like all weights here.
    Where some combination of the gradients is 0 (Pareto stationary) there is no solution: the direction that α grows in
    is found with a ridge of 1e-8 of G's diagonal, and the update is nearly 0. A task whose gradient is 0 has no part in
    the game and the weight 1; the others' weights sum to their number. `max_norm` shortens the weights in the step that
    solves for them; with `every: k` (the code's `update_weights_every`) they stay the same in the steps after it, where
    the code would clip each anew. As there, only the update of the shared parameters is shortened.

    Options:
        max_norm: the most that ‖Jᵀw‖ can be (the official code's default, 1); null for no limit.
    """

    def __init__(self, tasks: Sequence[WeightedTask], *, max_norm: PositiveFloat | None = 1.0) -> None:
        super().__init__(tasks)
        self.max_norm = max_norm

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        weights = bargain(gramian, 1.0)
        if self.max_norm is None:
            return weights
        norm = (weights @ (gramian @ weights)).clamp(min=0.0).sqrt()
        return weights * (self.max_norm / norm.clamp(min=self.max_norm))
