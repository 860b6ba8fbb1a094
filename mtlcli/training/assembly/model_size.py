"""Size of a model: parameters, floating-point operations, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtlcli.errors import ConfigError
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.modules import blank_example, evaluation_mode
from mtlcli.specs import DatasetSpec


def size(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """Return the numbers of `shared_parameters` and `parameters`, and the `flops` of one example of every dataset."""
    counts, flops = model.count_parameters(), sum(flops_per_sample(model, specs).values())
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": flops}


def flops_per_sample(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """Count the floating-point operations of a prediction for one example, for all tasks on its dataset.

    A multiplication and an addition are two operations.

    Args:
        model: The model, which may be on `meta`.
        specs: alias → description of the dataset.

    Returns:
        alias → operations.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    flops = {}
    for alias, blank in blank_inputs(model, specs).items():
        with evaluation_mode(model), FlopCounterMode(display=False) as counter:
            model({alias: blank})
        flops[alias] = counter.get_total_flops()
    return flops


def blank_inputs(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, Tensor]:
    """Return alias → one raw example of zeros, [1, …], on the device of the model."""
    return {alias: blank_example(model, spec.input_shape) for alias, spec in specs.items()}


MOST_TENSORS = 10_000  # a network with more takes long to build


@contextmanager
def within_memory() -> Iterator[None]:
    """Limit the parameters of modules that are constructed in this context to the memory of the machine.

    Every module counts, including those that are replaced later. Modules on `meta` take no memory, but weights are
    initialized on the CPU whatever the device of the run is.

    Raises:
        ConfigError: At the first module that exceeds the memory or the number of tensors.
    """
    memory = physical_memory()
    seen: dict[int, Parameter] = {}  # by identity, since modules can share parameters
    count = size = 0

    def add(module: Module, name: str, parameter: Parameter | None) -> None:
        nonlocal count, size
        if parameter is None or id(parameter) in seen:
            return
        seen[id(parameter)] = parameter
        count += parameter.numel()
        size += parameter.numel() * parameter.element_size()
        if size > memory:
            raise ConfigError(
                f"too large: {count:,} or more parameters take {_gib(size)}, but this machine has {_gib(memory)} "
                f"of memory"
            )
        if len(seen) > MOST_TENSORS:
            raise ConfigError(f"too many layers: more than {MOST_TENSORS:,} weights and biases")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
