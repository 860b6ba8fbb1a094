"""Helpers for `torch.nn` modules: a memory layout and passes over blank examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mtlcli.specs import Shape


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Run a block with `module` in evaluation mode and without gradients; restore its mode afterwards.

    A forward pass in this block draws no random numbers and leaves the statistics of batch norm unchanged.

    Args:
        module: the module to run.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


def blank_example(module: nn.Module, shape: Shape) -> Tensor:
    """Return a batch of one example of zeros on the device of a module's parameters, which may be `meta`.

    Args:
        module: the module that the example is for; without parameters, the default device is used.
        shape: shape of the example without the batch.

    Returns:
        Zeros, float32 [1, *shape].
    """
    device = next((parameter.device for parameter in module.parameters()), None)
    return torch.zeros(1, *shape, device=device)


def channels_last(x: Tensor) -> Tensor:
    """Convert images to channels-last memory format, so that the output of a convolution has it too.

    An image with one channel is not copied: its memory is already in that order, and only its strides are changed
    (`contiguous(memory_format=torch.channels_last)` accepts its contiguous strides, but convolutions don't).

    Args:
        x: images, [B, C, H, W].

    Returns:
        The same values, [B, C, H, W], in channels-last memory format.
    """
    if x.shape[1] == 1:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.contiguous(memory_format=torch.channels_last)


@contextmanager
def record_outputs(modules: Mapping[str, nn.Module], outputs: dict[str, Tensor]) -> Iterator[None]:
    """Record the outputs of modules in all passes within the block.

    Args:
        modules: name → module.
        outputs: receives name → output.
    """

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: outputs.__setitem__(name, output)

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def shape_errors() -> Iterator[None]:
    """Convert torch's error for shapes that don't fit to a ValueError."""
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"the trunk can't take the datasets' inputs: {error}") from error
