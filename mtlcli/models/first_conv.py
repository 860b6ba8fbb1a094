"""The first convolution of a network of images, whose backward pass is quick on a CPU."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MOST_INPUTS = 128  # of one output: C·k·k
MOST_BYTES = 32 * 2**20  # of all windows of a batch


class FirstConv2d(nn.Conv2d):
    """`nn.Conv2d` for raw images [B, C, H, W], which need no gradient: the same function, parameters and options.

    The gradient of its weight is a matrix product with the windows of the images, which are laid out once for the
    backward passes of all tasks. On a CPU oneDNN takes five times as long for each of them where there are few input
    channels (`benchmarks/gradients.py --cases same10`). Elsewhere, for large batches, in reduced precision and in
    graphs that are compiled or exported it is `nn.Conv2d` itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._quick(x):
            return super().forward(x)
        return cast("Tensor", _Convolution.apply(x, self.weight, self.bias, self.stride, self.padding))

    def _quick(self, x: Tensor) -> bool:
        inputs = self.weight[0].numel()
        pixels = x.shape[0] * x.shape[-1] * x.shape[-2] // (self.stride[0] * self.stride[1])
        return (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and not x.requires_grad
            and x.dtype == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and inputs <= MOST_INPUTS
            and pixels * inputs * x.element_size() <= MOST_BYTES
            and (self.groups, self.dilation, self.padding_mode) == (1, (1, 1), "zeros")
            and not isinstance(self.padding, str)
        )


class _Convolution(torch.autograd.Function):
    """The convolution; its graph node keeps the windows, so that a pass that goes backward again finds them."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.shape, ctx.stride, ctx.padding, ctx.biased = weight.shape, stride, padding, bias is not None
        ctx.windows = None
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.windows is None:
            (x,) = ctx.saved_tensors
            ctx.windows = _windows(x, ctx.shape, ctx.stride, ctx.padding)
        rows = gradient.permute(0, 2, 3, 1).reshape(-1, ctx.shape[0])
        outputs, channels, height, width = ctx.shape
        by_place = (rows.T @ ctx.windows).view(outputs, height, width, channels)
        bias = rows.sum(0) if ctx.biased else None
        return None, by_place.permute(0, 3, 1, 2), bias, None, None


def _windows(x: Tensor, shape: torch.Size, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """What each output sees, [B·H'·W', k·k·C], in the order row, column, channel."""
    _, channels, height, width = shape
    padded = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(2, height, stride[0]).unfold(3, width, stride[1])  # [B, C, H', W', k, k]
    return windows.permute(0, 2, 3, 4, 5, 1).reshape(-1, height * width * channels)
