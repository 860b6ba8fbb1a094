"""A small convolutional trunk with batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.config.options import Width, Widths
from mtlcli.models.modules import channels_last
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("cnn")
class CNN(Trunk):
    """Blocks of 3×3 convolutions with batch norm and ReLU: images [B, C, H, W] → [B, F].

    A 2×2 max pool follows the first convolution of a block, so that the remaining ones have a quarter of the cost;
    dropout and a fully connected layer with ReLU follow the last block. Activations: block1, block2, …, fc.

    With `output: map` the output is that of the last block, maps [B, F, H / 2ⁿ, W / 2ⁿ] for n blocks, rounded down; F
    is the last width.

    References:
        Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv:2404.00498: the structure of the blocks,
            here with ReLU.

    Args:
        input_shape: shape [C, H, W] of an image.
        widths: numbers of output channels of the blocks.
        depth: number of convolutions in each block.
        features: width F of the output; of no effect with `output: map`.
        dropout: dropout probability before the fully connected layer; of no effect with `output: map`.
        output: `vector`, or `map` for the maps of the last block.

    Raises:
        ValueError: if the inputs are not images or are too small to be halved by every block.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        widths: Annotated[Widths, Field(min_length=1)] = [32, 64, 128],  # noqa: B006 (never changed)
        depth: Annotated[int, Field(gt=0, le=100)] = 2,
        features: Width = 128,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        output: Literal["vector", "map"] = "vector",
    ) -> None:
        super().__init__()
        minimum = 2 ** len(widths)
        if len(input_shape) != 3 or min(input_shape[1:]) < minimum:
            raise ValueError(
                f"cnn with {len(widths)} blocks needs images [C, H, W] of at least {minimum}×{minimum}, "
                f"got {'×'.join(map(str, input_shape))}"
            )
        self.features = features
        self.names = [f"block{i + 1}" for i in range(len(widths))]
        for name, inputs, outputs in zip(self.names, [input_shape[0], *widths], widths, strict=False):
            self.add_module(name, _block(inputs, outputs, depth))
        if output == "map":
            self.representation, self.features = "map", widths[-1]
        else:
            height, width = (size // minimum for size in input_shape[1:])
            self.fc = nn.Sequential(
                nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * height * width, features), nn.ReLU()
            )
        self.to(memory_format=torch.channels_last)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        first, *rest = ((name, self.get_submodule(name)) for name in self.names)
        last = {"fc": self.fc} if self.representation == "vector" else {}
        return {first[0]: lambda x: first[1](channels_last(x)), **dict(rest), **last}


def _block(inputs: int, outputs: int, depth: int) -> nn.Module:
    """Create a block [B, inputs, H, W] → [B, outputs, H // 2, W // 2]."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [
            nn.Conv2d(outputs if layer else inputs, outputs, 3, padding=1, bias=False),
            *([] if layer else [nn.MaxPool2d(2)]),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
