"""The monitored value of an epoch, by which the best one is chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mtlcli.config import MEAN, Experiment
from mtlcli.tasks.base import TaskKind
from mtlcli.training.evaluate import TaskMetrics


class Monitor:
    """The metrics that `evaluation.monitor` selects, and their mean.

    split: the evaluated split. metrics: task → its monitored metric. direction: whether more (`max`) or less (`min`) of
    them is better. name: the value in reports, such as `val digit accuracy` or `val mean primary`.
    Raises ValueError where a task has no such metric, or where a mean would mix metrics of opposite directions.
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
                f"the mean of metrics of opposite directions means nothing: {opposed}; monitor one task, or loss"
            )
        self.direction = next(iter(directions.values()))

    def value(self, metrics: TaskMetrics) -> float:
        """Mean of the monitored metrics that are finite; NaN where none is."""
        finite = [value for task, metric in self.metrics.items() if math.isfinite(value := metrics[task][metric])]
        return sum(finite) / len(finite) if finite else math.nan

    def is_better(self, value: float, best: float) -> bool:
        """Return whether a value beats the best so far. Any value does where that is NaN; NaN beats no number."""
        if math.isnan(best):
            return True
        return value > best if self.direction == "max" else value < best

    def undefined_note(self, metrics: TaskMetrics) -> str | None:
        """A warning that names the tasks whose monitored metric has no value; None where all have one."""
        undefined = [task for task, metric in self.metrics.items() if not math.isfinite(metrics[task][metric])]
        if not undefined:
            return None
        all_of_them = len(undefined) == len(self.metrics)
        consequence = "the latest epoch counts as best" if all_of_them else "the mean is over the other tasks"
        return (
            f"{', '.join(undefined)}: no value to monitor (no labels in {self.split}, or all of them the same?); "
            f"{consequence}"
        )
