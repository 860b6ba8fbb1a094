"""The seed document's trunk: two convolutions and two fully connected layers."""

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

MINIMUM = 16  # two times: a 5×5 convolution without padding, then a 2×2 pool


@trunks.register("lenet")
class LeNet(Trunk):
    """The seed document's small convolutional trunk: images [B, C, H, W] of at least 16×16 → [B, features].

    conv1 (5×5), 2×2 max pool, ReLU; conv2 (5×5, twice the channels), channel dropout, 2×2 max pool, ReLU; fc1, ReLU,
    dropout; fc2, with no activation function after it. The document drops with probability 0.5 in both places, and
    its features are 10 wide. Activations: conv1, conv2, fc1 (each after its ReLU, fc1 before its dropout) and fc2.
    The channel dropout is drawn after the pool: it multiplies a channel by a number ≥ 0, so it does the same there,
    on a quarter of the values.

    Source: LeCun et al., Gradient-based learning applied to document recognition, 1998, in the form of PyTorch's first
    MNIST example. ValueError for inputs that aren't images or are smaller than 16×16.

    Options:
        channels: output channels of conv1; conv2 has twice as many.
        hidden: width of fc1.
        features: width of the output; null: there is no fc2, and fc1 is the output.
        dropout: probability that a value of fc1 is dropped in training, before fc2.
        channel_dropout: probability that a whole channel of conv2 is dropped in training.
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
        return F.relu(self.fc1(x.flatten(1)))  # in the order channel, row, column, whatever the layout

    def _fc2(self, x: Tensor) -> Tensor:
        assert self.fc2 is not None
        out: Tensor = self.fc2(F.dropout(x, self.dropout, self.training))
        return out
