"""Nash-MTL: multi-task learning as a bargaining game."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import PositiveFloat
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import GramianWeighting, WeightedTask
from mtlcli.weighting.solvers.bargaining import solve_bargaining


@weightings.register("nash_mtl")
class NashMTL(GramianWeighting):
    """Nash-MTL: find the Nash bargaining solution, with the decrease of its loss as the utility of a task.

    The d in a ball that maximizes Σ_t log g_t·d is

        d ∝ Jᵀα    with    G α = 1/α,  α > 0        (element-wise)
        w = T α / Σ_t α_t,    update = Jᵀw, shortened to ‖Jᵀw‖ ≤ max_norm

    α_t g_t·d is the same for all tasks, so the update conflicts with none unless it is 0. Its direction does not depend
    on the units of the losses: replacing L_t by c L_t replaces α_t by α_t / c.

    Note:
        Deviations from the paper. Solved by Newton's method, where the paper and the official code solve up to 20
        convex programs and stop at a residual of 1e-3. The scale of Nash's α depends on the gradients, ‖Jᵀα‖² = T
        always (T ‖G‖ with the official code's normalization of the Gramian); here it is scaled to a sum of T. If a
        combination of the gradients is 0 (Pareto stationary), there is no solution: the direction in which α grows is
        computed with a ridge of 1e-8 on G's diagonal, and the update is nearly 0. A task with a zero gradient does not
        take part and gets weight 1; the other weights sum to the number of the other tasks. `max_norm` shortens the
        weights in the step that solves for them; with `every: k` (`update_weights_every` in the code) the following
        steps reuse them, where the code clips each update anew. As there, only the update of the shared parameters is
        shortened.

    Args:
        tasks: The T tasks.
        max_norm: Largest norm ‖Jᵀw‖ of the update, by default the official code's; null for no limit.

    References:
        Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya, "Multi-Task Learning as a Bargaining Game",
        ICML 2022, arXiv:2202.01017, claim 3.1.
    """

    def __init__(self, tasks: Sequence[WeightedTask | str], *, max_norm: PositiveFloat | None = 1.0) -> None:
        super().__init__(tasks)
        self.max_norm = max_norm

    @torch.no_grad()
    def weights(self, gramian: Tensor, losses: Tensor, present: Sequence[int]) -> Tensor:
        """See `GramianWeighting.weights`."""
        weights = solve_bargaining(gramian, 1.0)
        if self.max_norm is None:
            return weights
        norm = (weights @ (gramian @ weights)).clamp(min=0.0).sqrt()
        return weights * (self.max_norm / norm.clamp(min=self.max_norm))
