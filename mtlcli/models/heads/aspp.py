"""Head with atrous spatial pyramid pooling."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from mtlcli.config.options import Width
from mtlcli.models.heads.base import Head
from mtlcli.registry import heads


@heads.register("aspp")
class ASPPHead(nn.Sequential, Head):
    """DeepLabV3's head of maps, with atrous spatial pyramid pooling: [B, features, h, w] → [B, outputs, h, w].

    Parallel branches, each with batch norm and ReLU, are concatenated: a 1×1 convolution, a 3×3 convolution for each
    dilation rate, and a 1×1 convolution of the mean over the map. A 1×1 convolution with batch norm, ReLU and dropout
    projects them, and a 3×3 convolution with batch norm and ReLU and a 1×1 convolution follow. It is the head of
    torchvision's `deeplabv3_resnet50`, with the same names of weights. The prediction is interpolated to the size of
    the target.

    Batch norm of the mean needs at least two images in a batch.

    Note:
        Deviations from the paper, as in torchvision: the 3×3 convolution before the last one, and the dropout.

    References:
        Chen, Papandreou, Schroff and Adam, Rethinking atrous convolution for semantic image segmentation, 2017,
            arXiv:1706.05587, section 3.3.

    Args:
        features: number of channels of the representation.
        outputs: number of channels of the prediction.
        channels: number of channels of each branch and of the hidden maps.
        output_stride: output stride that the dilation rates are meant for, set to that of the trunk: rates 12, 24, 36
            for 8, and 6, 12, 18 for 16, as in the paper.
        rates: dilation rates of the 3×3 branches; null: those of `output_stride`.
        dropout: dropout probability after the projection.
    """

    of_maps: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        channels: Width = 256,
        output_stride: Literal[8, 16] = 8,
        rates: Annotated[list[PositiveInt], Field(min_length=1)] | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
    ) -> None:
        chosen = [rate * 16 // output_stride for rate in (6, 12, 18)] if rates is None else rates
        super().__init__(
            _Pyramid(features, channels, chosen, dropout),
            *_convolution(channels, channels, 3, padding=1),
            nn.Conv2d(channels, outputs, 1),
        )


class _Pyramid(nn.Module):
    """Atrous spatial pyramid pooling, [B, features, h, w] → [B, channels, h, w]."""

    def __init__(self, features: int, channels: int, rates: list[int], dropout: float) -> None:
        super().__init__()
        branches = [nn.Sequential(*_convolution(features, channels, 1))]
        branches += [nn.Sequential(*_convolution(features, channels, 3, padding=rate, dilation=rate)) for rate in rates]
        self.convs = nn.ModuleList([*branches, _ImageMean(*_convolution(features, channels, 1))])
        projection = _convolution((len(rates) + 2) * channels, channels, 1)
        self.project = nn.Sequential(*projection, nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        joint: Tensor = self.project(torch.cat([branch(x) for branch in self.convs], 1))
        return joint


class _ImageMean(nn.Sequential):
    """A branch of the mean over the map, which is the same at every position."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(nn.Identity(), *layers)  # at index 0, torchvision's branch has the pooling

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3), keepdim=True)
        for layer in self:
            y = layer(y)
        return y.expand(-1, -1, *x.shape[2:])


def _convolution(inputs: int, outputs: int, size: int, *, padding: int = 0, dilation: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
