"""Early stopping of single tasks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.config import Experiment
from mtlcli.data.loader import Batch
from mtlcli.errors import ConfigError, suggest
from mtlcli.models.model import MultiTaskModel
from mtlcli.tasks.base import TaskKind
from mtlcli.text import format_number
from mtlcli.training.evaluate import TaskMetrics

LOG = logging.getLogger("mtl")


@dataclass(frozen=True)
class StopRule:
    """Rule by which a task stops.

    Attributes:
        patience: number of epochs without a better value after which the task stops.
        metric: the metric.
        larger: whether larger values are better.
    """

    patience: int
    metric: str
    larger: bool

    def is_better(self, value: float, best: float) -> bool:
        """Return whether a value is better than the best so far; any is better than NaN, and NaN never."""
        return math.isnan(best) or (value > best if self.larger else value < best)


@dataclass
class TaskStops:
    """Early stopping of the tasks with the option `stop`.

    Attributes:
        rules: task → its rule.
        best: task → epoch with the best value of its metric, and the value.
        stopped: task → epoch after which it stopped.
    """

    rules: dict[str, StopRule]
    best: dict[str, tuple[int, float]] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)

    def end_epoch(self, epoch: int, train: TaskMetrics, metrics: TaskMetrics) -> TaskMetrics:
        """Stop tasks after an epoch, and log it.

        Args:
            epoch: number of the epoch, from 1.
            train: column of the run → its mean loss and weight in training.
            metrics: task → metric → value on the evaluated split.

        Returns:
            `train`, with the weight 0 for the tasks that had stopped before the epoch.
        """
        before = list(self.stopped)
        for message in self.judge(epoch, metrics):
            LOG.info("%s", message)
        return {**train, **{task: {**train[task], "weight": 0.0} for task in before}}

    def frozen(self, model: MultiTaskModel) -> FrozenTasks | None:
        """Return the stopped tasks of a model for its steps; None if there are none."""
        return FrozenTasks(self.stopped, model) if self.stopped else None

    def judge(self, epoch: int, metrics: TaskMetrics) -> list[str]:
        """Decide which tasks stop after an epoch.

        Args:
            epoch: number of the epoch, from 1.
            metrics: task → metric → value on the evaluated split.

        Returns:
            A message for each task that stops now.
        """
        messages = []
        for task, rule in self.rules.items():
            if task in self.stopped:
                continue
            value = metrics[task][rule.metric]
            if task not in self.best or rule.is_better(value, self.best[task][1]):
                self.best[task] = epoch, value
            best_epoch, best = self.best[task]
            if epoch - best_epoch >= rule.patience:
                self.stopped[task] = epoch
                messages.append(
                    f"task {task} stopped after epoch {epoch}: no better {rule.metric} than {format_number(best)} of "
                    f"epoch {best_epoch}; its weight is 0 from now on, and its head stays as it is"
                )
        return messages

    def stopped_before(self, epoch: int) -> dict[str, int]:
        """Return task → epoch after which it stopped, for the tasks that had stopped before an epoch."""
        return {task: last for task, last in self.stopped.items() if last < epoch}

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return the stopped tasks for `summary.json`: task → epoch, metric, best epoch and best value."""
        return {
            task: {
                "epoch": epoch,
                "metric": self.rules[task].metric,
                "best_epoch": self.best[task][0],
                "best_value": self.best[task][1],
            }
            for task, epoch in self.stopped.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as plain data."""
        return {"best": {task: list(best) for task, best in self.best.items()}, "stopped": dict(self.stopped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best = {task: (epoch, value) for task, (epoch, value) in state["best"].items()}
        self.stopped = dict(state["stopped"])


def make_stops(experiment: Experiment, kinds: Mapping[str, TaskKind]) -> TaskStops:
    """Create the early stopping of single tasks.

    Args:
        experiment: the experiment.
        kinds: task → kind.

    Returns:
        The early stopping.

    Raises:
        ConfigError: lists the tasks that don't have the metric of their `stop`.
    """
    rules, problems = {}, []
    for task, entry in experiment.tasks.items():
        if entry.stop is None:
            continue
        directions = kinds[task].reported
        metric = kinds[task].primary if entry.stop.metric == "primary" else entry.stop.metric
        if metric in directions:
            rules[task] = StopRule(entry.stop.patience, metric, directions[metric] == "max")
        else:
            choices = ["primary", *directions]
            message = f"task {task!r} has no metric {metric!r}.{suggest(metric, choices)} It has: {', '.join(choices)}"
            problems.append(experiment.problem(f"tasks.{task}.stop.metric", message))
    if problems:
        raise ConfigError(problems)
    return TaskStops(rules)


class FrozenTasks:
    """Tasks that have stopped, in the steps that follow: absent from every batch, with unchanged modules of their own.

    Args:
        tasks: the tasks.
        model: the model.
    """

    def __init__(self, tasks: Iterable[str], model: MultiTaskModel) -> None:
        self.tasks = frozenset(tasks)
        # the head of a task stays even if the loss of a task that comes after it reaches it
        modules: list[nn.Module] = [
            module for task in self.tasks for of in (model.sharing, model) for module in of.own_modules(task)
        ]
        self._parameters: list[Tensor] = list(dict.fromkeys(p for module in modules for p in module.parameters()))
        self._values: list[Tensor] = [p.detach().clone() for p in self._parameters]

    def remove_from(self, batch: Batch) -> Batch:
        """Return a batch in which these tasks have no labels."""
        return replace(batch, counts={t: 0 if t in self.tasks else count for t, count in batch.counts.items()})

    def drop_gradients(self) -> None:
        """Remove the gradients, such as those of regularizers, so that the optimizer skips the parameters."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def restore(self) -> None:
        """Undo changes of the parameters, such as those of a regularizer's proximal step."""
        if self._parameters:
            torch._foreach_copy_(self._parameters, self._values)
