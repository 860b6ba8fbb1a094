"""Rendering of a scene by ray casting, with the exact class, depth, normal, edge and part of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mtlcli.data.rendering.layout import Scene
from mtlcli.data.rendering.solids import NO_PART, Array, Codes, Mask, Solid

FOCAL = 0.75  # focal length in widths of the image: a horizontal field of view of 67°
LIFT = 1e-6  # metres from a surface to the origin of its shadow ray
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Rendering:
    """An image and its ground truth.

    Args:
        image: uint8 [3, H, W], RGB.
        classes: uint8 [H, W], indices in `CLASSES`.
        depth: distance along the camera's axis in metres, float32 [H, W]; NaN in the background.
        normals: unit normals in camera space, float32 [3, H, W]; NaN in the background.
        edges: uint8 [H, W], 1 where one of the four neighbors shows another surface or the background.
        parts: uint8 [H, W], indices in `PARTS`; NO_PART outside of the objects.
    """

    image: Codes
    classes: Codes
    depth: Floats
    normals: Floats
    edges: Codes
    parts: Codes


def pixel_rays(height: int, width: int) -> Array:
    """Return the directions of the rays through the centers of the pixels.

    Args:
        height: height of the image.
        width: width of the image.

    Returns:
        (x, y, 1) in camera space, float64 [3, H, W], so that a distance along a ray is a depth.
    """
    focal = FOCAL * width
    rays = np.ones((3, height, width))
    rays[0] = (np.arange(width) + 0.5 - width / 2) / focal
    rays[1] = ((np.arange(height) + 0.5 - height / 2) / focal)[:, None]
    return rays


def render(scene: Scene, rays: Array, generator: np.random.Generator) -> Rendering:
    """Render a scene.

    A pixel shows albedo · color · (ambient + (1 − ambient) · max(0, n·l) · s) with the unit normal n, the direction l
    of the light and s = 0 in a shadow, else 1, on a scale of 0…255, plus normal noise, rounded.

    Args:
        scene: the scene.
        rays: see `pixel_rays`.
        generator: source of the noise.

    Returns:
        The image and its ground truth.
    """
    depth, surface = find_surfaces(scene.solids, rays)
    classes = np.zeros(surface.shape, np.uint8)
    parts = np.full(surface.shape, NO_PART, np.uint8)
    normals = np.full((3, *surface.shape), np.nan, np.float32)
    color = _sky(scene, rays)
    for number in np.unique(surface[surface >= 0]):
        solid, seen = scene.solids[number], surface == number
        directions = rays[:, seen]
        points = depth[seen] * directions
        local = solid.to_local(points)
        facing = solid.axes @ solid.local_normals(local, directions)
        classes[seen] = solid.label
        parts[seen] = solid.parts(local)
        normals[:, seen] = facing
        color[:, seen] = solid.albedo(local) * _light(scene, points, facing)
    noise = generator.standard_normal(color.shape, np.float32) * np.float32(scene.noise)
    image = np.rint(np.clip(255 * color + noise, 0, 255)).astype(np.uint8)
    return Rendering(
        image=image,
        classes=classes,
        depth=np.where(surface >= 0, depth, np.nan).astype(np.float32),
        normals=normals,
        edges=mark_edges(surface),
        parts=parts,
    )


def find_surfaces(solids: tuple[Solid, ...], rays: Array) -> tuple[Array, Any]:
    """Find the nearest surface on each ray.

    Args:
        solids: the solids of the scene.
        rays: see `pixel_rays`.

    Returns:
        The depth, float64 [H, W], infinite without a surface, and the index of the solid, int64 [H, W], −1 without one.
    """
    depth = np.full(rays.shape[1:], np.inf)
    surface = np.full(rays.shape[1:], -1)
    origin = np.zeros((3, 1))
    for number, solid in enumerate(solids):
        window = _window(solid, rays)
        directions = rays[:, *window]
        distance = solid.intersect(origin, directions.reshape(3, -1)).reshape(directions.shape[1:])
        nearer = distance < depth[window]
        depth[window][nearer] = distance[nearer]
        surface[window][nearer] = number
    return depth, surface


def mark_edges(surface: Any) -> Codes:
    """Mark the pixels of which one of the four neighbors shows another surface.

    Args:
        surface: indices of the surfaces, [H, W].

    Returns:
        uint8 [H, W] of 0 and 1.
    """
    edges = np.zeros(surface.shape, np.uint8)
    across, down = surface[:, 1:] != surface[:, :-1], surface[1:] != surface[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def _window(solid: Solid, rays: Array) -> tuple[slice, slice]:
    """Return rows and columns that contain the image of a solid: all for a rectangle, else those of a sphere around."""
    x, y, z = solid.center
    if solid.shape == "rectangle" or z <= solid.radius:
        return slice(None), slice(None)
    slices = []
    for across, steps in ((y, rays[1, :, 0]), (x, rays[0, 0])):
        middle, spread = np.arctan2(across, z), np.arcsin(solid.radius / np.hypot(across, z))
        low, high = np.tan([max(middle - spread, -1.57), min(middle + spread, 1.57)])
        first, last = np.searchsorted(steps, (low, high))
        slices.append(slice(max(int(first) - 1, 0), int(last) + 1))
    return slices[0], slices[1]


def _light(scene: Scene, points: Array, normals: Array) -> Array:
    """Return the light on points of a surface, [3, n]."""
    cosine = np.maximum(scene.light @ normals, 0.0)
    if scene.shadows and (lit := cosine > 0).any():
        cosine[lit] *= ~_in_shadow(scene, points[:, lit] + LIFT * normals[:, lit])
    return scene.color[:, None] * (scene.ambient + (1 - scene.ambient) * cosine)


def _in_shadow(scene: Scene, points: Array) -> Mask:
    """Mark the points that an object hides from the light, [n]."""
    shadow = np.zeros(points.shape[1], bool)
    for solid in scene.solids:
        if solid.shape != "rectangle":
            to_center = solid.center[:, None] - points
            along = scene.light @ to_center
            near = (to_center * to_center).sum(0) - along * along < solid.radius**2
            shadow[near] |= solid.intersect(points[:, near], scene.light[:, None]) < np.inf
    return shadow


def _sky(scene: Scene, rays: Array) -> Array:
    """Return the color of the background, [3, H, W]."""
    height = np.tensordot(scene.up, rays, 1) / np.sqrt((rays * rays).sum(0))
    share = np.clip(2 * height, 0, 1)
    low, high = scene.sky[:, :, None, None]
    color: Array = low + (high - low) * share
    return color
