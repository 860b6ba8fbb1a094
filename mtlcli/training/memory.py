"""Whether a network fits this machine, found out while it is built on the device `meta`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.nn import Module, Parameter
from torch.nn.modules.module import register_module_parameter_registration_hook

from mtlcli.errors import ConfigError

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
