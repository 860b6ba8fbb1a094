"""U-Net: an encoder and a decoder with skip connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.config.options import Widths
from mtlcli.models.modules import channels_last
from mtlcli.models.representations import Representation
from mtlcli.models.trunks.base import Trunk
from mtlcli.registry import trunks
from mtlcli.specs import Shape

Norm = Literal["batch", "group", "none"]


@trunks.register("unet")
class UNet(Trunk):
    """U-Net: images [B, C, H, W] → maps [B, F, H, W] of the same size, from an encoder and a decoder.

    Stages: `encoder1`, …, `encoderN` for N widths, then `decoder{N−1}`, …, `decoder1`. A stage of the encoder consists
    of 3×3 convolutions with norm and ReLU, after a 2×2 max pool except in the first one. A stage of the decoder doubles
    the size by a transposed 2×2 convolution, concatenates the activation of the encoder's stage of the same number (the
    skip connection), and applies 3×3 convolutions. F is the first width.

    Where a sharing connects stages, the skip connection passes on what the following stage of the encoder receives: the
    activation after a stitch or a gate.

    Sizes that can't be halved exactly are rounded down; the decoder pads the enlarged maps with zeros, at the bottom
    and on the right, to the size of the skip connection.

    Note:
        Deviations from the paper: convolutions are padded, so that maps keep their size, and have a norm.

    References:
        Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015,
            arXiv:1505.04597.

    Args:
        input_shape: shape [C, H, W] of an image.
        widths: numbers of channels of the encoder's stages, from the image inwards.
        depth: number of 3×3 convolutions in each stage.
        norm: norm after each 3×3 convolution: `batch`, `group` (8 groups, or the greatest number of groups that divides
            8 and the width; for small batches) or `none`.

    Raises:
        ValueError: if the inputs are not images, or are too small to be halved between all stages of the encoder.
    """

    representation: Representation = "map"
    stages_are_linked = True

    def __init__(
        self,
        input_shape: Shape,
        *,
        widths: Annotated[Widths, Field(min_length=2)] = [32, 64, 128, 256],  # noqa: B006 (never changed)
        depth: Annotated[int, Field(gt=0, le=100)] = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        minimum = 2 ** (len(widths) - 1)
        if len(input_shape) != 3 or min(input_shape[1:]) < minimum:
            raise ValueError(
                f"unet with {len(widths)} widths needs images [C, H, W] of at least {minimum}×{minimum}, "
                f"got {'×'.join(map(str, input_shape))}"
            )
        self.features = widths[0]
        self.levels = len(widths)
        for level, (inputs, width) in enumerate(zip([input_shape[0], *widths], widths, strict=False), 1):
            pool = [nn.MaxPool2d(2)] if level > 1 else []
            self.add_module(f"encoder{level}", nn.Sequential(*pool, *_convolutions(inputs, width, depth, norm)))
        for level in range(self.levels - 1, 0, -1):
            self.add_module(f"decoder{level}", _Decoder(widths[level], widths[level - 1], depth, norm))
        self.to(memory_format=torch.channels_last)

    def stages(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Return the stages of one pass, in which the skip connections are kept; see `Trunk.stages`."""
        skips: dict[int, Tensor] = {}

        def encode(level: int) -> Callable[[Tensor], Tensor]:
            encoder = self.get_submodule(f"encoder{level}")

            def stage(x: Tensor) -> Tensor:
                if level == 1:
                    x = channels_last(x)
                else:
                    skips[level - 1] = x
                y: Tensor = encoder(x)
                return y

            return stage

        def decode(level: int) -> Callable[[Tensor], Tensor]:
            decoder = self.get_submodule(f"decoder{level}")

            def stage(x: Tensor) -> Tensor:
                y: Tensor = decoder(x, skips[level])
                return y

            return stage

        levels = range(1, self.levels + 1)
        encoders = {f"encoder{level}": encode(level) for level in levels}
        return {**encoders, **{f"decoder{level}": decode(level) for level in reversed(levels[:-1])}}


class _Decoder(nn.Module):
    """A stage of the decoder: maps [B, inputs, h, w] and a skip connection [B, width, H, W] → [B, width, H, W]."""

    def __init__(self, inputs: int, width: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(inputs, width, 2, stride=2)
        self.block = nn.Sequential(*_convolutions(2 * width, width, depth, norm))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.enlarge(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = F.pad(x, (0, columns, 0, rows))
        y: Tensor = self.block(torch.cat([skip, x], 1))
        return y


def _convolutions(inputs: int, width: int, depth: int, norm: Norm) -> list[nn.Module]:
    """Create `depth` 3×3 convolutions with norm and ReLU, [B, inputs, H, W] → [B, width, H, W]."""
    layers: list[nn.Module] = []
    for channels in [inputs, *[width] * (depth - 1)]:
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(width))
        elif norm == "group":
            layers.append(nn.GroupNorm(math.gcd(8, width), width))
        layers.append(nn.ReLU(inplace=True))
    return layers
