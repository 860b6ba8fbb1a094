"""A LeNet-style trunk: two convolutions and two fully connected layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.config.options import Width
from mtlcli.models.modules import channels_last
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape

MINIMUM = 16  # pixels; two 5×5 convolutions without padding, each followed by a 2×2 pool


@trunks.register("lenet")
class LeNet(Trunk):
    """LeNet in the variant of PyTorch's first MNIST example: images [B, C, H, W] of at least 16×16 → [B, F].

    The layers are conv1 (5×5), 2×2 max pool, ReLU; conv2 (5×5, twice the channels), channel dropout, 2×2 max pool,
    ReLU; fc1, ReLU, dropout; and fc2 without an activation function. Activations: conv1, conv2, fc1 (each after its
    ReLU, fc1 before its dropout) and fc2.

    Channel dropout is applied after the pool: it multiplies a channel by a non-negative number, so the result is the
    same as before the pool, with a quarter of the values.

    Note:
        In PyTorch's example, both dropout probabilities are 0.5 and the output has 10 features.

    References:
        LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, Proceedings of the
            IEEE 1998.

    Args:
        input_shape: shape [C, H, W] of an image.
        channels: number of output channels of conv1; conv2 has twice as many.
        hidden: width of fc1.
        features: width F of the output; null: fc2 is omitted, and fc1 is the output.
        dropout: dropout probability of fc1's output, before fc2.
        channel_dropout: probability that a whole channel of conv2 is dropped in training.

    Raises:
        ValueError: if the inputs are not images or are smaller than 16×16.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        channels: Width = 10,
        hidden: Width = 50,
        features: Width | None = 50,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        channel_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or min(input_shape[1:]) < MINIMUM:
            raise ValueError(
                f"lenet needs images [C, H, W] of at least {MINIMUM}×{MINIMUM}, got {'×'.join(map(str, input_shape))}"
            )
        self.features, self.dropout, self.channel_dropout = features or hidden, dropout, channel_dropout
        height, width = (((size - 4) // 2 - 4) // 2 for size in input_shape[1:])
        self.conv1 = nn.Conv2d(input_shape[0], channels, 5)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 5)
        self.fc1 = nn.Linear(2 * channels * height * width, hidden)
        self.fc2 = None if features is None else nn.Linear(hidden, features)
        self.to(memory_format=torch.channels_last)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        stages: dict[str, Callable[[Tensor], Tensor]] = {"conv1": self._conv1, "conv2": self._conv2, "fc1": self._fc1}
        return stages if self.fc2 is None else {**stages, "fc2": self._fc2}

    def _conv1(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.conv1(channels_last(x)), 2).relu_()

    def _conv2(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv2(x), 2).relu_()
        return F.dropout2d(x, self.channel_dropout, self.training)

    def _fc1(self, x: Tensor) -> Tensor:
        return F.relu(self.fc1(x.flatten(1)))  # in the order channel, row, column, for any memory layout

    def _fc2(self, x: Tensor) -> Tensor:
        assert self.fc2 is not None
        out: Tensor = self.fc2(F.dropout(x, self.dropout, self.training))
        return out
