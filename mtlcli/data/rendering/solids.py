"""Solids of a rendered scene: where rays meet them, their normals and the parts of their surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mtlcli.data.rendering.textures import Texture

Array = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
Codes = np.ndarray[Any, np.dtype[np.uint8]]
Shape = Literal["rectangle", "sphere", "box", "cylinder"]

CLASSES = ("background", "floor", "wall", "sphere", "box", "cylinder")
PARTS = ("sphere_upper", "sphere_lower", "box_top", "box_front", "box_side", "cylinder_end", "cylinder_side")
NO_PART = 255  # of the background, the floor and the walls
TINY = 1e-12  # smallest squared component of a ray across the axis of a cylinder
BAND, PANEL = 0.15, 0.7  # sizes of the markings, in half extents


@dataclass(frozen=True)
class Solid:
    """A surface in camera space, in metres: x to the right, y down, z along the camera's axis.

    Args:
        shape: `rectangle` in its local plane y = 0, or `sphere`, `box`, `cylinder` around its local y axis.
        label: index of its class in CLASSES.
        center: its center, float64 [3].
        axes: its local axes as columns, a rotation, float64 [3, 3].
        half: half of its extent along each local axis, float64 [3]; the y of a rectangle is 0, all of a sphere are its
            radius, x and z of a cylinder are its radius.
        texture: its texture.
        marking: color of its marking, float64 [3]: the band around a sphere, the panels on the front of a box, the ends
            of a cylinder; None for none.
    """

    shape: Shape
    label: int
    center: Array
    axes: Array
    half: Array
    texture: Texture
    marking: Array | None = None

    @property
    def radius(self) -> float:
        """Radius of a sphere around the center that contains the solid."""
        return float(self.half[0] if self.shape == "sphere" else np.linalg.norm(self.half))

    def to_local(self, points: Array) -> Array:
        """Convert points in camera space, [3, n], to the local axes."""
        return self.axes.T @ (points - self.center[:, None])

    def intersect(self, origins: Array, directions: Array) -> Array:
        """Compute the distances at which rays first enter the solid.

        Args:
            origins: outside of the solid, in camera space, [3, n] or [3, 1].
            directions: of any length, [3, n] or [3, 1].

        Returns:
            [n], in lengths of the directions; infinite for rays that don't meet the solid.
        """
        origin, direction = self.to_local(origins), self.axes.T @ directions
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.shape == "rectangle":
                return _meet_rectangle(origin, direction, self.half)
            if self.shape == "sphere":
                near, far = _meet_quadric(origin, direction, (0, 1, 2), self.half[0])
            elif self.shape == "box":
                near, far = _meet_slabs(origin, direction, self.half, (0, 1, 2))
            else:
                near, far = _meet_quadric(origin, direction, (0, 2), self.half[0])
                enter, leave = _meet_slabs(origin, direction, self.half, (1,))
                near, far = np.maximum(near, enter), np.minimum(far, leave)
            distance: Array = np.where((near <= far) & (near > 0), near, np.inf)
        return distance

    def local_normals(self, local: Array, directions: Array) -> Array:
        """Compute the outward unit normals at points of the surface; those of a rectangle face the rays.

        At an edge of a box or cylinder, the normal is that of the face that is nearest relative to the extents.

        Args:
            local: points in local coordinates, [3, n].
            directions: directions of the rays in camera space, [3, n].

        Returns:
            In local coordinates, [3, n].
        """
        normals = np.zeros_like(local)
        if self.shape == "rectangle":
            normals[1] = -np.sign(self.axes[:, 1] @ directions)
        elif self.shape == "sphere":
            normals = local / np.sqrt((local * local).sum(0))
        elif self.shape == "box":
            face = self._face(local)
            columns = np.arange(local.shape[1])
            normals[face, columns] = np.sign(local[face, columns])
        else:
            ends, across = self._ends(local), np.sqrt(local[0] ** 2 + local[2] ** 2)
            normals[[0, 2]] = np.where(ends, 0.0, local[[0, 2]] / across)
            normals[1] = np.where(ends, np.sign(local[1]), 0.0)
        return normals

    def parts(self, local: Array) -> Codes:
        """Return the parts of the surface, uint8 [n], as indices in PARTS, of points in local coordinates, [3, n]."""
        parts: Any = NO_PART
        if self.shape == "sphere":  # local y points down
            parts = np.where(local[1] < 0, PARTS.index("sphere_upper"), PARTS.index("sphere_lower"))
        elif self.shape == "box":
            parts = np.array([PARTS.index(f"box_{face}") for face in ("side", "top", "front")])[self._face(local)]
        elif self.shape == "cylinder":
            parts = np.where(self._ends(local), PARTS.index("cylinder_end"), PARTS.index("cylinder_side"))
        return np.full(local.shape[1], parts, np.uint8)

    def albedo(self, local: Array) -> Array:
        """Return the color of points of the surface, [3, n] in 0…1, from their local coordinates, [3, n]."""
        color = self.texture.color(local)
        if self.marking is None:
            return color
        if self.shape == "sphere":
            marked = np.abs(local[1]) < BAND * self.half[1]
        elif self.shape == "box":
            inside = np.abs(local[:2]) < PANEL * self.half[:2, None]
            marked = (self._face(local) == 2) & inside[0] & inside[1]
        else:
            marked = self._ends(local)
        return np.where(marked, self.marking[:, None], color)

    def _face(self, local: Array) -> Any:
        """Return the axis across each point's face of a box, [n]."""
        return (np.abs(local) / self.half[:, None]).argmax(0)

    def _ends(self, local: Array) -> Mask:
        """Mark the points on the ends of a cylinder, [n]."""
        ends: Mask = np.abs(local[1]) / self.half[1] > np.sqrt(local[0] ** 2 + local[2] ** 2) / self.half[0]
        return ends


def _meet_rectangle(origin: Array, direction: Array, half: Array) -> Array:
    distance = -origin[1] / direction[1]
    inside = (distance > 0) & (np.abs(origin[0] + distance * direction[0]) <= half[0])
    inside &= np.abs(origin[2] + distance * direction[2]) <= half[2]
    met: Array = np.where(inside, distance, np.inf)
    return met


def _meet_quadric(origin: Array, direction: Array, axes: tuple[int, ...], radius: Any) -> tuple[Array, Array]:
    """Return where rays enter and leave a sphere, or an endless cylinder across the given axes; NaN if they miss it."""
    square = sum((direction[axis] * direction[axis] for axis in axes), start=np.float64(0))
    square = np.maximum(square, TINY)
    half = sum((origin[axis] * direction[axis] for axis in axes), start=np.float64(0))
    rest = sum((origin[axis] * origin[axis] for axis in axes), start=-(np.float64(radius) ** 2))
    root = np.sqrt(half * half - square * rest)
    return (-half - root) / square, (-half + root) / square


def _meet_slabs(origin: Array, direction: Array, half: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Return where rays enter and leave the space between the planes at ±half of each axis."""
    near: Any = -np.inf
    far: Any = np.inf
    for axis in axes:
        inverse = 1 / direction[axis]
        middle, width = -origin[axis] * inverse, half[axis] * np.abs(inverse)
        near, far = np.maximum(near, middle - width), np.minimum(far, middle + width)
    return near, far
