"""Random labels with missing ones, in the formats of the oracles (None) and of datasets (IGNORE_INDEX, NaN)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind

MISSING_SHARES = [0.0, 0.4, 1.0]


def kind(name: str, target: TargetSpec, **options: object) -> TaskKind:
    created: TaskKind = kinds[name].target(target, **options)
    return created


def class_labels(classes: int, rows: int, missing: float, seed: int = 0) -> list[int | None]:
    rng = np.random.default_rng(seed)
    return [None if rng.random() < missing else int(rng.integers(classes)) for _ in range(rows)]


def real_labels(rows: int, missing: float, seed: int = 0) -> list[float | None]:
    rng = np.random.default_rng(seed)
    return [None if rng.random() < missing else float(np.float32(3 * rng.normal() + 1)) for _ in range(rows)]


def as_indices(labels: list[int | None]) -> Tensor:
    return torch.tensor([IGNORE_INDEX if label is None else label for label in labels])


def as_floats(labels: list[float | None] | list[int | None]) -> Tensor:
    return torch.tensor([float("nan") if label is None else float(label) for label in labels])


def predictions(rows: int, outputs: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(rows, outputs, generator=torch.Generator().manual_seed(seed))


def loss_and_gradient(task: TaskKind, prediction: Tensor, target: Tensor) -> tuple[float, np.ndarray]:
    prediction = prediction.clone().requires_grad_()
    loss = task.loss(prediction, target)
    assert loss.shape == () and loss.dtype == torch.float32
    loss.backward()
    assert prediction.grad is not None
    return loss.item(), prediction.grad.double().numpy()


def measured(task: TaskKind, prediction: Tensor, target: Tensor, batch: int = 13) -> dict[str, float]:
    """Compute the metrics over several batches, the last one smaller."""
    metrics = task.metrics(torch.device("cpu"))
    for start in range(0, len(target), batch):
        metrics.update(prediction[start : start + batch], target[start : start + batch])
    return metrics.compute()
