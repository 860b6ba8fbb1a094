"""Predictions of a trained model in the terms of its tasks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mtlcli.tasks.base import TaskKind, at_least_float32


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of one task for B examples, on the CPU.

    Attributes:
        task: Name of the task.
        kind: Name of its kind, such as `classification`.
        labels: The predicted values. One class: a list of B class names. Several labels: a list of B lists of the names
            of those predicted. A number: float64 [B] in the target's own units.
        indices: Position in `classes` of the predicted class, int64 [B]; of several labels 0 or 1 for each of them,
            int64 [B, labels]. None for a number.
        probabilities: float32 [B, len(classes)]: of the classes, which sum to 1, or of each of several labels. None for
            a number.
        classes: Names of the classes or labels, in the order of `probabilities`; the numbers 0, 1, … if the data
            gives no names. None for a number.
        outputs: Raw outputs of the model, [B, outputs]: logits, or the predicted number.
    """

    task: str
    kind: str
    labels: list[str] | list[list[str]] | Tensor
    indices: Tensor | None
    probabilities: Tensor | None
    classes: tuple[str, ...] | None
    outputs: Tensor

    def __len__(self) -> int:
        return len(self.outputs)


def decode(task: str, kind_name: str, kind: TaskKind, outputs: Tensor) -> Predictions:
    """Convert the raw outputs of a task to predictions.

    Args:
        task: Name of the task.
        kind_name: Name of its kind.
        kind: The task's kind, which knows the meaning of the outputs.
        outputs: [B, outputs], on the CPU.

    Returns:
        Labels and, for a kind that has them, probabilities.
    """
    if kind.probabilities is None:
        values = outputs.double()
        values = values.squeeze(1) if values.ndim == 2 and values.shape[1] == 1 else values
        return Predictions(task, kind_name, values, None, None, None, outputs)
    names, logits = kind.target.class_names, at_least_float32(outputs)
    if kind.probabilities == "softmax":
        probabilities = logits.softmax(1)
        indices = logits.argmax(1)
    elif kind.positive is not None:
        positive = names.index(kind.positive)
        columns = [(-logits).sigmoid(), logits.sigmoid()]
        probabilities = torch.cat(columns if positive == 1 else columns[::-1], 1)
        indices = torch.where(logits.squeeze(1) > 0, positive, 1 - positive)
    else:
        probabilities, indices = logits.sigmoid(), (logits > 0).long()
        several = [[name for name, yes in zip(names, row, strict=True) if yes] for row in indices.tolist()]
        return Predictions(task, kind_name, several, indices, probabilities, names, outputs)
    return Predictions(task, kind_name, [names[i] for i in indices.tolist()], indices, probabilities, names, outputs)
