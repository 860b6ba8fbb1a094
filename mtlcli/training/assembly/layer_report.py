"""Layers of a model, with shapes, parameters and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtlcli.models.modules import evaluation_mode
from mtlcli.specs import Shape
from mtlcli.training.assembly.model_size import blank_inputs
from mtlcli.training.run import Run


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Attributes:
        name: Path in the sharing.
        kind: Class name.
        of: Task that it serves exclusively; None if several tasks share it.
        shape: Shape of its output for one example; () if it has none of its own.
        parameters: Number of parameters, including frozen ones.
        flops: Floating-point operations for one example of every dataset; a multiplication and an addition are two.
    """

    name: str
    kind: str
    of: str | None
    shape: Shape
    parameters: int
    flops: int


def layers(run: Run) -> list[Layer]:
    """Return the layers of the model in order.

    One blank example of each dataset is passed through the model, on its device, which may be `meta`.
    """
    model, shapes = run.model, dict[nn.Module, Shape]()

    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with evaluation_mode(model), FlopCounterMode(display=False) as counter:
            model(blank_inputs(model, run.specs))
    finally:
        for handle in handles:
            handle.remove()
    flops = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    own = {
        inner: task for task in model.heads for module in model.sharing.own_modules(task) for inner in module.modules()
    }
    rows = []
    for name, module in model.sharing.named_modules():
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        if parameters:
            shape, count = shapes.get(module, ()), flops.get(f"sharing.{name}", 0)
            rows.append(Layer(name, type(module).__name__, own.get(module), shape, parameters, count))
    return rows
