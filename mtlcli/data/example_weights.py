"""Weights of examples in losses and metrics, in the order of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.label_counts import count_labels
from mtlcli.data.samplers.base import Rows
from mtlcli.specs import has_label, is_labelled

Amounts = NDArray[np.float64]
LabelWeights = Tensor | Callable[[Tensor], Tensor]
"""Weights in the loss: of each class, [K]; or a function: labels → weight of each example, float32 [N]."""


@dataclass(frozen=True)
class OrderedWeights:
    """Weights of a dataset's examples in the order of one epoch.

    Attributes:
        loss: task → weights in the loss, float32 [amount] on the device; [amount, W] if words have class weights.
        metrics: task → weights in the metrics, likewise; only the dataset's own.
        amounts: task → weights in the loss of all labels of an example, 0 without labels, on the host.
        counted: task → number of labels of an example that count in the metrics, see `count_labels`, on the host.
    """

    loss: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]
    amounts: Mapping[str, Amounts]
    counted: Mapping[str, Rows]


class ExampleWeights:
    """Weights of all examples of a dataset, for the tasks with weights.

    Args:
        targets: task → labels, [N] or [N, size].
        weights: the dataset's own weights, float32 [N]; None for equal ones.
        class_weights: task → weight of each class, [K], or the function of labels that returns one for each example; a
            factor in the loss only.
        device: training device.
    """

    def __init__(
        self,
        targets: Mapping[str, Tensor],
        weights: Tensor | None,
        class_weights: Mapping[str, LabelWeights],
        device: torch.device,
    ) -> None:
        self._own = None if weights is None else weights.to(device)
        self._loss: dict[str, Tensor] = {}
        self._amounts: dict[str, Amounts] = {}
        self._counted: dict[str, Rows] = {}
        for task, target in targets.items():
            if weights is None and task not in class_weights:
                continue
            loss = torch.ones(len(target)) if weights is None else weights
            counted, factor = count_labels(target), class_weights.get(task)
            if callable(factor):
                loss, factor = loss * factor(target), None
            if factor is not None:
                labelled = is_labelled(target)
                factors = factor.to(torch.float32)[target.masked_fill(~labelled, 0).long()]
                loss = (loss.view(-1, *[1] * (target.ndim - 1)) * factors).masked_fill(~labelled, 0.0)
                self._amounts[task] = (
                    loss.double().flatten(1).sum(1).numpy() if loss.ndim > 1 else loss.double().numpy()
                )
            else:
                self._amounts[task] = (loss.masked_fill(~has_label(target), 0.0).double() * counted).numpy()
            self._loss[task] = loss.to(device)
            self._counted[task] = (counted if weights is None else counted * (weights > 0)).numpy()

    def order(self, rows: Rows, on_device: Tensor) -> OrderedWeights:
        """Return the weights of some rows.

        Args:
            rows: the rows in the order of the epoch, int64 [amount].
            on_device: the same on the device.

        Returns:
            Their weights.
        """
        own = None if self._own is None else self._own.index_select(0, on_device)
        return OrderedWeights(
            {task: loss.index_select(0, on_device) for task, loss in self._loss.items()},
            {} if own is None else dict.fromkeys(self._loss, own),
            {task: amounts[rows] for task, amounts in self._amounts.items()},
            {task: counted[rows] for task, counted in self._counted.items()},
        )
