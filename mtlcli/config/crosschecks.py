"""Consistency checks between the sections of an experiment.

They work on the plain data, as far as it has the right form, so that their problems are reported together with those
of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from mtlcli.component import KindClass
from mtlcli.config.locations import MOST_PROBLEMS, KeyPath, Source
from mtlcli.config.schema import MAX_NAMED
from mtlcli.config.space_checks import Finding, check_spaces
from mtlcli.errors import Problem, suggest
from mtlcli.metric_names import check_names, has_metric, metric_choices, metrics_to_choose
from mtlcli.registry import kinds

MEAN = "mean"


def crosschecks(data: dict[str, Any], source: Source) -> list[Problem]:
    """Return the inconsistencies between the sections, at most `MOST_PROBLEMS` + 1."""
    datasets, tasks = (_named(data.get(key)) for key in ("datasets", "tasks"))
    findings = chain(
        _empty(data),
        _unnamed(tasks, datasets),
        _task_names(tasks),
        _task_datasets(tasks, datasets),
        _task_metrics(tasks),
        _stems(_named(data.get("stems")), datasets),
        _after(tasks),
        check_spaces(tasks) if any(isinstance(task, dict) and "where" in task for task in tasks.values()) else (),
        _sampling(data.get("training"), datasets),
        _monitor(data.get("evaluation"), tasks),
        _last_epochs(data.get("evaluation"), data.get("training"), tasks),
    )
    some = islice(findings, MOST_PROBLEMS + 1)  # one more, so that the report mentions further ones
    return [source.problem(path, message, at_key=at_key) for path, message, at_key in some]


def _named(section: Any) -> dict[str, Any]:
    """Return the tasks or datasets; none if the schema rejects them, which then reports it."""
    return section if isinstance(section, dict) and len(section) <= MAX_NAMED else {}


def _empty(data: dict[str, Any]) -> Iterator[Finding]:
    for key, noun in (("datasets", "dataset"), ("tasks", "task")):
        if data.get(key) == {}:
            yield (key,), f"at least one {noun} is required", True


def _unnamed(tasks: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    """Find a task or dataset in the place of a mapping of names to them."""
    if isinstance(name := datasets.get("name"), str):
        yield (
            ("datasets", "name"),
            f"a dataset needs an alias: `datasets: {{ALIAS: {{name: {name}}}}}`",
            True,
        )
    keys = [key for key in ("dataset", "kind", "target") if isinstance(tasks.get(key), str)]
    for key in keys[:1]:
        yield ("tasks", key), f"a task needs a name: `tasks: {{NAME: {{{key}: {tasks[key]}, …}}}}`", True


def _task_names(tasks: dict[str, Any]) -> Iterator[Finding]:
    for name in tasks:
        if name == MEAN:
            yield (
                ("tasks", name),
                f"a task can't have the name {MEAN!r}, which is reserved for the mean over the tasks",
                True,
            )


def _task_datasets(tasks: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    given = {name: task.get("dataset") for name, task in tasks.items() if isinstance(task, dict)}
    used = {name: dataset for name, dataset in given.items() if isinstance(dataset, str)}
    for task, dataset in used.items():
        if dataset not in datasets:
            choices = f"Choose from: {', '.join(datasets)}" if datasets else "None are defined"
            yield ("tasks", task, "dataset"), f"no dataset {dataset!r}.{suggest(dataset, datasets)} {choices}", False
    # Whether a dataset is unused is certain only if every task is valid.
    if tasks and len(used) == len(tasks) and all(dataset in datasets for dataset in used.values()):
        for alias in datasets.keys() - set(used.values()):
            yield ("datasets", alias), "no task uses this dataset; remove it, or add a task for it", True


def _task_metrics(tasks: dict[str, Any]) -> Iterator[Finding]:
    for name, task in tasks.items():
        kind_name, kind, chosen = _kind(task)
        if kind is None or not {"metrics", "primary"} & task.keys():
            continue
        for position, problem in check_names(chosen or [], kind_name, kind).items():
            yield ("tasks", name, "metrics", position), problem, False
        named: list[tuple[KeyPath, Any]] = [(("primary",), task.get("primary"))]
        if chosen and isinstance(task["kind"], dict):
            named.append((("kind", "primary"), task["kind"].get("primary")))
        for path, primary in named:
            if isinstance(primary, str) and not has_metric(primary, kind, chosen):
                yield ("tasks", name, *path), _not_reported(primary, kind, chosen), False


def _not_reported(metric: str, kind: KindClass, chosen: list[str] | None) -> str:
    reported = metric_choices(kind, chosen)
    can_choose = has_metric(metric, kind, list(metrics_to_choose(kind)))
    remedy = " Add it to the task's `metrics`." if can_choose else suggest(metric, reported)
    return f"the task doesn't report the metric {metric!r}.{remedy} It reports: {', '.join(reported)}"


def _stems(stems: dict[str, Any], datasets: dict[str, Any]) -> Iterator[Finding]:
    if isinstance(name := stems.get("name"), str) and "name" not in datasets:
        yield ("stems", "name"), f"a stem needs the alias of its dataset: `stems: {{ALIAS: {{name: {name}}}}}`", True
        return
    for alias in stems:
        if alias not in datasets:
            choices = f"Choose from: {', '.join(datasets)}" if datasets else "None are defined"
            yield ("stems", alias), f"no dataset {alias!r}.{suggest(str(alias), datasets)} {choices}", True


def _after(tasks: dict[str, Any]) -> Iterator[Finding]:
    """Find tasks in `after` that don't exist, are on another dataset, or depend on each other."""
    parents: dict[str, str] = {}
    paths: dict[str, KeyPath] = {}
    for name, task in tasks.items():
        after = task.get("after") if isinstance(task, dict) else None
        parent = after.get("task") if isinstance(after, dict) else after
        if isinstance(parent, str):
            parents[name] = parent
            paths[name] = ("tasks", name, "after", "task") if isinstance(after, dict) else ("tasks", name, "after")
    for name, parent in parents.items():
        if parent not in tasks:
            choices = [task for task in tasks if task != name]
            hint = f"Choose from: {', '.join(choices)}" if choices else "There are no others"
            yield paths[name], f"no task {parent!r}.{suggest(parent, choices)} {hint}", False
            continue
        own, other = (tasks[task].get("dataset") if isinstance(tasks[task], dict) else None for task in (name, parent))
        if isinstance(own, str) and isinstance(other, str) and own != other:
            message = f"task {parent!r} is on dataset {other!r}, and this one on {own!r}; a prediction is passed on "
            yield paths[name], f"{message}between tasks on the same dataset only", False
        cycle = [name]
        while (following := parents.get(cycle[-1])) is not None and following not in cycle:
            cycle.append(following)
        if following == name and name == min(cycle):
            chain = " after ".join([*cycle, name])
            yield paths[name], f"a task can't depend on itself: {chain}", False


def _sampling(training: Any, datasets: dict[str, Any]) -> Iterator[Finding]:
    """Find rates and limits of unknown datasets, and datasets without a rate."""
    sampling = training.get("sampling") if isinstance(training, dict) else None
    path: KeyPath = ("training", "sampling")
    for key in ("rates", "limit"):
        given = sampling.get(key) if isinstance(sampling, dict) else None
        if not isinstance(given, dict) or not datasets:
            continue
        for alias in given:
            if alias not in datasets:
                message = f"no dataset {alias!r}.{suggest(str(alias), datasets)} Choose from: {', '.join(datasets)}"
                yield (*path, key, alias), message, True
        absent = [alias for alias in datasets if alias not in given] if key == "rates" else []
        if absent:
            yield (*path, key), f"no rate of {', '.join(map(repr, absent))}; every dataset needs one", True


def _monitor(evaluation: Any, tasks: dict[str, Any]) -> Iterator[Finding]:
    monitor = evaluation.get("monitor") if isinstance(evaluation, dict) else None
    if not isinstance(monitor, dict):
        return
    task, metric = monitor.get("task", MEAN), monitor.get("metric", "primary")
    path: KeyPath = ("evaluation", "monitor")
    if not isinstance(task, str):
        return
    if task != MEAN and task not in tasks:
        choices = [MEAN, *tasks]
        yield (*path, "task"), f"no task {task!r}.{suggest(task, choices)} Choose from: {', '.join(choices)}", False
        return
    reports = [
        (kind, chosen) for _, kind, chosen in (_kind(tasks[name]) for name in (tasks if task == MEAN else [task]))
    ]
    if not isinstance(metric, str) or metric == "primary" or not reports:
        return
    known = [(kind, chosen) for kind, chosen in reports if kind is not None]
    if len(known) == len(reports) and not all(has_metric(metric, kind, chosen) for kind, chosen in known):
        metrics = [metric_choices(kind, chosen) for kind, chosen in known]
        choices = [name for name in metrics[0] if all(name in others for others in metrics)]
        of = "that all tasks have" if task == MEAN else f"of task {task!r}"
        choices = ["primary", *choices]
        yield (
            (*path, "metric"),
            f"no metric {metric!r} {of}.{suggest(metric, choices)} Choose from: {', '.join(choices)}",
            False,
        )


def _last_epochs(evaluation: Any, training: Any, tasks: dict[str, Any]) -> Iterator[Finding]:
    """Find options that end a run early, so that its last epochs are not known before them."""
    if not isinstance(evaluation, dict) or evaluation.get("last") is None:
        return
    stopping = ["training.early_stopping"] if isinstance(training, dict) and training.get("early_stopping") else []
    stopping += [f"tasks.{name}.stop" for name, task in tasks.items() if isinstance(task, dict) and task.get("stop")]
    if stopping:
        remedy = f"remove this key, or {', '.join(stopping)}"
        yield ("evaluation", "last"), f"which epochs are the last is unknown if a run can end early; {remedy}", False


def _kind(task: Any) -> tuple[str, KindClass | None, list[str] | None]:
    """Return name and class of a task's kind, None if it isn't valid, and the metrics that the task chooses."""
    kind = task.get("kind") if isinstance(task, dict) else None
    name = kind.get("name") if isinstance(kind, dict) else kind
    if (
        not isinstance(name, str)
        or name not in kinds.names()
        or not all(hasattr(kinds[name].target, x) for x in ("directions", "collected"))
    ):
        return "", None, None  # unknown, or from a plugin and no task kind, which the build reports
    chosen = task.get("metrics")
    listed = isinstance(chosen, list) and all(isinstance(metric, str) for metric in chosen)
    return name, kinds[name].target, chosen if listed and chosen else None
