"""A convolutional stem."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.config.options import Width
from mtlcli.models.interpolation import Interpolation
from mtlcli.models.modules import channels_last
from mtlcli.models.stems.base import Stem, format_shape, make_projection
from mtlcli.registry import stems
from mtlcli.specs import Shape


@stems.register("conv")
class Conv(Stem):
    """3×3 convolutions with ReLU: images → feature maps or vectors, as the trunk takes them.

    The convolutions keep the size of the image. If the trunk takes maps [C, h, w], their outputs are interpolated to
    h×w (antialiased, as by the stem `resize`), and a 1×1 convolution follows if C differs from `channels`. If it takes
    vectors, they are interpolated to at most `grid`×`grid`, flattened, and followed by a linear layer. No layer uses
    batch statistics, so that an example does not depend on those of other datasets.

    Args:
        input_shape: shape [C, H, W] of an image.
        output_shape: input shape of the trunk: a map or a vector.
        channels: number of output channels of each convolution.
        layers: number of convolutions.
        size: height and width of the output, which state that the trunk takes maps [channels, size, size]; null: the
            rest of the experiment determines the shape.
        features: width of the output, which states that the trunk takes vectors of this width; null: the rest of the
            experiment determines the shape.
        grid: largest height and width of the maps before the linear layer of a vector.

    Raises:
        ValueError: if the inputs are not images, or both `size` and `features` are set.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        channels: Width = 16,
        layers: Annotated[int, Field(gt=0, le=100)] = 1,
        size: Width | None = None,
        features: Width | None = None,
        grid: Width = 7,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3 or len(output_shape) not in (1, 3):
            raise ValueError(
                f"conv converts images [C, H, W] to maps or vectors: it can't convert {format_shape(input_shape)} to "
                f"{format_shape(output_shape)}, the input of the trunk"
            )
        modules: list[nn.Module] = []
        for layer in range(layers):
            inputs = channels if layer else input_shape[0]
            modules += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*modules).to(memory_format=torch.channels_last)
        before = input_shape[1:]
        after = output_shape[1:] or tuple(min(length, grid) for length in before)
        self.interpolation = nn.Identity() if after == before else Interpolation(before, after)
        self.projection: nn.Module = nn.Identity()
        if len(output_shape) == 1:
            self.projection = nn.Sequential(nn.Flatten(), make_projection(channels * math.prod(after), output_shape))
        elif channels != output_shape[0]:
            self.projection = nn.Conv2d(channels, output_shape[0], 1)

    @classmethod
    def stated_shape(cls, input_shape: Shape, options: dict[str, Any]) -> Shape | None:
        """See `Stem.stated_shape`: [channels, size, size] if `size` is set, [features] if `features` is."""
        size, features = options["size"], options["features"]
        if size is not None and features is not None:
            raise ValueError("`size` is for a trunk that takes maps, `features` for one that takes vectors: set one")
        return super().stated_shape(input_shape, options) if size is None else (options["channels"], size, size)

    def forward(self, x: Tensor, /) -> Tensor:
        encoded: Tensor = self.projection(self.interpolation(self.convolutions(channels_last(x))))
        return encoded
