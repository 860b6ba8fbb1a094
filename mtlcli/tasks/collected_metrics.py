"""Metrics computed at the end of an evaluation from a few numbers kept of each example.

The metrics that a task chooses in addition to those of its kind are computed in this way, and all metrics of the newer
kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from mtlcli.metric_names import FAMILY, class_in, family_of
from mtlcli.tasks.columns import Collected, ColumnCollector, Columns


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
