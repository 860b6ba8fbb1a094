"""Metrics that a task chooses."""

from __future__ import annotations

from mtlcli.config import Task
from mtlcli.metric_names import primary_metric
from mtlcli.tasks.base import TaskKind


def choose_metrics(kind: TaskKind, task: Task) -> None:
    """Set the metrics that a task reports, and its primary metric.

    Args:
        kind: Kind of the task, which is changed.
        task: The task.

    Raises:
        ValueError: If its target has no class that the name of a metric contains, or the primary metric isn't reported.
    """
    if task.metrics is not None:
        kind.choose_metrics(task.metrics)
    options = {"primary": kind.primary, **task.kind.options}
    kind.primary = primary_metric(kind, options, task.metrics, task.primary)
    if kind.primary not in kind.reported:
        raise ValueError(f"the task doesn't report its primary metric, {kind.primary!r}")
