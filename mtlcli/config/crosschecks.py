"""What must fit between the parts of an experiment.

Works on the plain data, as far as that has the right form, so that its findings come together with those of the
schema instead of after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from mtlcli.config.locations import MOST_PROBLEMS, KeyPath, Source
from mtlcli.config.schema import MAX_NAMED
from mtlcli.errors import Problem, nearest
from mtlcli.registry import kinds

MEAN = "mean"


def crosschecks(data: dict[str, Any], source: Source) -> list[Problem]:
    """The problems between the parts; of many only the first."""
    datasets, tasks = (_named(data.get(key)) for key in ("datasets", "tasks"))
    findings = chain(
        _empty(data),
        _unnamed(tasks, datasets),
        _task_names(tasks),
        _task_datasets(tasks, datasets),
        _monitor(data.get("evaluation"), tasks),
    )
    some = islice(findings, MOST_PROBLEMS + 1)  # one over, so that it is said that there are more
    return [source.problem(path, message, at_key=at_key) for path, message, at_key in some]


Finding = tuple[KeyPath, str, bool]


def _named(part: Any) -> dict[str, Any]:
    """The tasks or datasets; none where they aren't what the schema has, which is then told by it."""
    return part if isinstance(part, dict) and len(part) <= MAX_NAMED else {}


def _empty(data: dict[str, Any]) -> Iterator[Finding]:
    for key, one in (("datasets", "dataset"), ("tasks", "task")):
        if data.get(key) == {}:
            yield (key,), f"there must be at least one {one}", True


def _unnamed(tasks: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    """A task or dataset that is written where there should be a mapping of names to them."""
    if isinstance(name := datasets.get("name"), str):
        yield (
            ("datasets", "name"),
            f"a dataset is written under an alias: `datasets: {{ALIAS: {{name: {name}}}}}`",
            True,
        )
    keys = [key for key in ("dataset", "kind", "target") if isinstance(tasks.get(key), str)]
    for key in keys[:1]:
        yield ("tasks", key), f"a task is written under its name: `tasks: {{NAME: {{{key}: {tasks[key]}, …}}}}`", True


def _task_names(tasks: dict[str, Any]) -> Iterator[Finding]:
    for name in tasks:
        if name == MEAN:
            yield ("tasks", name), f"a task can't be called {MEAN!r}, which stands for the mean over the tasks", True


def _task_datasets(tasks: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    given = {name: task.get("dataset") for name, task in tasks.items() if isinstance(task, dict)}
    used = {name: dataset for name, dataset in given.items() if isinstance(dataset, str)}
    for task, dataset in used.items():
        if dataset not in datasets:
            known = f"Choose from: {', '.join(datasets)}" if datasets else "There are none"
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
    path: KeyPath = ("evaluation", "monitor")
    if not isinstance(task, str):
        return
    if task != MEAN and task not in tasks:
        known = [MEAN, *tasks]
        yield (*path, "task"), f"no task {task!r}.{nearest(task, known)} Choose from: {', '.join(known)}", False
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
            f"no metric {metric!r} {of}.{nearest(metric, known)} Choose from: {', '.join(known)}",
            False,
        )


def _metrics(task: Any) -> list[str]:
    """The metrics of a task's kind; none where it can't be told."""
    kind = task.get("kind") if isinstance(task, dict) else None
    name = kind.get("name") if isinstance(kind, dict) else kind
    return list(kinds[name].target.directions) if name in kinds.names() else []
