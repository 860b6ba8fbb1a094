"""How far the tasks' gradients disagree."""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.weighting.gramian import units


def conflict(gramian: Tensor) -> Tensor:
    """[2]: the mean cosine of the pairs of tasks, and the share of the pairs whose cosine is negative.

    gramian: [t, t]. A task with a zero gradient is in no pair; NaN where there is no pair.
    """
    cosines, lengths, _ = units(torch, gramian)
    there = (lengths > 0).to(gramian.dtype)
    pairs = torch.outer(there, there).triu_(diagonal=1)
    cosines = cosines * pairs
    return torch.stack([cosines.sum(), (cosines < 0).sum().to(cosines)]) / pairs.sum()
