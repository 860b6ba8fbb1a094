"""Weights set by the user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting, WeightedTask


@weightings.register("fixed")
class Fixed(LossWeighting):
    """Fixed weights: minimize the sum of the losses, each times the `weight:` λ of its task.

        objective = Σ_t λ_t L_t

    The λ are used as they are, without normalization: doubling all of them doubles the objective.

    Args:
        tasks: The T tasks with their weights λ.
    """

    uses_task_weights = True
    weights: Tensor

    def __init__(self, tasks: Sequence[WeightedTask | str]) -> None:
        super().__init__(tasks)
        # from the configuration, so not part of the state
        self.register_buffer("weights", torch.tensor([task.weight for task in self.tasks]), persistent=False)

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        weights = self.select(self.weights, present)
        return (weights * losses).sum(), weights
