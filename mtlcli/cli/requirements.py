"""`--require TASK.METRIC>=X`: conditions on the final metrics, without which the exit code is 3."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem, RequirementError, suggest
from mtlcli.metric_names import has_metric, metric_choices

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
FORM = re.compile(r"\s*([\w-]+)\.([\w-]+(?:\[.*\])?)\s*(>=|<=|>|<)\s*(\S+)\s*")  # a class in brackets, any text
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Requirement:
    """A condition on a metric.

    Args:
        text: the condition as given.
        task: a task's name, or `mean` for the mean over all tasks.
        metric: a metric of the task, or `primary`.
        compare: the operator, such as `>=`.
        bound: the number on its right.
    """

    text: str
    task: str
    metric: str
    compare: str
    bound: float


def parse_requirements(texts: Sequence[str], experiment: Experiment) -> list[Requirement]:
    """Parse conditions of the form `TASK.METRIC>=X`.

    Args:
        texts: the conditions.
        experiment: the experiment with their tasks.

    Returns:
        The parsed conditions.

    Raises:
        ConfigError: conditions are invalid; contains all of them.
    """
    requirements, wrong = [], []
    for text in texts:
        try:
            requirements.append(_parse(text, experiment))
        except ValueError as error:
            wrong.append(f"--require {text!r}: {error}")
    if wrong:
        raise ConfigError(map(Problem, wrong))
    return requirements


def confirm_requirements(requirements: Sequence[Requirement], metrics: Mapping[str, Iterable[str]]) -> None:
    """Check that the tasks report the metrics, for whose names the classes of the targets have to be known.

    Args:
        requirements: the conditions.
        metrics: task → the metrics that it reports.

    Raises:
        ConfigError: a task doesn't report a metric.
    """
    problems = [
        f"--require {requirement.text!r}: {_no_metric(task, requirement.metric, list(metrics[task]))}"
        for requirement in requirements
        for task in (metrics if requirement.task == "mean" else [requirement.task])
        if requirement.metric != "primary" and requirement.metric not in metrics[task]
    ]
    if problems:
        raise ConfigError(map(Problem, problems))


def check_requirements(
    requirements: Sequence[Requirement], experiment: Experiment, metrics: Mapping[str, Mapping[str, float]]
) -> None:
    """Check the final metrics.

    Args:
        requirements: the conditions.
        experiment: the experiment.
        metrics: task → metric → value.

    Raises:
        RequirementError: the metrics don't satisfy some conditions; lists them.
    """
    failures = []
    for requirement in requirements:
        tasks = list(experiment.tasks) if requirement.task == "mean" else [requirement.task]
        values = [metrics[task][_metric(requirement.metric, experiment, task)] for task in tasks]
        value = math.fsum(values) / len(values)
        if not OPERATORS[requirement.compare](value, requirement.bound):  # false for NaN
            failures.append(f"required {requirement.text}, got {value:.6g}")
    if failures:
        raise RequirementError("\n".join(failures))


def _parse(text: str, experiment: Experiment) -> Requirement:
    form = FORM.fullmatch(text)
    if form is None:
        raise ValueError("expected TASK.METRIC>=X, such as digit.accuracy>=0.98")
    task, metric, compare, bound = form.groups()
    tasks = ["mean", *experiment.tasks]
    if task not in tasks:
        raise ValueError(f"no task {task!r}.{suggest(task, tasks)} Choose from: {', '.join(tasks)}")
    for name in experiment.tasks if task == "mean" else [task]:
        entry = experiment.tasks[name]
        kind = registry.kinds[entry.kind.name].target
        if metric != "primary" and not has_metric(metric, kind, entry.metrics):
            raise ValueError(_no_metric(name, metric, metric_choices(kind, entry.metrics)))
    if not NUMBER.fullmatch(bound):
        raise ValueError(f"{bound!r} is not a number")
    return Requirement(text, task, metric, compare, float(bound))


def _no_metric(task: str, metric: str, metrics: Sequence[str]) -> str:
    return f"task {task!r} has no metric {metric!r}.{suggest(metric, metrics)} It has: primary, {', '.join(metrics)}"


def _metric(metric: str, experiment: Experiment, task: str) -> str:
    from mtlcli.training.evaluate import primary_metric

    return primary_metric(experiment, task) if metric == "primary" else metric
