"""Heads that receive the prediction of another task, and checks of tasks in order."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.models.dependent_tasks import AfterHead, Dependencies, Parent, Probabilities, Standardize
from mtlcli.models.sharing.base import Sharing
from mtlcli.tasks.base import TaskKind


def extra_features(experiment: Experiment, task: str, kinds: Mapping[str, TaskKind]) -> int:
    """Return the number of values that a head receives in addition to the representation.

    Args:
        experiment: The experiment.
        task: The task of the head.
        kinds: task → its kind.

    Returns:
        The number of outputs of the task in `after`; 0 without it.
    """
    after = experiment.tasks[task].after
    return 0 if after is None else kinds[after.task].outputs


def wrap_head(experiment: Experiment, task: str, head: nn.Module, kinds: Mapping[str, TaskKind]) -> nn.Module:
    """Return the head of a task with `after`, which receives the prediction of another task.

    Args:
        experiment: The experiment.
        task: The task of the head.
        head: Module [B, features + outputs of the other task] → [B, outputs].
        kinds: task → its kind.

    Returns:
        The head, a `DependentHead`.
    """
    after = experiment.tasks[task].after
    assert after is not None
    kind = kinds[after.task]
    if kind.probabilities == "softmax":
        return AfterHead(head, Probabilities("softmax"))
    if kind.target.type == "real":
        return AfterHead(head, Standardize(kind.target.mean, kind.target.std))
    return AfterHead(head, Probabilities("sigmoid"))


def connect_tasks(experiment: Experiment, sharing: Sharing, kinds: Mapping[str, TaskKind]) -> None:
    """Add the dependencies of `after` to those of the sharing, and check its tasks in order.

    Args:
        experiment: The experiment.
        sharing: The sharing, which is changed.
        kinds: task → its kind.

    Raises:
        ConfigError: If a task would depend on two others, or a task in order is not binary.
    """
    problems, name = Problems(experiment), experiment.sharing.name
    for task in sharing.sequence:
        with problems.at(f"tasks.{task}.kind"):
            of_examples = kinds[task].predicts == "vector"
            if kinds[task].probabilities != "sigmoid" or kinds[task].positive is None or not of_examples:
                raise ValueError(
                    f"`sharing: {name}` compares the probabilities of the tasks in its order "
                    f"({', '.join(sharing.sequence)}), which must be of kind `binary`, with one prediction for each "
                    "example"
                )
    parents = {}
    for task, entry in experiment.tasks.items():
        if entry.after is None:
            continue
        with problems.at(f"tasks.{task}.after"):
            if sharing.dependencies is not None and task in sharing.dependencies.parents:
                raise ValueError(
                    f"the task already depends on {sharing.dependencies.parents[task].task!r} by `sharing: {name}`; "
                    "leave it out of the option `order`, or remove `after`"
                )
            for linked in (task, entry.after.task):
                if kinds[linked].predicts != "vector" or kinds[linked].pairs:
                    kind = experiment.tasks[linked].kind.name
                    raise ValueError(f"needs a prediction for each example, and task {linked!r} is of kind {kind!r}")
            parents[task] = Parent(entry.after.task, entry.after.detach)
    problems.check()
    if parents:
        sharing.dependencies = (sharing.dependencies or Dependencies({})).add(parents)
