"""All tasks alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlcli.registry import weightings
from mtlcli.weighting.base import LossWeighting


@weightings.register("uniform")
class Uniform(LossWeighting):
    """The plain sum of the losses: every task has weight 1.

    objective = Σ_t L_t
    """

    def objective(self, losses: Tensor, present: Sequence[int], share: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `LossWeighting.objective`."""
        return losses.sum(), torch.ones_like(losses).detach()
