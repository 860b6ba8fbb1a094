"""Checks of the weights of examples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from mtlcli.data.base import Examples
from mtlcli.errors import ConfigError
from mtlcli.tasks.base import TaskKind


def check_weights(examples: Examples, split: str, kinds: Mapping[str, TaskKind]) -> None:
    """Check the weights of the examples of a split, and that the kinds of the tasks accept weights.

    Args:
        examples: the examples, with weights.
        split: name of the split, for messages.
        kinds: task → kind, of the tasks on the dataset.

    Raises:
        ConfigError: a weight is negative or not finite, all are 0, their number or type is wrong, or a kind has no
            parameter `weight`.
    """
    weights = examples.weights
    if not isinstance(weights, torch.Tensor) or weights.dtype != torch.float32 or weights.ndim != 1:
        raise ConfigError(f"the split {split!r}: the weights must be a float32 tensor [N]")
    if len(weights) != len(examples.inputs):
        raise ConfigError(f"the split {split!r}: {len(weights)} weights for {len(examples.inputs)} examples")
    own = weights if examples.rows is None else weights[examples.rows]
    if bool((wrong := ~((own >= 0) & own.isfinite())).any()):
        value = own[wrong][0].item()
        raise ConfigError(
            f"the split {split!r}: the weight of an example is {value:g}, expected a number of at least 0"
        )
    if not bool(own.any()):
        raise ConfigError(f"the split {split!r}: all examples have the weight 0")
    for task, kind in kinds.items():
        check_kind(task, kind)
        unweighted = [name for name in kind.reported if name in kind.collected and not kind.collected[name].weighted]
        if unweighted:
            raise ConfigError(
                f"task {task!r} has weights, for which its metric {unweighted[0]!r} isn't defined; leave it out of "
                f"tasks.{task}.metrics"
            )


def check_kind(task: str, kind: TaskKind) -> None:
    """Check that a kind accepts weights, which a kind from a plugin need not.

    Args:
        task: name of the task, for the message.
        kind: its kind.

    Raises:
        ConfigError: its loss or its metrics have no parameter `weight`.
    """
    for method, name in (
        (kind.loss, "loss"),
        (kind.create_metrics(torch.device("cpu")).update, "`update` of its metrics"),
    ):
        if not _accepts_weight(method):
            raise ConfigError(
                f"task {task!r} has weights, but its kind ({type(kind).__name__}) doesn't support them: {name} needs a "
                f"third parameter, `weight: Tensor | None = None`"
            )


def _accepts_weight(method: Callable[..., Any]) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == "weight" or p.kind is p.VAR_POSITIONAL for p in parameters)
