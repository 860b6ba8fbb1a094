"""Shapes and modules of the stages of a trunk, and shapes of its activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from mtlcli.models.modules import blank_example, evaluation_mode, shape_errors
from mtlcli.models.trunks.base import Trunk
from mtlcli.specs import Shape


@dataclass(frozen=True)
class Stage:
    """Shapes and modules of one stage of a trunk.

    Attributes:
        input_shape: shape of the input without the batch.
        shape: shape of the activation without the batch.
        modules: paths, within the trunk, of all modules that the stage calls.
    """

    input_shape: Shape
    shape: Shape
    modules: frozenset[str]


def trace_stages(trunk: Trunk) -> dict[str, Stage]:
    """Trace the stages of a trunk with one blank example, in evaluation mode and without gradients.

    Args:
        trunk: the trunk, which is left unchanged; its device may be `meta`.

    Returns:
        Name → stage, in order.

    Raises:
        ValueError: if the trunk cannot process an example of its `input_shape`.
    """
    stages: dict[str, Stage] = {}
    with evaluation_mode(trunk), shape_errors():
        x = trunk.encoder(blank_example(trunk, trunk.input_shape))
        for name, stage in trunk.stages().items():
            input_shape = tuple(x.shape[1:])
            with _record_calls(trunk) as called:
                x = stage(x)
            stages[name] = Stage(input_shape, tuple(x.shape[1:]), frozenset(called))
    return stages


def activation_shapes(trunk: Trunk) -> dict[str, Shape]:
    """Compute the shapes of all activations of a trunk, as regularizers receive them, from one blank example.

    Args:
        trunk: the trunk, which is left unchanged; its device may be `meta`.

    Returns:
        Name → shape without the batch, in the order of the stages, followed by `features`.
    """
    with evaluation_mode(trunk):
        x = blank_example(trunk, trunk.input_shape)
        activations = trunk.recorded(x, *trunk.activations(x, trunk.activation_names()))
    return {name: tuple(x.shape[1:]) for name, x in activations.items() if name != "input"}


def stage_key(stage: str) -> str:
    """Convert the name of a stage, which may contain dots, to a name that a module can have."""
    return stage.replace(".", "-")


@contextmanager
def _record_calls(trunk: nn.Module) -> Iterator[set[str]]:
    """Collect the paths of the trunk's modules that are called in the block."""
    called: set[str] = set()

    def record(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: called.add(name)

    handles = [module.register_forward_pre_hook(record(name)) for name, module in trunk.named_modules() if name]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()
