"""Reconstruction of the input as an auxiliary task."""

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
from mtlcli.regularizers.base import Regularizer, Subject, get_activation_shape
from mtlcli.specs import Shape, TrunkPass

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MAX_IMAGES = 8  # in the figure
MAX_FIRST_SIZE = 7  # height and width of the feature map that a vector becomes


@regularizers.register("reconstruction")
class Reconstruction(Regularizer):
    """Reconstruction of the input from an activation of the trunk by a decoder: an auxiliary task for all examples.

        Ω = mean over the examples of ‖x − Decoder(Encoder(x))‖²

    The squared error is summed over the elements of an example, so it grows with their number: a decoder without
    information has an error of about 784 for a 28×28 image. x is the input of the trunk: normalized, with mean 0 and
    standard deviation 1 over its dataset, or the output of the dataset's stem, which receives no gradient as a target.
    Encoder is the trunk up to `layer`. The parameters of the decoder are trained with the model's, but saved
    separately, since they aren't needed after training. The error is computed in float32 in every precision. After
    training, `plots/reconstruction.png` shows inputs and their reconstructions.

    The decoder adapts to the shapes. For an image it consists of transposed convolutions from a feature map, after a
    fully connected layer if the activation is a vector; for a table, of fully connected layers.

    References:
        Zhang, Lee and Lee, Augmenting supervised neural networks with unsupervised objectives for large-scale image
            classification, ICML 2016, arXiv:1606.06582: reconstruction as an auxiliary task of supervised networks.

    Args:
        subject: the regularized network.
        layer: activation that the decoder receives: a name that `mtl show` lists for the trunk, or `features`, its
            output.
        channels: number of channels of the decoder's feature maps.
        hidden: widths of additional fully connected layers in the decoder of a vector; may be empty.

    Raises:
        ValueError: if the trunk has no activation `layer`, or embeds the raw columns of a table.
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
            raise ValueError(
                "reconstructs numbers, but this trunk receives texts or the columns of a table; use one such as `mlp`"
            )
        self.layer = layer
        self.decoder = make_decoder(get_activation_shape(subject, layer), subject.shapes["input"], channels, hidden)

    def term(self, passes: Sequence[TrunkPass]) -> Tensor:
        """See `Regularizer.term`; the input receives no gradient."""
        activation, x = (_concat([one_pass.activations[name] for one_pass in passes]) for name in (self.layer, "input"))
        rebuilt: Tensor = self.decoder(activation)
        return (rebuilt.float() - x.detach().float()).square().sum() / len(x)

    @torch.no_grad()
    def draw(self, passes: Sequence[TrunkPass]) -> dict[str, Figure]:
        """Draw up to 8 images above their reconstructions, equally many of each dataset; nothing for a table.

        Args:
            passes: passes of a few examples through the trunk.

        Returns:
            `reconstruction` → figure.
        """
        if passes[0].activations["input"].dim() != 4:
            return {}
        aliases = dict.fromkeys(alias for one_pass in passes for alias in one_pass.rows)
        shown: list[tuple[str, Tensor, Tensor]] = []
        for one_pass in passes:
            start = 0
            for alias, rows in one_pass.rows.items():
                wanted = max(MAX_IMAGES // len(aliases), 1) - sum(name == alias for name, *_ in shown)
                chosen = slice(start, start + min(rows, wanted))
                images = one_pass.activations["input"][chosen]
                rebuilt = self.decoder(one_pass.activations[self.layer][chosen])
                shown += [(alias, *pair) for pair in zip(images.float().cpu(), rebuilt.float().cpu(), strict=True)]
                start += rows
        return {"reconstruction": _draw_pairs(shown[:MAX_IMAGES])}


def _concat(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _draw_pairs(pairs: Sequence[tuple[str, Tensor, Tensor]]) -> Figure:
    """Draw images above their reconstructions. pairs: title, image [C, H, W] and reconstruction [C, H, W]."""
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


def make_decoder(source: Shape, target: Shape, channels: int, hidden: Sequence[int]) -> nn.Module:
    """Create a decoder [B, *source] → [B, *target] with ReLU between its layers.

    A feature map [c, h, w] is enlarged to an image by transposed convolutions (`make_upscaling`). A vector is converted
    by fully connected layers to the row of a table, or to a small feature map that is enlarged in the same way.

    Args:
        source: shape of the activation without the batch.
        target: shape of the input without the batch.
        channels: number of channels of the feature maps before the image.
        hidden: widths of the fully connected layers before the last one.

    Returns:
        The decoder.
    """
    if len(target) == 3 and len(source) == 3:
        return make_upscaling(source, target, channels)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, width in pairwise([math.prod(source), *hidden]):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    inputs = [math.prod(source), *hidden][-1]
    if len(target) != 3:
        return nn.Sequential(*layers, nn.Linear(inputs, math.prod(target)), nn.Unflatten(1, target))
    small = (channels, *(_halve_until(size, MAX_FIRST_SIZE)[0] for size in target[1:]))
    layers += [nn.Linear(inputs, math.prod(small)), nn.ReLU(), nn.Unflatten(1, small)]
    return nn.Sequential(*layers, *make_upscaling(small, target, channels))


def make_upscaling(source: Shape, target: Shape, channels: int) -> nn.Sequential:
    """Create transposed convolutions [B, c, h, w] → [B, C, H, W] with ReLU between them.

    The sizes are H, its half (rounded up), its quarter, …, as long as they are greater than h. All layers but the first
    one double the size, to an even or an odd number, with a 4×4 kernel: kernel sizes that are multiples of the stride
    avoid checkerboard artifacts. The first layer converts h to the smallest of these sizes: it is the transpose of a
    convolution without padding, or with more padding if h is too large.

    References:
        Odena, Dumoulin and Olah, Deconvolution and checkerboard artifacts, Distill 2016.

    Args:
        source: shape [c, h, w].
        target: shape [C, H, W].
        channels: number of channels between the layers.

    Returns:
        The layers.
    """
    plans = [_plan_sizes(start, end) for start, end in zip(source[1:], target[1:], strict=True)]
    layers = max(len(plan) for plan in plans) - 1
    plans = [[plan[0]] * (layers + 1 - len(plan)) + plan for plan in plans]
    widths = [source[0], *[channels] * (layers - 1), target[0]]
    modules: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        rows, columns = (_plan_layer(plan[layer], plan[layer + 1]) for plan in plans)
        kernel, stride, padding, output_padding = zip(rows, columns, strict=True)
        modules += [nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def _halve_until(size: int, limit: int) -> list[int]:
    """Return `size` and its halves, rounded up, until one is at most `limit`; ascending."""
    sizes = [size]
    while sizes[0] > limit:
        sizes.insert(0, (sizes[0] + 1) // 2)
    return sizes


def _plan_sizes(start: int, end: int) -> list[int]:
    """Return the sizes between the layers from `start` to `end`, at least these two."""
    above = [size for size in _halve_until(end, start) if size > start]
    return [start, *(above or [end])]


class _LayerPlan(NamedTuple):
    """Parameters of a transposed convolution in one dimension."""

    kernel: int
    stride: int
    padding: int
    output_padding: int


def _plan_layer(size: int, wanted: int) -> _LayerPlan:
    """Return parameters with (size − 1) stride − 2 padding + kernel + output_padding = wanted."""
    if wanted > size and wanted in (2 * size, 2 * size - 1):
        return _LayerPlan(4, 2, 1, 0) if wanted == 2 * size else _LayerPlan(4, 2, 2, 1)
    more = wanted - size
    if more == 0:
        return _LayerPlan(3, 1, 1, 0)
    return _LayerPlan(more + 1, 1, 0, 0) if more > 0 else _LayerPlan(1 - more, 1, -more, 0)
