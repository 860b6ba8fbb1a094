"""Fully convolutional head."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn

from mtlcli.config.options import Width
from mtlcli.models.heads.base import Head
from mtlcli.registry import heads


@heads.register("fcn")
class FCNHead(nn.Sequential, Head):
    """Fully convolutional head of maps: [B, features, h, w] → [B, outputs, h, w].

    A 3×3 convolution with batch norm, ReLU and dropout is followed by a 1×1 convolution. It is the head of
    torchvision's `fcn_resnet50`, with the same names of weights. The prediction is interpolated to the size of the
    target.

    References:
        Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015,
            arXiv:1411.4038.

    Args:
        features: number of channels of the representation.
        outputs: number of channels of the prediction.
        channels: number of channels of the hidden maps; null: a quarter of `features`.
        dropout: dropout probability of the hidden maps.
    """

    of_maps: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        channels: Width | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        hidden = max(features // 4, 1) if channels is None else channels
        super().__init__(
            nn.Conv2d(features, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, outputs, 1),
        )
