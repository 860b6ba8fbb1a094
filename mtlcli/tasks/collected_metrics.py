"""Metrics computed at the end of an evaluation from a few numbers kept of each example.

The metrics that a task chooses in addition to those of its kind are computed in this way, and all metrics of the newer
kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mtlcli.metric_names import FAMILY, class_in, family_of


class Columns(Protocol):
    """Numbers of a batch from which metrics are computed, by a method for each column, which returns [B, …]."""

    def labelled(self) -> Tensor:
        """Return the mask of the labelled examples, bool [B]."""


@dataclass(frozen=True)
class Collected:
    """Numbers of all labelled examples of a split, on the CPU.

    Attributes:
        columns: name → [N] or [N, size], one of the numbers that a kind derives from predictions and labels.
        weight: weights of the examples, float64 [N]; None for equal weights.
        classes: names of the classes, labels or quantiles.
        positive: index of the positive class, for a kind that distinguishes one; otherwise None.
    """

    columns: Mapping[str, Tensor]
    weight: Tensor | None
    classes: Sequence[str] = ()
    positive: int | None = None

    @property
    def size(self) -> int:
        """Number of classes, labels or quantiles."""
        return len(self.classes)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def mean(self, values: Tensor) -> Tensor:
        """Compute the mean of a number of each example, weighted if there are weights, in float64.

        Args:
            values: numbers, [N] or [N, size].

        Returns:
            The mean, 0-d or [size].
        """
        values = values.double()
        if self.weight is None:
            return values.mean(0)
        weight = self.weight if values.ndim == 1 else self.weight.unsqueeze(1)
        return (values * weight).sum(0) / self.weight.sum()


@dataclass(frozen=True)
class CollectedMetric:
    """A metric that is computed from collected numbers.

    Attributes:
        direction: whether larger (`max`) or smaller (`min`) values are better.
        columns: names of the columns that it is computed from.
        compute: the function: collected columns → value, 0-d; of a metric of all classes, [size].
        weighted: whether it is defined for weighted examples.
    """

    direction: Literal["max", "min"]
    columns: tuple[str, ...]
    compute: Callable[[Collected], Tensor]
    weighted: bool = True


def varies(values: Tensor) -> bool:
    """Return whether the values, [N], are not all equal."""
    return bool((values != values[0]).any())


def bounded_metrics(table: Mapping[str, CollectedMetric]) -> frozenset[str]:
    """Return the metrics of a table whose best value is 1: those of which larger values are better.

    Args:
        table: name → metric.

    Returns:
        Their names; of a metric of all classes, the name without `_per_class`.
    """
    names = (name for name, metric in table.items() if metric.direction == "max")
    return frozenset(family[1] if (family := FAMILY.fullmatch(name)) else name for name in names)


class ColumnCollector:
    """Columns of all labelled examples of a split, which are kept on the device, batch by batch.

    Args:
        names: the columns to keep.
        columns: function: predictions [B, outputs] and labels [B, …] → columns.
        classes: names of the classes, labels or quantiles.
        positive: name of the positive class, for a kind that distinguishes one.
    """

    def __init__(
        self,
        names: Iterable[str],
        columns: Callable[[Tensor, Tensor], Columns],
        classes: Sequence[str],
        positive: str | None = None,
    ) -> None:
        self._columns = columns
        self._classes = list(classes)
        self._positive = None if positive is None else self._classes.index(positive)
        self._kept: dict[str, list[Tensor]] = {name: [] for name in ("labelled", *names)}
        self._weights: list[Tensor] = []

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs].
            target: labels, [B] or [B, size].
            weight: weights of the examples, [B], in all batches or in none.
        """
        columns = self._columns(prediction, target)
        for name, batches in self._kept.items():
            batches.append(getattr(columns, name)())
        if weight is not None:
            self._weights.append(weight)

    def collect(self) -> Collected | None:
        """Return the columns of the labelled examples whose weight isn't 0; None if there are none."""
        kept = {name: torch.cat(batches).cpu() for name, batches in self._kept.items() if batches}
        weight = torch.cat(self._weights).cpu().double() if self._weights else None
        rows = kept.pop("labelled", torch.zeros(0, dtype=torch.bool))
        if weight is not None:
            rows = rows & (weight > 0)
        if not rows.any():
            return None
        weight = None if weight is None else weight[rows]
        return Collected({name: values[rows] for name, values in kept.items()}, weight, self._classes, self._positive)


class CollectedMetrics:
    """Metrics that keep a few numbers of each example on the device, and are computed on the CPU.

    Args:
        table: name → metric, of all metrics of the kind.
        names: the metrics to compute, such as `log_loss` or `precision[cat]`.
        columns: function: predictions [B, outputs] and labels [B, …] → columns.
        classes: names of the classes, labels or quantiles.
        positive: name of the positive class, for a kind that distinguishes one.
    """

    def __init__(
        self,
        table: Mapping[str, CollectedMetric],
        names: Sequence[str],
        columns: Callable[[Tensor, Tensor], Columns],
        classes: Sequence[str],
        positive: str | None = None,
    ) -> None:
        self._metrics = {name: table[family_of(name, table) or name] for name in names}
        needed = (name for metric in self._metrics.values() for name in metric.columns)
        self._collector = ColumnCollector(needed, columns, classes, positive)
        self._positions = {name: position for position, name in enumerate(classes)}

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch; see `ColumnCollector.update`."""
        self._collector.update(prediction, target, weight)

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no example was labelled."""
        collected = self._collector.collect()
        if collected is None:
            return dict.fromkeys(self._metrics, math.nan)
        results: dict[CollectedMetric, Tensor] = {}
        values: dict[str, float] = {}
        for name, metric in self._metrics.items():
            if metric not in results:
                results[metric] = metric.compute(collected)
            label = class_in(name)
            values[name] = float(results[metric] if label is None else results[metric][self._positions[label]])
        return values


class ChosenMetrics:
    """The metrics that a task chooses, in its order: those of its kind, and collected ones.

    Args:
        names: the metrics, without `loss`.
        parts: the metrics that compute them, and others that are left out.
    """

    def __init__(self, names: Sequence[str], parts: Sequence[Any]) -> None:
        self._names, self._parts = list(names), list(parts)

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs].
            target: labels, [B] or [B, size].
            weight: weights of the examples, [B], in all batches or in none.
        """
        for part in self._parts:
            part.update(prediction, target, *(() if weight is None else (weight,)))

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches."""
        values = {name: value for part in self._parts for name, value in part.compute().items()}
        return {name: values[name] for name in self._names}
