"""How far the tasks' gradients disagree."""

from __future__ import annotations

import torch
from torch import Tensor


def conflict(gramian: Tensor) -> Tensor:
    """[2]: the mean cosine of the pairs of tasks, and the share of the pairs whose cosine is negative.

    gramian: [t, t]. A task with a zero gradient is in no pair; NaN where there is no pair.
    """
    norms = gramian.diagonal().clamp(min=0.0).sqrt()
    products = torch.outer(norms, norms)
    pairs = torch.triu(products > 0, diagonal=1)
    cosines = torch.where(pairs, gramian / torch.where(pairs, products, 1.0), 0.0)
    return torch.stack([cosines.sum(), (cosines < 0).sum().to(cosines)]) / pairs.sum()
