"""Random maps with missing pixels, and their metrics over batches."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.tasks.base import TaskKind

IMAGES, SIDES = 5, (6, 7)
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0])


def labelled(missing: float = 0.3) -> Tensor:
    """Return a mask, bool [B, H, W], in which the second image has no labelled pixel if any is missing."""
    mask = torch.rand(IMAGES, *SIDES, generator=torch.Generator().manual_seed(1)) >= missing
    if missing:
        mask[1] = False
    return mask


def weight_of(form: str | None) -> Tensor | None:
    """Return weights of images or of pixels."""
    pixels = torch.randint(0, 3, (IMAGES, *SIDES), generator=torch.Generator().manual_seed(2)).float()
    return {"images": WEIGHTS, "pixels": pixels}.get(form or "")


def in_numpy(weight: Tensor | None) -> NDArray[np.float64] | None:
    """Return the weights of all pixels."""
    if weight is None:
        return None
    return weight.view(len(weight), *([1, 1] if weight.ndim == 1 else SIDES)).expand(-1, *SIDES).double().numpy()


def ones() -> NDArray[np.float64]:
    return np.ones((IMAGES, *SIDES))


def measure(task: TaskKind, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> dict[str, float]:
    """Compute the metrics that the task reports over batches of different sizes."""
    metrics = task.create_metrics(torch.device("cpu"))
    for rows in (slice(0, 1), slice(1, 4), slice(4, IMAGES)):
        metrics.update(prediction[rows], target[rows], *(() if weight is None else (weight[rows],)))
    return metrics.compute()


def gradient(task: TaskKind, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    prediction = prediction.clone().requires_grad_()
    task.loss(prediction, target, weight).backward()
    assert prediction.grad is not None
    return prediction.grad
