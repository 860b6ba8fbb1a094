"""SegNet: an encoder and a decoder without skip connections, which keeps the positions of the maxima."""

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

DEEP = 3  # the stages from this one on have one convolution more, as in VGG-16


@trunks.register("segnet")
class SegNet(EncoderDecoder):
    """SegNet: images [B, C, H, W] → maps [B, F, H, W] of the same size, from an encoder and a decoder.

    Stages: `encoder1`, …, `encoderN` for N widths, then `decoderN`, …, `decoder1`. A stage consists of 3×3 convolutions
    with norm and ReLU: two, and three from the third stage of the encoder on, as in VGG-16; their counterparts in the
    decoder have as many. Between the stages of the encoder and after the last one, a 2×2 max pool halves the size. A
    stage of the decoder doubles it: each number is put where the max pool after the encoder's stage of the same number
    has taken the maximum. The first convolution of a stage changes the number of channels. F is the first width.

    The default is the network of the results on NYUv2 and Cityscapes in the line of MTAN.

    Activations: the stages, the first convolution of each stage of the encoder (`encoder1.first`), and the input of the
    first convolution of each stage of the decoder (`decoder1.join`).

    References:
        Badrinarayanan, Kendall and Cipolla, SegNet: a deep convolutional encoder-decoder architecture for image
            segmentation, IEEE TPAMI 2017, arXiv:1511.00561.
        Liu, Johns and Davison, End-to-end multi-task learning with attention, CVPR 2019, arXiv:1803.10704: the widths
            and the number of convolutions, from the authors' code.

    Args:
        input_shape: shape [C, H, W] of an image.
        widths: numbers of channels of the encoder's stages, from the image inwards.
        norm: norm after each convolution: `batch`, `group` (8 groups, or the greatest number of groups that divides 8
            and the width; for small batches) or `none`.

    Raises:
        ValueError: if the inputs are not images, or are too small to be halved after every stage of the encoder.
    """

    def __init__(
        self,
        input_shape: Shape,
        *,
        widths: Annotated[Widths, Field(min_length=1)] = [64, 128, 256, 512, 512],  # noqa: B006 (never changed)
        norm: Norm = "batch",
    ) -> None:
        super().__init__(len(widths), range(len(widths), 0, -1))
        check_size("segnet", input_shape, len(widths))
        self.features = widths[0]
        for level, (inputs, width) in enumerate(zip([input_shape[0], *widths], widths, strict=False), 1):
            self.add_module(f"encoder{level}", Block(inputs, width, 3 if level >= DEEP else 2, norm))
        for level in self.decoders:
            outputs = widths[max(level - 2, 0)]
            self.add_module(f"decoder{level}", _Decoder(widths[level - 1], outputs, 3 if level >= DEEP else 2, norm))
        self.to(memory_format=torch.channels_last)

    def encode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        if level > 1:
            x = self._reduce(level - 1, x, kept)
        y: Tensor = self.get_submodule(f"encoder{level}")(x)
        return y

    def decode(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        if level == len(self.encoders):
            x = self._reduce(level, x, kept)
        y: Tensor = self.get_submodule(f"decoder{level}")(x, *kept[level])
        return y

    def _reduce(self, level: int, x: Tensor, kept: Kept) -> Tensor:
        """Pool the activation of a stage of the encoder, and keep the positions of the maxima and its size."""
        y, positions = F.max_pool2d(x, 2, return_indices=True)
        kept[level] = positions, tuple(x.shape[2:])
        return y


class _Decoder(nn.Module):
    """A stage of the decoder: maps [B, inputs, h, w] → [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.join = _Unpool()
        self.block = Block(inputs, outputs, depth, norm)

    def forward(self, x: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
        y: Tensor = self.block(self.join(x, positions, size))
        return y


class _Unpool(nn.Module):
    """Maps of a given size, with each number at the position of a maximum, and zeros elsewhere."""

    def forward(self, x: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
        return F.max_unpool2d(x, positions, (2, 2), output_size=size)
