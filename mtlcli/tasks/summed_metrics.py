"""Metrics of maps, computed at the end of an evaluation from sums over the images of a split."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mtlcli.errors import suggest
from mtlcli.metric_names import class_in, family_of
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, Columns


class SummedMetrics:
    """Metrics that are functions of sums over the images, such as a confusion matrix.

    The numbers of an image are summed over its labelled pixels, so that memory is bounded by one batch. All metrics use
    the same sums, and each is over all pixels of the split: not a mean of the means of images or batches. Sums are
    float64 on the device; on MPS, which has no float64, those of a batch are float32, and those of a split on the CPU.

    Args:
        table: name → metric, of all metrics of the kind; its columns are names of sums.
        names: the metrics to compute, such as `miou` or `iou[floor]`.
        columns: function: predictions [B, outputs, H, W] and labels [B, …] → numbers of each image, by a method for
            each column, which returns [B, …].
        classes: names of the classes.
    """

    def __init__(
        self,
        table: Mapping[str, CollectedMetric],
        names: Sequence[str],
        columns: Callable[[Tensor, Tensor], Columns],
        classes: Sequence[str] = (),
    ) -> None:
        self._metrics = {name: table[family_of(name, table) or name] for name in names}
        self._needed = sorted({column for metric in self._metrics.values() for column in metric.columns})
        self._columns, self._classes = columns, list(classes)
        self._sums: dict[str, Tensor] = {}

    def of_images(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute the numbers of each image whose sums determine the metrics.

        Args:
            prediction: predictions, [B, outputs, H, W].
            target: labels, [B, H, W] or [B, C, H, W].

        Returns:
            Name → [B, …].
        """
        columns = self._columns(prediction, target)
        return {name: getattr(columns, name)() for name in self._needed}

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs, H, W].
            target: labels, [B, H, W] or [B, C, H, W].
            weight: weights of the images, [B], by which all sums are weighted.
        """
        self.add(self.of_images(prediction, target), weight)

    def add(self, numbers: Mapping[str, Tensor], weight: Tensor | None = None) -> None:
        """Add the numbers of images.

        Args:
            numbers: name → [B, …], as returned by `of_images`.
            weight: weights of the images, [B]; None for equal weights.
        """
        for name, values in numbers.items():
            total = _sum(values, weight)
            self._sums[name] = self._sums[name] + total if name in self._sums else total

    def sums(self) -> dict[str, Tensor]:
        """Return name → sum over all batches, float64 on the CPU; empty without a batch."""
        return {name: total.cpu() for name, total in self._sums.items()}

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no pixel was labelled."""
        if not self._sums:
            return dict.fromkeys(self._metrics, math.nan)
        return self._compute(self.sums())

    def compute_samples(self, numbers: Mapping[str, Tensor], weights: Tensor) -> list[dict[str, float]]:
        """Compute the metrics of several samples of the same images.

        Args:
            numbers: name → numbers of the images, [n, …], as returned by `of_images`, on the CPU.
            weights: weight of each image in each sample, float64 [samples, n]; 0 if the image isn't in it.

        Returns:
            Metric → value, for each sample.
        """
        sums = {name: _weigh(values.double(), weights) for name, values in numbers.items()}
        return [self._compute({name: sums[name][sample] for name in sums}) for sample in range(len(weights))]

    def _compute(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Compute the metrics from sums over the images."""
        sums = Collected(dict(totals), None, self._classes)
        results: dict[CollectedMetric, Tensor] = {}
        values: dict[str, float] = {}
        for name, metric in self._metrics.items():
            if metric not in results:
                results[metric] = metric.compute(sums)
            label = class_in(name)
            values[name] = float(results[metric] if label is None else results[metric][self._classes.index(label)])
        return values


def _sum(values: Tensor, weight: Tensor | None) -> Tensor:
    """Sum numbers of images, [B, …], in float64, weighted if there are weights; an image of weight 0 doesn't count."""
    if values.device.type == "mps":
        values, weight = values.cpu(), None if weight is None else weight.cpu()
    if weight is None:
        return values.sum(0, dtype=torch.float64)
    weight = weight.double().view(-1, *[1] * (values.ndim - 1))
    return (values.double().masked_fill(weight == 0, 0.0) * weight).sum(0)


def _weigh(values: Tensor, weights: Tensor) -> Tensor:
    """Sum numbers of images, [n, …], with several weights, [samples, n]; an image of weight 0 doesn't count."""
    defined = values.isfinite()
    sums = weights @ values.masked_fill(~defined, 0.0).reshape(len(values), -1)
    if not bool(defined.all()):
        sums[(weights > 0).double() @ (~defined).double().reshape(len(values), -1) > 0] = math.nan
    return sums.view(len(weights), *values.shape[1:])


def check_metrics(names: Sequence[str], table: Mapping[str, CollectedMetric], form: str) -> None:
    """Check that chosen metrics apply to the form of a task's targets, for a kind that accepts several.

    Args:
        names: the chosen metrics, valid for the kind.
        table: name → metric, of those that apply.
        form: the form of the targets, for the message.

    Raises:
        ValueError: a metric doesn't apply.
    """
    for name in names:
        if (family_of(name, table) or name) not in table:
            raise ValueError(
                f"the metric {name!r} does not apply to {form}.{suggest(name, table)} Choose from: {', '.join(table)}"
            )
