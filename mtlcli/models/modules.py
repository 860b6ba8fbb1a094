"""Modules under names the user chose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ByName(nn.ModuleDict):
    """An `nn.ModuleDict` that takes any name without a dot, also those of its own methods.

    Torch's refuses a task or a dataset called `type`, `train` or `items`, since it could not be reached as an
    attribute. Here modules are reached with [name] only; the keys of the state dict are the names as they are.
    """

    def add_module(self, name: str, module: nn.Module | None) -> None:
        assert name and "." not in name and module is not None
        self._modules[name] = module

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # torch's would refuse its own `training` beside a module of that name


def channels_last(x: Tensor) -> Tensor:
    """[B, C, H, W] with the same values, channels-last in memory, so that a convolution's output is so too.

    Images of one channel are not copied: their memory is in that order already and only the strides need to say so
    (`contiguous(memory_format=…)` takes their usual strides for channels-last ones, and a convolution doesn't).
    """
    if x.shape[1] == 1:
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.contiguous(memory_format=torch.channels_last)
