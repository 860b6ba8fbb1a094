"""Options of a task: weights of its classes, its sample space, its early stopping, and the task that it comes after."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveInt

from mtlcli.config.options import Section
from mtlcli.config.type_names import TypeDescription

Number = Annotated[NonNegativeFloat, Field(allow_inf_nan=False)]
ClassWeights = Annotated[
    dict[str, Number],
    Field(min_length=1),
    TypeDescription("a mapping of classes to weights of at least 0", "mappings of classes to weights"),
]
Label = Annotated[
    str | bool | int | float, TypeDescription("a class, a number or a label", "classes, numbers or labels")
]


class After(Section):
    """The task whose prediction the head of another task receives."""

    location: ClassVar[str] = "tasks.TASK.after."

    task: str
    """Task on the same dataset."""
    detach: bool = False
    """Stop the gradient of the receiving task at the prediction."""


def _named_task(value: Any) -> Any:
    return {"task": value} if isinstance(value, str) else value


AfterField = Annotated[
    After,
    BeforeValidator(_named_task, json_schema_input_type=str | After),
    TypeDescription("the name of a task, or a mapping of `task` and `detach`", "tasks"),
]


class Condition(Section):
    """Condition on the label of a target."""

    location: ClassVar[str] = "tasks.TASK.where.also."

    target: str
    """Target of the dataset."""
    equals: Label | list[Label]
    """Class, number or label that it must be, or a list of them."""


class Where(Section):
    """Sample space of a task: the examples in which another label of the same dataset has given values."""

    location: ClassVar[str] = "tasks.TASK.where."

    task: str | None = None
    """Task on the same dataset whose label decides. An example outside this task's own space is outside."""
    target: str | None = None
    """Target of the dataset whose label decides, instead of a task."""
    equals: Label | list[Label]
    """Class, number or label that the other label must be, or a list of them."""
    also: Annotated[list[Condition], Field(max_length=100)] = Field([])
    """Further conditions, all of which must hold."""


class Stop(Section):
    """Early stopping of a single task."""

    location: ClassVar[str] = "tasks.TASK.stop."

    patience: PositiveInt
    """Stop the task after this many epochs without a better value of its metric."""
    metric: str = "primary"
    """Metric of the task, or `primary` for the primary metric of its kind."""
