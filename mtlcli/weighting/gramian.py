"""What several methods do with a Gramian."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """G divided by the mean of its diagonal, and that mean (0-d); G = 0 stays 0, and its mean counts as 1.

    A solver's tolerances mean the same then whatever the units of the losses.
    """
    mean = gramian.diagonal().mean()
    mean = torch.where(mean > 0, mean, 1.0)
    return gramian / mean, mean


def units(gramian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The Gramian of the gradients divided by their norms, the norms [t] and their inverses (0 for a zero one)."""
    lengths = norms(gramian)
    inverses = lengths.reciprocal().nan_to_num_(posinf=0.0)
    return gramian * inverses[:, None] * inverses, lengths, inverses


def norms(gramian: Tensor) -> Tensor:
    """The norms of the tasks' gradients, [t]."""
    return gramian.diagonal().clamp(min=0.0).sqrt()
