"""How large a model is."""

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
    """Numbers of `shared_parameters` and of all `parameters`; `flops` of one example of every dataset."""
    counts, flops = model.count_parameters(), sum(flops_per_sample(model, specs).values())
    return {"shared_parameters": counts["shared"], "parameters": counts["total"], "flops": flops}


def flops_per_sample(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, int]:
    """alias → floating-point operations of a prediction for one example of the dataset, for all tasks on it.

    A multiplication and an addition are two. specs: of the datasets, by alias. The model may be on `meta`.
    """
    from torch.utils.flop_counter import FlopCounterMode  # which imports triton

    found = {}
    for alias, blank in blank_inputs(model, specs).items():
        with evaluation_mode(model), FlopCounterMode(display=False) as counter:
            model({alias: blank})
        found[alias] = counter.get_total_flops()
    return found


def blank_inputs(model: MultiTaskModel, specs: Mapping[str, DatasetSpec]) -> dict[str, Tensor]:
    """alias → a raw example of nothing but zeros, [1, …], on the model's device."""
    return {alias: blank_example(model, spec.input_shape) for alias, spec in specs.items()}


MOST_TENSORS = 10_000  # a network of more takes long only to be built


@contextmanager
def within_memory() -> Iterator[None]:
    """Counts the parameters of every module that is made meanwhile, those of one that something else replaces too.

    Raises ConfigError, where the module is made, at the first that this machine has no memory for: what is made on
    `meta` takes none, but the weights are drawn on the CPU, whatever the run's device is.
    """
    memory = physical_memory()
    seen: dict[int, Parameter] = {}  # by identity: two modules may share one
    count = size = 0

    def add(module: Module, name: str, parameter: Parameter | None) -> None:
        nonlocal count, size
        if parameter is None or id(parameter) in seen:
            return
        seen[id(parameter)] = parameter
        count += parameter.numel()
        size += parameter.numel() * parameter.element_size()
        if size > memory:
            have = f"this machine has {_gib(memory)} of memory"
            raise ConfigError(f"too large: {count:,} parameters up to here, {_gib(size)}, and {have}")
        if len(seen) > MOST_TENSORS:
            raise ConfigError(f"too many layers: more than {MOST_TENSORS:,} weights and biases")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def physical_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
