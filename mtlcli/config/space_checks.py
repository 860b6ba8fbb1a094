"""Consistency checks of the sample spaces of tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mtlcli.config.locations import KeyPath
from mtlcli.errors import suggest

Finding = tuple[KeyPath, str, bool]


def check_spaces(tasks: dict[str, Any]) -> Iterator[Finding]:
    """Find sample spaces that refer to unknown tasks, to tasks on other datasets, or to one another.

    Args:
        tasks: name → task, as plain data.

    Yields:
        Path, message, and whether the location is that of the key.
    """
    for name, task in tasks.items():
        where = task.get("where") if isinstance(task, dict) else None
        if isinstance(where, dict):
            yield from _check(tasks, name, where, ("tasks", name, "where"))


def _check(tasks: dict[str, Any], name: str, where: dict[str, Any], path: KeyPath) -> Iterator[Finding]:
    other, target = where.get("task"), where.get("target")
    if other is None and target is None:
        yield path, "name the `task` or the `target` of the dataset whose label decides", False
    if other is not None and target is not None:
        yield (*path, "target"), "can't be set together with `task`, which has its own target", True
    if not isinstance(other, str):
        return
    if other not in tasks:
        choices = [task for task in tasks if task != name]
        yield (*path, "task"), f"no task {other!r}.{suggest(other, choices)} Choose from: {', '.join(choices)}", False
        return
    first, second = (tasks[task].get("dataset") if isinstance(tasks[task], dict) else None for task in (name, other))
    if first != second:
        message = f"the task {other!r} is on dataset {second!r}, and this one on {first!r}; both must be on the same"
        yield (*path, "task"), message, False
    if name in _chain(tasks, other):
        what = "itself" if other == name else f"{other!r}, which depends on this task"
        yield (*path, "task"), f"the sample space of a task can't depend on {what}", False


def _chain(tasks: dict[str, Any], name: str) -> list[str]:
    """Return a task and the tasks that its sample space depends on."""
    chain: list[str] = []
    while name in tasks and name not in chain:
        chain.append(name)
        where = tasks[name].get("where") if isinstance(tasks[name], dict) else None
        other = where.get("task") if isinstance(where, dict) else None
        name = other if isinstance(other, str) else ""
    return chain
