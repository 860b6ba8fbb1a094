"""Sample spaces: the examples that a task is restricted to by the labels of another target of its dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.config.task_options import Label
from mtlcli.data.base import Dataset
from mtlcli.data.examples import wrap_read_errors
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec, has_label
from mtlcli.training.assembly.class_weights import find_class

RESTRICTED = "\x1f"  # separates target and task in the key of labels in a sample space; no target's name contains it
Statistics = Mapping[str, tuple[float, float]]
"""Task → mean and standard deviation of its labels in the training examples of its space."""


@dataclass(frozen=True)
class Condition:
    """Values that the label of a target must have.

    Attributes:
        target: name of the target.
        type: type of the target.
        values: class indices, 0 and 1, numbers, or positions of the labels of a multilabel target.
        text: description, such as `sold = 1`.
    """

    target: str
    type: str
    values: tuple[float, ...]
    text: str

    def holds(self, labels: Tensor) -> Tensor:
        """Mark the examples whose label has one of the values; for a multilabel target, one of these labels.

        Args:
            labels: labels of the target, [N] or [N, size].

        Returns:
            bool [N]; False for a missing label.
        """
        if self.type == "multilabel":
            return (labels[:, list(map(int, self.values))] == 1).any(1)
        return torch.isin(labels, torch.tensor(self.values, dtype=labels.dtype, device=labels.device))


@dataclass(frozen=True)
class Space:
    """Sample space of a task: the examples for which all conditions hold.

    Attributes:
        conditions: the conditions.
    """

    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        return " and ".join(condition.text for condition in self.conditions)

    def labels_of(self, target: str, targets: Mapping[str, Tensor]) -> Tensor:
        """Return the labels of a target, missing outside the space.

        Args:
            target: name of the target.
            targets: name → labels of the same examples, [N] or [N, size].

        Returns:
            The labels, [N] or [N, size].
        """
        return self.restrict(targets[target], targets)

    def restrict(self, labels: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Replace the labels of the examples outside the space by missing ones.

        Args:
            labels: labels of the task, [N] or [N, size].
            targets: target → labels of the same examples, [N] or [N, size].

        Returns:
            The labels, of the same shape.
        """
        inside = torch.stack([c.holds(targets[c.target]) for c in self.conditions]).all(0)
        outside = ~inside if labels.ndim == 1 else ~inside.unsqueeze(1)
        return labels.masked_fill(outside, math.nan if labels.is_floating_point() else IGNORE_INDEX)


def resolve_space(experiment: Experiment, task: str, spec: DatasetSpec) -> Space:
    """Return the sample space of a task with `where`.

    Args:
        experiment: the experiment.
        task: the task.
        spec: description of its dataset.

    Returns:
        The space; it includes the conditions of the space of the other task.

    Raises:
        ValueError: the dataset has no such target, or the target no such label, or is a map.
    """
    alias, where = experiment.tasks[task].dataset, experiment.tasks[task].where
    name, own = spec.find_target(experiment.tasks[task].target, alias, task)
    if own.is_map:
        raise ValueError(
            f"restricts a task with one label for each example, and the target {name!r} has one for each pixel; mark "
            f"the pixels of the other examples as missing in the data"
        )
    conditions: list[Condition] = []
    while where is not None:
        other = None if where.task is None else experiment.tasks[where.task]
        named = where.target if other is None else other.target
        conditions.append(_condition(where.equals, *spec.find_target(named, alias, where.task or "")))
        conditions += [_condition(c.equals, *spec.find_target(c.target, alias, "")) for c in where.also]
        where = None if other is None else other.where
    return Space(tuple(conditions))


def _condition(equals: Label | list[Label], name: str, target: TargetSpec) -> Condition:
    if target.type == "tags" or target.is_map:
        unit = "pixel" if target.is_map else "word"
        raise ValueError(f"the target {name!r} has a label for each {unit}, which can't define a sample space")
    given = equals if isinstance(equals, list) else [equals]
    if target.type == "real":
        if wrong := [value for value in given if isinstance(value, str | bool)]:
            raise ValueError(f"`equals`: the target {name!r} has numbers, and {wrong[0]!r} is not a number")
        values = tuple(map(float, given))
    else:
        try:
            values = tuple(float(find_class(value, target.class_names)) for value in given)
        except ValueError as error:
            raise ValueError(f"`equals`: {str(error).replace('the target', f'the target {name!r}', 1)}") from error
    return Condition(name, target.type, values, f"{name} = {' or '.join(map(str, given))}")


def restricted(target: TargetSpec, statistics: tuple[float, float] | None) -> TargetSpec:
    """Return the description of a target in a sample space, with the statistics of its labels there."""
    mean, std = statistics or (target.mean, target.std)
    return replace(target, missing=True, mean=mean, std=std)


def fit_statistics(experiment: Experiment, opened: Mapping[str, tuple[Dataset, DatasetSpec]]) -> Statistics:
    """Compute mean and standard deviation of each `real` target in the sample space of its task.

    Args:
        experiment: the experiment.
        opened: the datasets.

    Returns:
        Task → statistics, for tasks with `where` and such a target.

    Raises:
        ConfigError: the space has no training example.
    """
    fitted: dict[str, tuple[float, float]] = {}
    for task, entry in experiment.tasks.items():
        if entry.where is None:
            continue
        dataset, spec = opened[entry.dataset]
        name, target = spec.find_target(entry.target, entry.dataset, task)
        if target.type != "real":
            continue
        with Problems(experiment).now(f"datasets.{entry.dataset}"), wrap_read_errors(entry.dataset):
            train = dataset.examples("train", experiment.seed)
        space = resolve_space(experiment, task, spec)
        labels = train.with_labels({RESTRICTED: partial(space.labels_of, name)}).labels(RESTRICTED).double()
        labels = labels[~labels.isnan()]
        if not len(labels):
            raise ConfigError(experiment.problem(f"tasks.{task}.where", NO_EXAMPLE))
        fitted[task] = float(labels.mean()), float(labels.std(correction=0))
    return fitted


NO_EXAMPLE = "no labelled training example is in this sample space"


def check_spaces(experiment: Experiment, labels: Mapping[str, Tensor]) -> None:
    """Check that each sample space has labelled training examples.

    Args:
        experiment: the experiment.
        labels: task with `where` → its labels in the training examples.

    Raises:
        ConfigError: Lists the tasks without any.
    """
    empty = [task for task, of_task in labels.items() if not bool(has_label(of_task).any())]
    if empty:
        raise ConfigError([experiment.problem(f"tasks.{task}.where", NO_EXAMPLE) for task in empty])


def restore_statistics(saved: Any) -> Statistics:
    """Return the statistics in a checkpoint.

    Args:
        saved: task → [mean, standard deviation], as plain data.

    Returns:
        The statistics.

    Raises:
        ConfigError: the data is invalid.
    """
    if not isinstance(saved, dict) or not all(map(_is_pair, saved.values())):
        raise ConfigError("the statistics of the sample spaces in the checkpoint are invalid")
    return {task: (mean, std) for task, (mean, std) in saved.items()}


def _is_pair(value: Any) -> bool:
    finite = isinstance(value, list) and all(isinstance(x, float) and math.isfinite(x) for x in value)
    return finite and len(value) == 2 and value[1] >= 0
