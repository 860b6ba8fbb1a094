"""U-Net: an encoder and a decoder with skip connections."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.config.options import Widths
from mtlcli.models.encoder_decoder import Block, EncoderDecoder, Kept, Norm, check_size
from mtlcli.registry import trunks
from mtlcli.specs import Shape


@trunks.register("unet")
class UNet(EncoderDecoder):
    """U-Net: images [B, C, H, W] → maps [B, F, H, W] of the same size, from an encoder and a decoder.

    Stages: `encoder1`, …, `encoderN` for N widths, then `decoder{N−1}`, …, `decoder1`. A stage of the encoder consists
    of 3×3 convolutions with norm and ReLU, after a 2×2 max pool except in the first one. A stage of the decoder doubles
    the size by a transposed 2×2 convolution, concatenates the activation of the encoder's stage of the same number (the
    skip connection), and applies 3×3 convolutions. F is the first width.

    Activations: the stages, the first convolution of each stage of the encoder (`encoder1.first`), and the input of the
    first convolution of each stage of the decoder (`decoder1.join`). Where a sharing connects stages, the skip
    connection passes on what the following stage of the encoder receives: the activation after a stitch or a gate.

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

    def __init__(
        self,
        input_shape: Shape,
        *,
        widths: Annotated[Widths, Field(min_length=2)] = [32, 64, 128, 256],  # noqa: B006 (never changed)
        depth: Annotated[int, Field(gt=0, le=100)] = 2,
        norm: Norm = "batch",
    ) -> None:
        super().__init__(len(widths), range(len(widths) - 1, 0, -1))
        check_size("unet", input_shape, len(widths) - 1)
        self.features = widths[0]
        for level, (inputs, width) in enumerate(zip([input_shape[0], *widths], widths, strict=False), 1):
            self.add_module(f"encoder{level}", Block(inputs, width, depth, norm))
        for level in self.decoders:
            self.add_module(f"decoder{level}", _Decoder(widths[level], widths[level - 1], depth, norm))
        self.to(memory_format=torch.channels_last)

    def encode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        if level > 1:
            kept[level - 1] = x
            x = F.max_pool2d(x, 2)
        y: Tensor = self.get_submodule(f"encoder{level}")(x)
        return y

    def decode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        y: Tensor = self.get_submodule(f"decoder{level}")(x, kept[level])
        return y


class _Decoder(nn.Module):
    """A stage of the decoder: maps [B, inputs, h, w] and a skip connection [B, width, H, W] → [B, width, H, W]."""

    def __init__(self, inputs: int, width: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.join = _Join(inputs, width)
        self.block = Block(2 * width, width, depth, norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.block(self.join(x, skip))
        return y


class _Join(nn.Module):
    """Maps of twice the size, concatenated with a skip connection."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(inputs, width, 2, stride=2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.enlarge(x)
        rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        if rows or columns:
            x = F.pad(x, (0, columns, 0, rows))
        return torch.cat([skip, x], 1)
