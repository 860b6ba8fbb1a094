"""Size of a model: parameters and floating-point operations, of each layer and in total, and their reduction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mtlcli.models.modules import evaluation_mode
from mtlcli.specs import Shape
from mtlcli.text_spec import LONGEST
from mtlcli.training.run import Run


def size(run: Run) -> dict[str, int]:
    """Return the numbers of `shared_parameters` and `parameters`, and the `flops` of one example of every dataset."""
    counts, flops = run.model.count_parameters(), sum(flops_per_sample(run).values())
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": flops}


def flops_per_sample(run: Run) -> dict[str, int]:
    """Count the floating-point operations of a prediction for one example, for all tasks on its dataset.

    A multiplication and an addition are two operations. A text has the maximum number of tokens.

    Args:
        run: The run, whose model may be on `meta`.

    Returns:
        alias → operations.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    flops = {}
    for alias, blank in run.blank_inputs(tokens=LONGEST).items():
        with evaluation_mode(run.model), FlopCounterMode(display=False) as counter:
            run.model({alias: blank})
        flops[alias] = counter.get_total_flops()
    return flops


def compress(run: Run) -> dict[str, Any] | None:
    """Let the regularizers compress the trained model of a run.

    Args:
        run: The run, of whose model the regularizers replace layers.

    Returns:
        A JSON document with `shared_parameters`, `parameters` and `flops` as {before, after} and the report of each
        regularizer; None if none of them compresses. `before` is the model without regularizers.
    """
    reports = run.regularization.compress()
    if not reports:
        return None
    after = size(run)
    return {**{key: {"before": run.size[key], "after": after[key]} for key in run.size}, "regularizers": reports}


@dataclass(frozen=True)
class Layer:
    """A module with parameters of its own.

    Attributes:
        name: Path in the sharing, or in the model if it is part of a stem.
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

    One blank example of each dataset is passed through the model, on its device, which may be `meta`; a text has the
    maximum number of tokens.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    model, shapes = run.model, dict[nn.Module, Shape]()

    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with evaluation_mode(model), FlopCounterMode(display=False) as counter:
            model(run.blank_inputs(tokens=LONGEST))
    finally:
        for handle in handles:
            handle.remove()
    flops = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    own = {inner: task for task in model.heads for module in model.own_modules(task) for inner in module.modules()}
    paths = [(name, f"sharing.{name}", module) for name, module in model.sharing.named_modules()]
    if model.stems is not None:
        paths[:0] = [(f"stems.{name}", f"stems.{name}", module) for name, module in model.stems.named_modules()]
    rows = []
    for name, path, module in paths:
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        if parameters:
            shape, count = shapes.get(module, ()), flops.get(path, 0)
            rows.append(Layer(name, type(module).__name__, own.get(module), shape, parameters, count))
    return rows
