"""The error of rebuilding the input from what the trunk has made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mtlcli.config.options import Width, Widths
from mtlcli.plotting import new_figure
from mtlcli.registry import regularizers
from mtlcli.regularizers.base import Regularizer, Subject, shape_of
from mtlcli.specs import Shape, TrunkPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 8


@regularizers.register("reconstruction")
class Reconstruction(Regularizer):
    """The error of a decoder that rebuilds the input from an activation of the trunk: an auxiliary task for all data.

        Ω = mean over the examples of ‖x − Decoder(Encoder(x))‖²

    The square is summed over an example's elements, so its size goes with theirs: a decoder that knows nothing is at
    about 784 for a 28×28 image. x is the input as the trunk gets it: normalized, with mean 0 and standard deviation 1
    over its dataset. Encoder is the trunk up to `layer`. The decoder's weights are trained with the model's, and saved
    beside them, not in the model: they are of no use after training. The error is computed in float32 in every
    precision. At the end `plots/reconstruction.png` shows inputs above their reconstructions.

    The decoder fits the shapes. For an image it is transposed convolutions up from a map, behind a fully connected
    layer where the activation is a vector; for a table, fully connected layers (`mtlcli/regularizers/decoder.py`).

    Source: as an auxiliary task of supervised networks, Zhang, Lee and Lee, Augmenting supervised neural networks with
    unsupervised objectives for large-scale image classification, ICML 2016. ValueError for a layer there isn't, and
    with a trunk that embeds a table's raw columns.

    Options:
        layer: the activation it starts from, as `mtl show` names the trunk's, or `features`, its output.
        channels: of the decoder's maps.
        hidden: widths of fully connected layers in the decoder of a vector; empty: none but the one that is needed.
    """

    default_strength = 1e-3
    likelihood = "gaussian"
    sees_examples = True

    def __init__(
        self,
        subject: Subject,
        *,
        layer: str = "features",
        channels: Width = 16,
        hidden: Widths = [],  # noqa: B006 (never changed)
    ) -> None:
        super().__init__()
        if "input" not in subject.shapes:
            raise ValueError("rebuilds numbers, and this trunk is given a table's raw columns; `mlp` is given numbers")
        self.layer = layer
        self.decoder = make_decoder(shape_of(subject, layer), subject.shapes["input"], channels, hidden)

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer`. No gradient goes into the input."""
        activation, x = (_joined([found.activations[name] for found in passes]) for name in (self.layer, "input"))
        rebuilt: Tensor = self.decoder(activation)
        return (rebuilt.float() - x.detach().float()).square().sum() / len(x)

    @torch.no_grad()
    def draw(self, passes: Sequence[TrunkPass]) -> dict[str, Figure]:
        """Up to 8 images above their reconstructions, as many of each dataset; nothing for a table."""
        if passes[0].activations["input"].dim() != 4:
            return {}
        aliases = dict.fromkeys(alias for found in passes for alias in found.rows)
        shown: list[tuple[str, Tensor, Tensor]] = []
        for found in passes:
            start = 0
            for alias, rows in found.rows.items():
                wanted = max(SHOWN // len(aliases), 1) - sum(name == alias for name, *_ in shown)
                chosen = slice(start, start + min(rows, wanted))
                images = found.activations["input"][chosen]
                rebuilt = self.decoder(found.activations[self.layer][chosen])
                shown += [(alias, *pair) for pair in zip(images.float().cpu(), rebuilt.float().cpu(), strict=True)]
                start += rows
        return {"reconstruction": _side_by_side(shown[:SHOWN])}


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _side_by_side(pairs: Sequence[tuple[str, Tensor, Tensor]]) -> Figure:
    """Title, image [C, H, W] and its reconstruction, one below the other, on the grey scale of the image."""
    figure = new_figure(1.3 * len(pairs), 3.0)
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for column, (title, image, rebuilt) in enumerate(pairs):
        low, high = image.min(), image.max()
        for axes, picture in zip(grid[:, column], (image, rebuilt), strict=True):
            scaled = ((picture - low) / (high - low).clamp(min=1e-6)).clamp(0, 1).movedim(0, -1)
            shown = scaled if len(image) == 3 else scaled.mean(-1)
            axes.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
        grid[0, column].set_title(title, fontsize="small")
    grid[0, 0].set_ylabel("input")
    grid[1, 0].set_ylabel("reconstruction")
    return figure


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
