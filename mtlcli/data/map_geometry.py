"""Application of geometric transforms to the maps of an image.

The transforms of an image receive the numbers of its pixels as a mask (`number_pixels`), which tells the pixel of the
original image that each pixel shows, and a few points (`make_points`), which tell the scale and the rotation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX, TargetSpec

OUTSIDE = 0  # number of a pixel that shows nothing of the image; those of the image count from 1
EXACT = 1e-6  # largest difference that is due to the rounding of coordinates
ORIENTED = ("depth_map", "normal_map")  # types of targets whose values depend on scale and rotation


@dataclass(frozen=True)
class Similarity:
    """Linear part of a transform that keeps shapes.

    Args:
        scale: size of a thing in the transformed image, in sizes in the original one.
        turn: rotation or reflection of directions (x, y) in the image, x to the right and y down, float64 [2, 2].
    """

    scale: float
    turn: Tensor


@lru_cache(maxsize=8)
def number_pixels(height: int, width: int) -> Tensor:
    """Return the numbers of the pixels of an image, row by row.

    Args:
        height: height of the image.
        width: width of the image.

    Returns:
        1, 2, …, `tv_tensors.Mask` of a type of floats that is exact for all of them, [H, W]. Not to be changed.
    """
    from torchvision.tv_tensors import Mask  # type: ignore[attr-defined]

    amount = height * width
    exact = torch.float32 if amount <= 2**24 else torch.float64  # torchvision would convert integers to float32
    return Mask(torch.arange(1, amount + 1, dtype=exact).view(height, width))


@lru_cache(maxsize=8)
def make_points(height: int, width: int) -> Tensor:
    """Return three corners of an image.

    Args:
        height: height of the image.
        width: width of the image.

    Returns:
        x and y of the upper left, the upper right and the lower left corner, `tv_tensors.KeyPoints` of float64 [3, 2].
        Not to be changed.
    """
    from torchvision.tv_tensors import KeyPoints  # type: ignore[attr-defined]

    corners = torch.tensor([[0, 0], [width, 0], [0, height]], dtype=torch.float64)
    return KeyPoints(corners, canvas_size=(height, width))


def measure_similarity(points: Tensor, height: int, width: int) -> Similarity:
    """Return the scale and the rotation or reflection of a transform.

    Args:
        points: result of the transform for `make_points`, [3, 2].
        height: height of the image.
        width: width of the image.

    Returns:
        The linear part of the transform.

    Raises:
        ValueError: If the scales of two directions differ by more than is due to the rounding of sizes to whole pixels.
    """
    corner, right, lower = points.as_subclass(Tensor)
    linear = torch.stack(((right - corner) / width, (lower - corner) / height), 1)
    left, (larger, smaller), right = torch.linalg.svd(linear)
    scale = float((larger * smaller) ** 0.5)
    if larger / smaller - 1 > EXACT + 2 * scale / min(height, width):
        raise ValueError(f"scales one direction by {larger:.3g} and another one by {smaller:.3g}")
    turn = left @ right
    whole = turn.round()
    return Similarity(scale, torch.where((turn - whole).abs() < EXACT, whole, turn))


def warp_maps(
    maps: Mapping[str, Tensor], targets: Mapping[str, TargetSpec], numbers: Tensor, similarity: Similarity | None
) -> dict[str, Tensor]:
    """Apply a geometric transform to maps.

    Labels are those of the nearest pixel, and missing outside of the image. Depth is divided by the scale. The x and y
    of normals are rotated and reflected with the image.

    Args:
        maps: target → map as it is stored, [H, W] or [C, H, W].
        targets: target → specification.
        numbers: the result of the transform for `number_pixels`, [H, W].
        similarity: scale and rotation of the transform; None if no map is of depth or normals.

    Returns:
        The transformed maps, of the same types.
    """
    plain = numbers.as_subclass(Tensor)
    pixels = plain.flatten().to(torch.int64) - 1
    outside = plain == OUTSIDE if int(pixels.min()) < 0 else None
    pixels = pixels if outside is None else pixels.clamp_(min=0)
    warped = {}
    for name, stored in maps.items():
        moved = stored.flatten(-2).index_select(-1, pixels).view(*stored.shape[:-2], *plain.shape)
        if outside is not None:
            moved.masked_fill_(outside, _missing_label(stored))
        if similarity is not None and targets[name].type == "depth_map" and abs(similarity.scale - 1) > EXACT:
            moved /= similarity.scale
        if similarity is not None and targets[name].type == "normal_map":
            _turn_normals(moved, similarity.turn)
        warped[name] = moved
    return warped


def _turn_normals(normals: Tensor, turn: Tensor) -> None:
    """Rotate or reflect the x and y of normals in place."""
    (a, b), (c, d) = turn.tolist()
    if b == c == 0:  # without 0 · y, which costs time
        for component, factor in zip(normals, (a, d), strict=False):
            if factor != 1:
                component *= factor
        return
    # Normals face the camera: in a right-handed system in which z points to the camera, y points up.
    if normals[2].nansum() > 0:
        b, c = -b, -c
    x, y = normals[:2].float()
    normals[0], normals[1] = a * x + b * y, c * x + d * y


def _missing_label(stored: Tensor) -> float | int:
    if stored.is_floating_point():
        return float("nan")
    return IGNORE_BYTE if stored.element_size() == 1 else IGNORE_INDEX
