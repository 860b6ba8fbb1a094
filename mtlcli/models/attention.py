"""The parts of a task's attention: what makes a mask, and what leads from one stage to the next."""

from __future__ import annotations

import torch
from torch import nn

from mtlcli.specs import Shape


def mask_maker(shape: Shape, beside: int, reduction: int) -> nn.Module:
    """σ(h(g([u; v]))): a stage's activation u, and v beside it in the channels, → a mask of u's shape, in (0, 1).

    Of maps [B, C + beside, H, W], g and h are 1×1 convolutions, both with batch norm, ReLU between; of vectors
    [B, C + beside], linear layers.

    shape: of u, without the batch. beside: channels of v. reduction: g has C / reduction channels.
    """
    channels = shape[0]
    hidden = max(channels // reduction, 1)
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(channels + beside, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())
    return nn.Sequential(
        nn.Conv2d(channels + beside, hidden, 1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.Sigmoid(),
    )


def passage(shape: Shape, following: Shape) -> nn.Module:
    """A stage's activation → one of the following stage's shape, both without the batch.

    From maps: a 3×3 convolution with batch norm and ReLU, then max pooling to the size of the maps that follow (nearest
    neighbours where these are larger), or the mean over the map where a vector follows. From vectors: a linear layer
    with ReLU. ValueError where maps follow a vector.
    """
    if len(shape) == 1:
        if len(following) > 1:
            raise ValueError("the trunk makes maps of a vector, and attention has no way to follow it there")
        return nn.Sequential(nn.Linear(shape[0], following[0]), nn.ReLU())
    convolution = nn.Conv2d(shape[0], following[0], 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    layers = [convolution, nn.BatchNorm2d(following[0]), nn.ReLU(inplace=True), *_resize(shape[1:], following[1:])]
    return nn.Sequential(*layers)


def _resize(size: Shape, following: Shape) -> list[nn.Module]:
    if not following:
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if following == size:
        return []
    if any(new > old for new, old in zip(following, size, strict=True)):
        return [nn.Upsample(following)]
    stride = tuple(old // new for old, new in zip(size, following, strict=True))
    kernel = tuple(old - (new - 1) * step for old, new, step in zip(size, following, stride, strict=True))
    return [nn.MaxPool2d(kernel, stride)]  # halves maps of even size
