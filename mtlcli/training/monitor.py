"""Monitored value of an epoch, which selects the best one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mtlcli.config import MEAN, Experiment
from mtlcli.tasks.base import TaskKind
from mtlcli.training.evaluate import TaskMetrics


class Monitor:
    """The metrics that `evaluation.monitor` selects, and their mean.

    Args:
        experiment: the experiment.
        kinds: task → its kind.

    Attributes:
        split: the evaluated split.
        metrics: task → its monitored metric.
        direction: whether a larger (`max`) or a smaller (`min`) value is better.
        name: the value's name in reports, such as `val digit accuracy` or `val mean primary`.

    Raises:
        ValueError: if a task has no such metric, or the mean is of metrics with opposite directions.
    """

    def __init__(self, experiment: Experiment, kinds: Mapping[str, TaskKind]) -> None:
        task, metric = experiment.evaluation.monitor.task, experiment.evaluation.monitor.metric
        self.split = experiment.evaluation.split
        self.name = f"{self.split} {task} {metric}"
        tasks = list(kinds) if task == MEAN else [task]
        self.metrics = {name: kinds[name].primary if metric == "primary" else metric for name in tasks}
        for name, chosen in self.metrics.items():
            if chosen not in kinds[name].directions:
                raise ValueError(f"task {name!r} has no metric {chosen!r}; it has: {', '.join(kinds[name].directions)}")
        directions = {name: kinds[name].directions[chosen] for name, chosen in self.metrics.items()}
        if len(set(directions.values())) > 1:
            opposed = ", ".join(f"{name} {self.metrics[name]} ({way})" for name, way in directions.items())
            raise ValueError(
                f"the mean of metrics with opposite directions is meaningless: {opposed}; monitor one task, or loss"
            )
        self.direction = next(iter(directions.values()))

    def value(self, metrics: TaskMetrics) -> float:
        """Return the mean of the monitored metrics that are finite; NaN if none is."""
        finite = [value for task, metric in self.metrics.items() if math.isfinite(value := metrics[task][metric])]
        return sum(finite) / len(finite) if finite else math.nan

    def is_better(self, value: float, best: float) -> bool:
        """Return whether a value is better than the best so far. Any value is better than NaN; NaN is never better."""
        if math.isnan(best):
            return True
        return value > best if self.direction == "max" else value < best

    def undefined_note(self, metrics: TaskMetrics) -> str | None:
        """Return a warning with the tasks whose monitored metric has no value; None if all have one."""
        undefined = [task for task, metric in self.metrics.items() if not math.isfinite(metrics[task][metric])]
        if not undefined:
            return None
        all_of_them = len(undefined) == len(self.metrics)
        consequence = "the latest epoch counts as best" if all_of_them else "the mean is over the other tasks"
        return (
            f"{', '.join(undefined)}: no value to monitor (no labels in {self.split}, or all of them the same?); "
            f"{consequence}"
        )
