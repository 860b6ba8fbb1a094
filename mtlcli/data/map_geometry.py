"""Application of an augmentation to the maps of an image, whose geometry is measured on a grid of coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX, TargetSpec

OUTSIDE = 0  # coordinate of a pixel that shows nothing of the image; rows and columns count from 1
POINTS = 64  # measured in each direction
EXACT = 1e-6  # from a rotation by a multiple of 90°, below which it is one: sums of coordinates are rounded
ORIENTED = ("depth_map", "normal_map")  # types of targets whose values depend on the geometry


@dataclass(frozen=True)
class Similarity:
    """Linear part of a transform that keeps shapes.

    Args:
        scale: size of a thing in the transformed image, in sizes in the original one.
        turn: rotation or reflection, (x, y) → (x, y) of the transformed image with y down, float64 [2, 2].
    """

    scale: float
    turn: Tensor


@lru_cache(maxsize=8)
def make_grid(height: int, width: int) -> Tensor:
    """Return the coordinates of the pixels of an image.

    A geometric transform that takes it for a mask returns the pixel of the original image that each pixel shows.

    Args:
        height: height of the image.
        width: width of the image.

    Returns:
        Rows and columns, from 1, `tv_tensors.Mask` of float32 [2, H, W]. Not to be changed.
    """
    from torchvision.tv_tensors import Mask  # type: ignore[attr-defined]

    rows, columns = torch.arange(1.0, height + 1), torch.arange(1.0, width + 1)
    return Mask(torch.stack(torch.meshgrid(rows, columns, indexing="ij")))


def warp_maps(
    maps: Mapping[str, Tensor], targets: Mapping[str, TargetSpec], grid: Tensor, transforms: int
) -> dict[str, Tensor]:
    """Apply a geometric transform to maps.

    Labels are those of the nearest pixel, and missing outside of the image. Depth is divided by the scale. The x and y
    of normals are reflected and rotated with the image.

    Args:
        maps: target → map as it is stored, [H, W] or [C, H, W].
        targets: target → specification.
        grid: the result of the transform for `make_grid`, [2, H, W].
        transforms: number of the transforms, each of which rounds coordinates.

    Returns:
        The transformed maps, of the same types.

    Raises:
        ValueError: If a map is that of depth or normals, and the transform changes shapes.
    """
    width = next(iter(maps.values())).shape[-1]
    grid = grid.as_subclass(Tensor)
    rows, columns = grid.to(torch.int32)
    outside = rows == OUTSIDE
    pixels = ((rows - 1) * width + columns - 1).masked_fill_(outside, 0).flatten()
    hidden = outside if outside.any() else None
    oriented = any(targets[name].type in ORIENTED for name in maps)
    similarity = measure(grid, transforms) if oriented else None
    warped = {}
    for name, stored in maps.items():
        moved = stored.flatten(-2).index_select(-1, pixels).view(*stored.shape[:-2], *outside.shape)
        if hidden is not None:
            moved.masked_fill_(hidden, _missing_label(stored))
        if targets[name].type in ORIENTED:
            moved = _orient(moved, targets[name].type, similarity)
        warped[name] = moved
    return warped


def measure(grid: Tensor, transforms: int) -> Similarity | None:
    """Measure the scale and the rotation or reflection of a transform by least squares.

    The relative error of the scale is about 1/n² if n×n pixels of the original image are visible.

    Args:
        grid: the result of the transform for `make_grid`, [2, H, W].
        transforms: number of the transforms, each of which rounds coordinates.

    Returns:
        The linear part of the transform; None if too few pixels are visible.

    Raises:
        ValueError: If the transform is not linear, or the scales of two directions differ by more than is due to the
            rounding of sizes to whole pixels.
    """
    every = [-(-size // POINTS) for size in grid.shape[1:]]
    sampled = grid[:, :: every[0], :: every[1]]
    lines = [torch.arange(0, size, step) for size, step in zip(grid.shape[1:], every, strict=True)]
    inside = sampled[0] != OUTSIDE
    shown = torch.stack(torch.meshgrid(*lines, indexing="ij")).flip(0)[:, inside].double()  # x, y
    original = sampled.flip(0)[:, inside].double()
    if inside.sum() < 3:
        return None
    shown = shown - shown.mean(1, keepdim=True)
    original = original - original.mean(1, keepdim=True)
    spread = shown @ shown.T
    if torch.linalg.det(spread) < 1:
        return None
    linear = original @ shown.T @ torch.linalg.inv(spread)
    if (original - linear @ shown).abs().max() > max(transforms, 1):
        raise ValueError("bends the image or repeats its border")
    left, (larger, smaller), right = torch.linalg.svd(linear)
    if smaller < EXACT:
        return None
    seen = original.amax(1) - original.amin(1) + 1
    if larger / smaller - 1 > (1 / seen).sum():
        raise ValueError(f"scales one direction by {1 / smaller:.3g} and another one by {1 / larger:.3g}")
    turn = (left @ right).T
    whole = turn.round()
    return Similarity(float((larger * smaller) ** -0.5), torch.where((turn - whole).abs() < EXACT, whole, turn))


def _orient(stored: Tensor, type_: str, similarity: Similarity | None) -> Tensor:
    """Scale the depths or turn the normals of a map."""
    if similarity is None:
        return torch.full_like(stored, float("nan"))
    if type_ == "depth_map":
        return stored if abs(similarity.scale - 1) < EXACT else stored / similarity.scale
    turn = similarity.turn
    if torch.equal(turn, torch.eye(2, dtype=turn.dtype)):
        return stored
    # Normals face the camera: in a right-handed system in which z points to the camera, y points up.
    if stored[2].nansum() > 0:
        turn = turn * torch.tensor([[1, -1], [-1, 1]])
    across = (turn.to(stored.dtype) @ stored[:2].flatten(1)).view_as(stored[:2])
    return torch.cat((across, stored[2:]))


def _missing_label(stored: Tensor) -> float | int:
    if stored.is_floating_point():
        return float("nan")
    return IGNORE_BYTE if stored.element_size() == 1 else IGNORE_INDEX
