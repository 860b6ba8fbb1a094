"""Arguments of `Balancer`, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from mtlcli.config import validation_errors
from mtlcli.config.component_configs import WeightingConfig
from mtlcli.config.components import WeightingField
from mtlcli.config.locations import Source
from mtlcli.errors import ConfigError, suggest
from mtlcli.registry import weightings
from mtlcli.weighting.base import WeightedTask, Weighting


class _Entry(BaseModel):
    weighting: WeightingField


def parameter_list(name: str, parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Check an argument that holds parameters.

    Args:
        name: Name of the argument, for errors.
        parameters: Its value.

    Returns:
        The distinct parameters.

    Raises:
        ValueError: It is empty, or a module.
    """
    if isinstance(parameters, nn.Module):
        raise ValueError(f"`{name}` must be parameters, got a module; pass its `parameters()`")
    distinct = list({id(parameter): parameter for parameter in parameters}.values())
    if not distinct:
        raise ValueError(f"`{name}` has no parameter; a generator such as `parameters()` can be read only once")
    return distinct


def weighted_tasks(tasks: Iterable[str | WeightedTask] | Mapping[str, float]) -> list[WeightedTask]:
    """Check the tasks.

    Args:
        tasks: Names or `WeightedTask`s, or a mapping from names to weights.

    Returns:
        The tasks in their order.

    Raises:
        ValueError: There is no task, or one is there twice.
    """
    if isinstance(tasks, str):
        raise ValueError(f"`tasks` must be a list of names, got {tasks!r}")
    if isinstance(tasks, Mapping):
        weighted = [WeightedTask(name, float(weight)) for name, weight in tasks.items()]
    else:
        weighted = [task if isinstance(task, WeightedTask) else WeightedTask(task) for task in tasks]
    names = [task.name for task in weighted]
    if not names:
        raise ValueError("`tasks` is empty")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`tasks` has {repeated[0]!r} more than once")
    return weighted


def make_weighting(
    method: str | Weighting | type[Weighting], tasks: list[WeightedTask], options: dict[str, Any], seed: int
) -> tuple[Weighting, int]:
    """Make the weighting. An unknown method or option is a `ConfigError`.

    Args:
        method: Name, subclass or instance of a weighting.
        tasks: Tasks it is for.
        options: Its options, and `every`.
        seed: Seed of its random generator, unless it is an instance.

    Returns:
        The weighting, and the number of steps from one solution to the next.

    Raises:
        ValueError: The arguments do not fit together.
    """
    if "gradients" in options:
        raise ValueError("`gradients` is chosen by `backward(losses, features=…)` or by `last_layer`, not as an option")
    if isinstance(method, str):
        entry = _validated(method, options)
        if entry.options.get("from") is not None:
            raise ValueError(f"{method}: `from` is measured before a run of `mtl train`; pass a `matrix` here")
        weighting: Weighting = weightings[method].create(tasks, **entry.options)
        weighting.seed(seed)
        return weighting, entry.every or 1
    every = options.pop("every", 1)
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"`every` must be an integer of at least 1, got {every!r}")
    if isinstance(method, type) and issubclass(method, Weighting):
        weighting = method(tasks, **options)
        weighting.seed(seed)
        return weighting, every
    if not isinstance(method, Weighting):
        raise ValueError(f"`method` must be the name of a weighting or a `Weighting`, got {type(method).__name__}")
    if options:
        raise ValueError(f"options of a `Weighting` that already exists: {', '.join(options)}")
    names, own = [task.name for task in tasks], [task.name for task in method.tasks]
    if own != names:
        raise ValueError(f"the `Weighting` is made for the tasks {own}, and `tasks` is {names}")
    return method, every


def _validated(method: str, options: dict[str, Any]) -> WeightingConfig:
    """Return the entry of an experiment file with these options. Raises ConfigError with all that is wrong."""
    data = {"weighting": {"name": method, **options}}
    try:
        return _Entry.model_validate(data).weighting
    except ValidationError as error:
        raise ConfigError(validation_errors.problems(error, _Entry, data, Source())) from error


def feature_list(features: Tensor | Iterable[Tensor] | Mapping[Any, Tensor]) -> list[Tensor]:
    """Check the features.

    Args:
        features: A tensor, or a list or mapping of tensors.

    Returns:
        The distinct tensors.

    Raises:
        ValueError: There is none, or one is not a tensor.
    """
    values = (
        [features]
        if isinstance(features, Tensor)
        else list(features.values() if isinstance(features, Mapping) else features)
    )
    if not values or not all(isinstance(value, Tensor) for value in values):
        raise ValueError("`features` must be a tensor, or a list or mapping of tensors, and not empty")
    return list({id(value): value for value in values}.values())


def losses_by_task(tasks: list[str], losses: Any, needs_graph: bool = True) -> dict[int, Tensor]:
    """Check the losses of a step.

    Args:
        tasks: Names of all tasks.
        losses: List in the order of the tasks, or mapping by their names; None for a task that is absent.
        needs_graph: Whether every loss must require a gradient.

    Returns:
        Index of each present task, ascending → its loss, 0-d.

    Raises:
        ValueError: The losses are not those of the tasks, or none is given.
    """
    if isinstance(losses, Mapping):
        for name in losses:
            if name not in tasks:
                hint = suggest(str(name), tasks)
                raise ValueError(f"unknown task {name!r}.{hint} The tasks are: {', '.join(tasks)}")
        entries = [losses.get(name) for name in tasks]
    else:
        entries = [losses] if isinstance(losses, Tensor) and losses.dim() == 0 else list(losses)
        if len(entries) != len(tasks):
            raise ValueError(
                f"expected {len(tasks)} losses, of the tasks {', '.join(tasks)}, got {len(entries)}; pass None for a "
                f"task without labels, or a mapping from names to losses"
            )
    by_task = {task: _scalar(tasks[task], loss, needs_graph) for task, loss in enumerate(entries) if loss is not None}
    if not by_task:
        raise ValueError(f"no loss: every task ({', '.join(tasks)}) is without one")
    return by_task


def _scalar(task: str, loss: Any, needs_graph: bool = True) -> Tensor:
    if not isinstance(loss, Tensor):
        raise ValueError(f"the loss of task {task!r} must be a tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(f"the loss of task {task!r} must have one element, got the shape {tuple(loss.shape)}")
    if needs_graph and not loss.requires_grad:
        raise ValueError(
            f"the loss of task {task!r} does not require a gradient; pass None for a task without labels in the step"
        )
    return loss if loss.dim() == 0 else loss.reshape(())
