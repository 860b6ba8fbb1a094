"""The transform `RandomScaleCrop` of dense prediction, which torchvision doesn't have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


class RandomScaleCrop(v2.Transform):  # type: ignore[misc,name-defined]
    """Cut a random part of 1/s of the height and the width out of an image, and enlarge it to the size of the image.

    The height and the width of the part are rounded down to whole pixels. Images are interpolated bilinearly, masks by
    the nearest pixel, both for the centers of the pixels. Points, which tell the scale of depth, are scaled by s
    itself.

    Deviates from the published code: that aligns the centers of the corner pixels of images, but the upper left corners
    of the pixels of masks, so that labels are up to a pixel beside what they describe, and it interpolates normals.

    Source: the augmentation of NYUv2 in the code of Liu, Johns and Davison, End-to-end multi-task learning with
    attention, CVPR 2019, which CAGrad, Nash-MTL and FAMO use.

    Raises a ValueError if a scale is smaller than 1.

    Args:
        scales: the values of s, of which one is drawn with equal probabilities.
    """

    def __init__(self, scales: Sequence[float] = (1.0, 1.2, 1.5)) -> None:
        super().__init__()
        numbers = [scales] if isinstance(scales, int | float) else list(scales)
        if not numbers or not all(isinstance(scale, int | float) and 1 <= scale < math.inf for scale in numbers):
            raise ValueError(f"scales must be numbers of at least 1, such as [1, 1.2, 1.5], found {scales!r}")
        self.scales = [float(scale) for scale in numbers]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a scale and the part of the image.

        Args:
            flat_inputs: the image and its masks, [..., H, W].

        Returns:
            The scale, and the upper edge, the left edge, the height and the width of the part.

        Raises:
            ValueError: If the part is smaller than a pixel.
        """
        height, width = flat_inputs[0].shape[-2:]
        scale = self.scales[int(torch.randint(len(self.scales), ()))]
        rows, columns = int(height / scale), int(width / scale)
        if rows == 0 or columns == 0:
            raise ValueError(f"scale {scale:g} leaves no whole pixel of {height}×{width}")
        top, left = int(torch.randint(height - rows + 1, ())), int(torch.randint(width - columns + 1, ()))
        part = {"top": top, "left": left, "height": rows, "width": columns, "size": [height, width]}
        return {"scale": scale, "part": part}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut out and enlarge an image or a mask, or move points.

        Args:
            inpt: an image or a mask, [..., H, W], or points, [..., 2].
            params: see `make_params`.

        Returns:
            The same type and shape.
        """
        scale, part = params["scale"], params["part"]
        if scale == 1:
            return inpt
        if isinstance(inpt, tv_tensors.KeyPoints):  # type: ignore[attr-defined]
            moved = (inpt.as_subclass(Tensor) - torch.tensor([part["left"], part["top"]])) * scale
            return tv_tensors.wrap(moved, like=inpt)
        if not isinstance(inpt, tv_tensors.Mask):  # type: ignore[attr-defined]
            return F.resized_crop(inpt, **part, antialias=False)  # type: ignore[attr-defined]
        height, width = part["size"]
        rows = part["top"] + _nearest(part["height"], height)
        pixels = rows[:, None] * width + part["left"] + _nearest(part["width"], width)
        plain = inpt.as_subclass(Tensor)
        moved = plain.flatten(-2).index_select(-1, pixels.flatten()).view(plain.shape)
        return tv_tensors.wrap(moved, like=inpt)


def _nearest(size: int, enlarged: int) -> Tensor:
    """Return the pixel of a line that contains the center of each pixel of the enlarged line, int64 [enlarged]."""
    return (2 * torch.arange(enlarged) + 1) * size // (2 * enlarged)
