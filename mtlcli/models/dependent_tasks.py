"""Tasks whose predictions depend on those of other tasks, and the heads that receive a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.errors import suggest

TaskOrder = Annotated[list[str], Field(min_length=2)] | None
"""Tasks in an order, or None for all tasks as they are listed."""


@dataclass(frozen=True)
class Parent:
    """The task whose prediction a head receives.

    Attributes:
        task: the task.
        detach: whether the loss of the receiving task has no gradient by the prediction.
    """

    task: str
    detach: bool = False


class DependentHead(nn.Module, ABC):
    """Base class of the heads that receive the prediction of another task in addition to the representation."""

    @abstractmethod
    def forward(self, x: Tensor, prediction: Tensor) -> Tensor:
        """Compute the prediction.

        Args:
            x: representations, [B, features].
            prediction: predictions of the other task, [B, outputs of that task].

        Returns:
            Predictions, [B, outputs].
        """


class Dependencies:
    """The dependencies between the tasks of a sharing.

    The tasks that depend on each other have their heads in the shared part of the graph: for the gradient engines,
    their prediction takes the place of their representation.

    Args:
        parents: task → the task whose prediction its head, a `DependentHead`, receives. There are no cycles.
        compared: task → the task that it is compared with by a term of the objective, for which both predictions are
            needed.
    """

    def __init__(self, parents: Mapping[str, Parent], compared: Mapping[str, str] | None = None) -> None:
        self.parents, self.compared = dict(parents), dict(compared or {})
        ends = [*self.parents, *(parent.task for parent in self.parents.values())]
        self.linked = frozenset([*ends, *self.compared, *self.compared.values()])

    def add(self, parents: Mapping[str, Parent]) -> Dependencies:
        """Return the dependencies with further ones.

        Args:
            parents: task → the task whose prediction its head receives.

        Returns:
            Both.
        """
        return Dependencies({**self.parents, **parents}, self.compared)

    def is_reached_by_others(self, task: str) -> bool:
        """Return whether the loss of another task reaches the parameters of a task through its prediction."""
        return any(parent.task == task and not parent.detach for parent in self.parents.values())

    def closure(self, tasks: Iterable[str]) -> list[str]:
        """Return tasks with all whose predictions they need, each after those it depends on."""
        ordered: dict[str, None] = {}

        def visit(task: str) -> None:
            if task in self.parents:
                visit(self.parents[task].task)
            if task in self.compared:
                visit(self.compared[task])
            ordered[task] = None

        for task in tasks:
            visit(task)
        return list(ordered)

    def predict(self, heads: nn.ModuleDict, representations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute predictions.

        Args:
            heads: task → its head.
            representations: task → representation, [B, features], of a `closure` of tasks.

        Returns:
            Task → prediction, [B, outputs].
        """
        predictions: dict[str, Tensor] = {}
        for task in self.closure(representations):
            if (parent := self.parents.get(task)) is None:
                predictions[task] = heads[task](representations[task])
            else:
                received = predictions[parent.task]
                received = received.detach() if parent.detach else received
                predictions[task] = heads[task](representations[task], received)
        return predictions


def check_order(order: TaskOrder, inputs: Mapping[str, str]) -> tuple[str, ...]:
    """Check the option `order` of a sharing of tasks that follow each other.

    Args:
        order: the option.
        inputs: task → alias of its dataset.

    Returns:
        The tasks in their order.

    Raises:
        ValueError: if a task does not exist or is repeated, tasks are on different datasets, or there is one task only.
    """
    tasks = tuple(inputs if order is None else order)
    for task in tasks:
        if task not in inputs:
            raise ValueError(f"order: no task {task!r}.{suggest(task, inputs)} Choose from: {', '.join(inputs)}")
    if len(tasks) < 2 or len(set(tasks)) < len(tasks):
        raise ValueError(f"order: expected at least two tasks, each once, got {', '.join(tasks)}")
    if len({inputs[task] for task in tasks}) > 1:
        listing = ", ".join(f"{task} on {inputs[task]!r}" for task in tasks)
        raise ValueError(f"order: the tasks must be on the same dataset, and they are not: {listing}")
    return tasks


class AfterHead(DependentHead):
    """A head whose input is the representation, concatenated with the prediction of another task.

    Args:
        head: module [B, features + outputs of the other task] → [B, outputs].
        convert: converts the prediction to numbers of order 1.
    """

    def __init__(self, head: nn.Module, convert: nn.Module) -> None:
        super().__init__()
        self.head, self.convert = head, convert

    def forward(self, x: Tensor, prediction: Tensor) -> Tensor:
        """See `DependentHead.forward`."""
        converted = self.convert(prediction)
        outputs: Tensor = self.head(torch.cat([x, converted.to(x.dtype)], 1))
        return outputs


class Probabilities(nn.Module):
    """Conversion of logits to probabilities, in at least float32.

    Args:
        function: `softmax` over the classes, or `sigmoid` of each output.
    """

    def __init__(self, function: Literal["softmax", "sigmoid"]) -> None:
        super().__init__()
        self.function = function

    def forward(self, logits: Tensor) -> Tensor:
        """Convert logits.

        Args:
            logits: logits, [B, outputs].

        Returns:
            Probabilities, [B, outputs].
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.softmax(1) if self.function == "softmax" else logits.sigmoid()


class Standardize(nn.Module):
    """Conversion of a predicted number to (x − mean) / std.

    Args:
        mean: mean of the target.
        std: standard deviation of the target; 0 counts as 1.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std or 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Standardize predictions.

        Args:
            x: predictions in the units of the target, [B, outputs].

        Returns:
            Standardized predictions, [B, outputs].
        """
        return (x - self.mean) / self.std


def predict_from_features(dependencies: Dependencies, heads: nn.ModuleDict, task: str, features: Tensor) -> Tensor:
    """Compute the prediction of a task, and of those it depends on, from features that they have in common.

    Args:
        dependencies: the dependencies of the tasks.
        heads: task → its head.
        task: the task.
        features: input of all these heads, [B, features].

    Returns:
        The prediction, [B, outputs].
    """
    return dependencies.predict(heads, dict.fromkeys(dependencies.closure([task]), features))[task]
