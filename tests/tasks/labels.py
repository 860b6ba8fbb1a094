"""Random labels with missing ones, in the formats of the oracles (None) and of datasets (IGNORE_INDEX, NaN)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, MAP_TYPES, TargetSpec
from mtlcli.tasks.base import TaskKind

MISSING_SHARES = [0.0, 0.4, 1.0]
TOKENS, WIDTH = 4, 5  # of the sequences and the vectors of model outputs
PIXELS = (2, 3)  # height and width of maps


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


def model_outputs(task: TaskKind, rows: int, seed: int = 0) -> Tensor:
    """Return outputs of a model for the task, after the output layer that its kind may have."""
    shape = (rows, TOKENS) if task.predicts == "sequence" else (2 * rows,) if task.pairs else (rows,)
    shape = (*shape, task.outputs or WIDTH, *(PIXELS if task.predicts == "map" else ()))
    raw = 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    layer = task.output_layer()
    return raw if layer is None else layer(raw)


def target_labels(accepted: str, rows: int, size: int) -> Tensor:
    """Return labels of a target type, none of which is missing; those of classes and tags are below 2."""
    shapes = {"multilabel": (rows, size), "tags": (rows, TOKENS), "real_map": (rows, size, *PIXELS)}
    shape = shapes.get(accepted, (rows, *(PIXELS if accepted in MAP_TYPES else ())))
    generator = torch.Generator().manual_seed(0)
    if accepted == "normal_map":  # other numbers than those of `model_outputs`
        return torch.nn.functional.normalize(torch.rand(rows, 3, *PIXELS, generator=generator) - 0.5, dim=1)
    target = torch.randint(0, 2, shape, generator=generator)
    if accepted == "depth_map":
        return target + 0.5
    return target if accepted in ("classes", "tags", "class_map") else target.float()


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
