"""Networks for classification as networks that return feature maps: without their last layers, and dilated."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mtlcli.models.module_chains import Chain, begins_with_mean
from mtlcli.specs import Shape

NO_STRIDE = "`output_stride` is that of feature maps; set `output: map`, or remove it"


def cut_at_mean(network: nn.Module, chain: Chain | None) -> Chain:
    """Remove the mean over the feature maps, and what follows it, from a chain of stages.

    The modules of the removed operations are replaced by the identity.

    Args:
        network: the network, which is changed in place.
        chain: its stages; None if they are not a chain.

    Returns:
        The remaining stages.

    Raises:
        ValueError: if the last stage is not a mean over feature maps; the message is the reason.
    """
    if chain is None:
        raise ValueError("its modules are not a chain")
    *kept, (_, last) = chain.items()
    if not kept or not begins_with_mean(network, last):
        raise ValueError("it doesn't end with a mean over the positions and a classifier")
    used = {link.target for _, links in kept for link in links if link.is_module}
    for link in last:
        if link.is_module and link.target not in used:
            network.set_submodule(str(link.target), nn.Identity())
    return dict(kept)


def dilate(layers: Iterable[nn.Module], stride: int, output_stride: int) -> None:
    """Replace strides by dilation in the layers of a ResNet, so that the feature maps have a given stride.

    A convolution with a stride loses it, and the 3×3 convolutions behind it are dilated by as much. For bottlenecks
    this is `replace_stride_with_dilation` of torchvision, which has no such option for basic blocks. Weights are
    unchanged.

    Args:
        layers: the layers, each of which halves the size, changed in place.
        stride: stride of the maps that the first layer returns.
        output_stride: largest stride of the maps.
    """
    for index, layer in enumerate(layers):
        dilation = stride * 2**index // output_stride
        if dilation < 2:
            continue
        for module in layer.modules():
            if isinstance(module, nn.Conv2d):
                rate = dilation // 2 if module.stride == (2, 2) else dilation
                module.stride = (1, 1)
                if module.kernel_size == (3, 3):
                    module.dilation = module.padding = (rate, rate)


class PatchMap(nn.Module):
    """Vectors of image patches as a map: [B, prefix + h·w, F] → [B, F, h, w].

    Args:
        prefix: number of vectors before those of the patches.
        grid: height and width [h, w] of the map.
    """

    def __init__(self, prefix: int, grid: Shape) -> None:
        super().__init__()
        self.prefix, self.grid = prefix, grid

    def forward(self, x: Tensor) -> Tensor:
        """Arrange the vectors.

        Args:
            x: vectors, [B, prefix + h·w, F], of the patches row by row.

        Returns:
            The map, [B, F, h, w].
        """
        return torch.unflatten(x[:, self.prefix :].transpose(1, 2), 2, self.grid)


def check_map(shape: Shape, input_shape: Shape, hint: str) -> None:
    """Check that feature maps have more than one position.

    Args:
        shape: shape [F, h, w] of the maps of an image.
        input_shape: shape [C, H, W] of the image.
        hint: what to change.

    Raises:
        ValueError: if they have only one.
    """
    if shape[1:] == (1, 1):
        size = "×".join(map(str, input_shape[1:]))
        raise ValueError(f"the feature map of an image of {size} has one position only: {hint}")
