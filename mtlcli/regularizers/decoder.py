"""Decoders: from what a trunk computes back to the shape of its input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import nn

from mtlcli.specs import Shape

SMALL = 7  # a feature vector becomes a map of at most this height and width, before it grows


def make_decoder(source: Shape, target: Shape, channels: int, hidden: Sequence[int]) -> nn.Module:
    """[B, *source] → [B, *target], with ReLU between its layers and none after the last.

    A map [c, h, w] grows to an image by transposed convolutions (`upscaling`). Anything else is a vector: fully
    connected layers take it to a table's row, or to a small map that grows in the same way.

    channels: of the maps before the image. hidden: widths of the fully connected layers before the last one.
    """
    if len(target) == 3 and len(source) == 3:
        return upscaling(source, target, channels)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, width in pairwise([math.prod(source), *hidden]):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    inputs = [math.prod(source), *hidden][-1]
    if len(target) != 3:
        return nn.Sequential(*layers, nn.Linear(inputs, math.prod(target)), nn.Unflatten(1, target))
    small = (channels, *(_halvings(size, SMALL)[0] for size in target[1:]))
    layers += [nn.Linear(inputs, math.prod(small)), nn.ReLU(), nn.Unflatten(1, small)]
    return nn.Sequential(*layers, *upscaling(small, target, channels))


def upscaling(source: Shape, target: Shape, channels: int) -> nn.Sequential:
    """Transposed convolutions from [B, c, h, w] to [B, C, H, W], of exactly that size, with ReLU between them.

    The sizes are H, its half (rounded up), its quarter, … as far down as they are not below h: so all but the first
    layer double them, to an even or an odd number, with a 4×4 kernel; kernels that are a multiple of the stride leave
    no checkerboard (Odena, Dumoulin and Olah, Deconvolution and checkerboard artifacts, 2016). The first takes h to
    the lowest of them: the transposed form of a convolution without padding, or with more of it where h is too large.
    """
    plans = [_sizes(start, end) for start, end in zip(source[1:], target[1:], strict=True)]
    layers = max(len(plan) for plan in plans) - 1
    plans = [[plan[0]] * (layers + 1 - len(plan)) + plan for plan in plans]
    widths = [source[0], *[channels] * (layers - 1), target[0]]
    found: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        rows, columns = (_step(plan[layer], plan[layer + 1]) for plan in plans)
        across = zip(rows, columns, strict=True)  # each of the four for both dimensions
        kernel, stride, padding, output_padding = ((row, column) for row, column in across)
        found += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding), nn.ReLU()]
    return nn.Sequential(*found[:-1])


def _halvings(size: int, limit: int) -> list[int]:
    """`size` and its halves, rounded up, down to the first one that isn't above `limit`; ascending."""
    found = [size]
    while found[0] > limit:
        found.insert(0, (found[0] + 1) // 2)
    return found


def _sizes(start: int, end: int) -> list[int]:
    """The sizes that the layers take `start` to `end` by: two at least."""
    above = [size for size in _halvings(end, start) if size > start]
    return [start, *(above or [end])]


class _Step(NamedTuple):
    """How a transposed convolution takes one size to another."""

    kernel: int
    stride: int
    padding: int
    output_padding: int


def _step(size: int, wanted: int) -> _Step:
    """out = (size − 1) stride − 2 padding + kernel + output_padding, and is `wanted`."""
    if wanted > size and wanted in (2 * size, 2 * size - 1):
        return _Step(4, 2, 1, 0) if wanted == 2 * size else _Step(4, 2, 2, 1)
    more = wanted - size
    if more == 0:
        return _Step(3, 1, 1, 0)
    return _Step(more + 1, 1, 0, 0) if more > 0 else _Step(1 - more, 1, -more, 0)
