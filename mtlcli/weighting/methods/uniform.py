"""Equal weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting


@weightings.register("uniform")
class Uniform(LossWeighting):
    """Uniform weights: minimize the sum of the losses.

        objective = Σ_t L_t

    Args:
        tasks: The T tasks.
    """

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        return losses.sum(), torch.ones_like(losses).detach()
