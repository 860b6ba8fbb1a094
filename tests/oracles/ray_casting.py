"""Ray casting of one pixel in plain Python floats: each face and curved surface on its own, by its equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtlcli.data.rendering.layout import Scene
from mtlcli.data.rendering.solids import PARTS, Solid

Vector = list[float]


@dataclass(frozen=True)
class Hit:
    """The nearest point of a surface on a ray: distance, unit normal towards the origin's side, solid and part."""

    distance: float
    normal: Vector
    solid: int
    part: int


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def pixel_ray(row: int, column: int, height: int, width: int) -> Vector:
    """The ray of a camera with a focal length of 0.75 widths through the center of a pixel; z is 1."""
    focal = 0.75 * width
    return [(column + 0.5 - width / 2) / focal, (row + 0.5 - height / 2) / focal, 1.0]


def cast(solids: tuple[Solid, ...], origin: Vector, ray: Vector) -> Hit | None:
    """The first surface that a ray meets."""
    hits = [Hit(t, n, i, part) for i, solid in enumerate(solids) for t, n, part in _meet(solid, origin, ray)]
    return min(hits, key=lambda hit: hit.distance, default=None)


def in_shadow(scene: Scene, point: Vector, normal: Vector) -> bool:
    """Return whether an object (not the room) is between a point and the light."""
    start = [p + 1e-6 * n for p, n in zip(point, normal, strict=True)]
    objects = tuple(solid for solid in scene.solids if solid.shape != "rectangle")
    return cast(objects, start, scene.light.tolist()) is not None


def _meet(solid: Solid, start: Vector, ray: Vector) -> list[tuple[float, Vector, int]]:
    axes = [solid.axes[:, i].tolist() for i in range(3)]
    shift = [s - c for s, c in zip(start, solid.center.tolist(), strict=True)]
    o, d = [dot(axis, shift) for axis in axes], [dot(axis, ray) for axis in axes]
    half = solid.half.tolist()
    hits: list[tuple[float, Vector, str]] = []  # distance, local normal, part

    def at(t: float) -> Vector:
        return [a + t * b for a, b in zip(o, d, strict=True)]

    def plane(axis: int, side: float, part: str) -> None:
        t = (side * half[axis] - o[axis]) / d[axis] if d[axis] else -1.0
        others = [i for i in range(3) if i != axis]
        point = at(t)
        if solid.shape == "cylinder":
            inside = math.hypot(*(point[i] for i in others)) <= half[0]
        else:
            inside = all(abs(point[i]) <= half[i] for i in others)
        if t > 0 and inside:
            hits.append((t, [side if i == axis else 0.0 for i in range(3)], part))

    def round_surface(across: list[int]) -> None:
        a, b = sum(d[i] ** 2 for i in across), 2 * sum(o[i] * d[i] for i in across)
        c = sum(o[i] ** 2 for i in across) - half[0] ** 2
        if b * b - 4 * a * c < 0:
            return
        for sign in (-1, 1):
            t = (-b + sign * math.sqrt(b * b - 4 * a * c)) / (2 * a)
            point = at(t)
            if t > 0 and (len(across) == 3 or abs(point[1]) <= half[1]):
                normal = [point[i] / half[0] if i in across else 0.0 for i in range(3)]
                ball = "sphere_upper" if point[1] < 0 else "sphere_lower"
                hits.append((t, normal, ball if len(across) == 3 else "cylinder_side"))

    if solid.shape == "rectangle":
        plane(1, -math.copysign(1.0, d[1]), "")
    elif solid.shape == "sphere":
        round_surface([0, 1, 2])
    elif solid.shape == "box":
        for axis, part in enumerate(("box_side", "box_top", "box_front")):
            plane(axis, -1.0, part)
            plane(axis, 1.0, part)
    else:
        round_surface([0, 2])
        plane(1, -1.0, "cylinder_end")
        plane(1, 1.0, "cylinder_end")
    return [
        (t, [sum(axes[i][k] * n[i] for i in range(3)) for k in range(3)], PARTS.index(part) if part else 255)
        for t, n, part in hits
    ]
