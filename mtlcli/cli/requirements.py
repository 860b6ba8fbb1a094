"""`--require TASK.METRIC>=X`: figures that must hold for the exit code to be 0."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.errors import ConfigError, Problem, RequirementError, nearest

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
FORM = re.compile(r"\s*([\w-]+)\.([\w-]+)\s*(>=|<=|>|<)\s*(\S+)\s*")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Requirement:
    """task: a task's name, or `mean`. metric: one of its metrics, or `primary`."""

    text: str
    task: str
    metric: str
    compare: str
    bound: float


def parse_requirements(texts: Sequence[str], experiment: Experiment) -> list[Requirement]:
    """Read and check every `TASK.METRIC>=X` against the experiment's tasks; ConfigError with all that are wrong."""
    found, wrong = [], []
    for text in texts:
        try:
            found.append(_parse(text, experiment))
        except ValueError as error:
            wrong.append(f"--require {text!r}: {error}")
    if wrong:
        raise ConfigError(map(Problem, wrong))
    return found


def check_requirements(
    requirements: Sequence[Requirement], experiment: Experiment, metrics: Mapping[str, Mapping[str, float]]
) -> None:
    """RequirementError that lists each requirement that the figures (task → metric → value) fall short of."""
    short = []
    for requirement in requirements:
        tasks = list(experiment.tasks) if requirement.task == "mean" else [requirement.task]
        values = [metrics[task][_metric(requirement.metric, experiment, task)] for task in tasks]
        value = math.fsum(values) / len(values)
        if not OPERATORS[requirement.compare](value, requirement.bound):  # NaN holds for nothing
            short.append(f"required {requirement.text}, got {value:.6g}")
    if short:
        raise RequirementError("\n".join(short))


def _parse(text: str, experiment: Experiment) -> Requirement:
    form = FORM.fullmatch(text)
    if form is None:
        raise ValueError("expected TASK.METRIC>=X, such as digit.accuracy>=0.98")
    task, metric, compare, bound = form.groups()
    known = ["mean", *experiment.tasks]
    if task not in known:
        raise ValueError(f"no task {task!r}.{nearest(task, known)} Choose from: {', '.join(known)}")
    for name in experiment.tasks if task == "mean" else [task]:
        metrics = registry.kinds[experiment.tasks[name].kind.name].target.directions
        if metric != "primary" and metric not in metrics:
            hint = nearest(metric, metrics)
            raise ValueError(f"task {name!r} has no metric {metric!r}.{hint} It has: primary, {', '.join(metrics)}")
    if not NUMBER.fullmatch(bound):
        raise ValueError(f"{bound!r} is not a number")
    return Requirement(text, task, metric, compare, float(bound))


def _metric(metric: str, experiment: Experiment, task: str) -> str:
    from mtlcli.training.evaluate import primary_metric

    return primary_metric(experiment, task) if metric == "primary" else metric
