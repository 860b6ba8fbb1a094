"""What must fit between the parts of an experiment.

Works on the plain data, as far as that has the right form, so that its findings come together with those of the
schema instead of after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mtlcli.config.source import Path, Source
from mtlcli.errors import Problem, nearest
from mtlcli.registry import kinds

MEAN = "mean"


def crosschecks(data: dict[str, Any], source: Source) -> list[Problem]:
    """The problems between the parts."""
    datasets, tasks = (part if isinstance(part := data.get(key), dict) else {} for key in ("datasets", "tasks"))
    findings = [
        *_empty(data),
        *_task_names(tasks),
        *_task_datasets(tasks, datasets),
        *_monitor(data.get("evaluation"), tasks),
    ]
    return [source.problem(path, message, at_key=at_key) for path, message, at_key in findings]


Finding = tuple[Path, str, bool]


def _empty(data: dict[str, Any]) -> Iterator[Finding]:
    for key, one in (("datasets", "dataset"), ("tasks", "task")):
        if data.get(key) == {}:
            yield (key,), f"there must be at least one {one}", True


def _task_names(tasks: dict[str, Any]) -> Iterator[Finding]:
    for name in tasks:
        if name == MEAN:
            yield ("tasks", name), f"a task can't be called {MEAN!r}, which stands for the mean over the tasks", True


def _task_datasets(tasks: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    used = {name: task.get("dataset") for name, task in tasks.items() if isinstance(task, dict)}
    for task, dataset in used.items():
        if isinstance(dataset, str) and dataset not in datasets:
            known = f"There are: {', '.join(datasets)}" if datasets else "There are none"
            yield ("tasks", task, "dataset"), f"no dataset {dataset!r}.{nearest(dataset, datasets)} {known}", False
    # Only where every task is readable can it be said that a dataset is used by none.
    if tasks and len(used) == len(tasks) and all(dataset in datasets for dataset in used.values()):
        for alias in datasets.keys() - set(used.values()):
            yield ("datasets", alias), "no task uses this dataset; take it out, or add a task for it", True


def _monitor(evaluation: Any, tasks: dict[str, Any]) -> Iterator[Finding]:
    monitor = evaluation.get("monitor") if isinstance(evaluation, dict) else None
    if not isinstance(monitor, dict):
        return
    task, metric = monitor.get("task", MEAN), monitor.get("metric", "primary")
    path: Path = ("evaluation", "monitor")
    if isinstance(task, str) and task != MEAN and task not in tasks:
        known = [MEAN, *tasks]
        yield (*path, "task"), f"no task {task!r}.{nearest(task, known)} There are: {', '.join(known)}", False
        return
    metrics = [_metrics(tasks[one]) for one in (tasks if task == MEAN else [task])]
    if not isinstance(metric, str) or metric == "primary" or not metrics or not all(metrics):
        return
    known = [name for name in metrics[0] if all(name in others for others in metrics)]
    if metric not in known:
        of = "that all tasks have" if task == MEAN else f"of task {task!r}"
        known = ["primary", *known]
        yield (
            (*path, "metric"),
            f"no metric {metric!r} {of}.{nearest(metric, known)} There are: {', '.join(known)}",
            False,
        )


def _metrics(task: Any) -> list[str]:
    """The metrics of a task's kind; none where it can't be told."""
    kind = task.get("kind") if isinstance(task, dict) else None
    name = kind.get("name") if isinstance(kind, dict) else kind
    return list(kinds[name].target.directions) if name in kinds.names() else []  # type: ignore[attr-defined]
