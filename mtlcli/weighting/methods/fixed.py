"""Weights that the user sets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("fixed")
class Fixed(LossWeighting):
    """The sum of the losses with each task's own `weight:` λ.

    objective = Σ_t λ_t L_t

    The λ are used as they are, not normalized: doubling all of them doubles the objective.
    """

    uses_task_weights = True
    weights: Tensor

    def __init__(self, tasks: Sequence[WeightedTask]) -> None:
        super().__init__(tasks)
        # Set by the configuration, not learned: no part of the state.
        self.register_buffer("weights", torch.tensor([task.weight for task in self.tasks]), persistent=False)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        weights = self.select(self.weights, present)
        return (weights * losses).sum(), weights
