"""Random scenes: a room with solids, seen by a camera and lit by the sun."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mtlcli.data.rendering.solids import CLASSES, Array, Shape, Solid
from mtlcli.data.rendering.textures import PATTERNS, Texture

TRIES = 30  # positions tried for a solid that touches another one or a wall
SHAPES: tuple[Shape, ...] = ("sphere", "box", "cylinder")


@dataclass(frozen=True)
class Difficulty:
    """Ranges from which scenes are drawn.

    Args:
        objects: smallest and largest number of solids.
        walls: probability of each wall.
        textured: probability that a surface has a pattern.
        tilted: probability that a solid has any orientation, above the floor, instead of standing on it.
        roll: largest rotation of the camera around its axis, in degrees.
        shadows: whether solids cast shadows.
        ambient: range of the ambient light, as a share of the whole.
        tint: largest deviation of the light from white.
        noise: standard deviation of the noise of a pixel, of 0…255.
    """

    objects: tuple[int, int]
    walls: float
    textured: float
    tilted: float
    roll: float
    shadows: bool
    ambient: tuple[float, float]
    tint: float
    noise: float


DIFFICULTIES = {
    "easy": Difficulty((2, 4), 1.0, 0.0, 0.0, 0.0, False, (0.35, 0.4), 0.0, 2.0),
    "medium": Difficulty((3, 6), 0.8, 0.5, 0.0, 0.0, True, (0.3, 0.45), 0.1, 5.0),
    "hard": Difficulty((5, 10), 0.6, 0.9, 0.5, 8.0, True, (0.2, 0.5), 0.3, 12.0),
}
DifficultyName = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class Scene:
    """A scene in camera space, see `Solid`.

    Args:
        solids: the floor and the walls, then the objects.
        light: unit vector towards the light, float64 [3].
        color: color of the light, float64 [3].
        ambient: share of the light that comes from everywhere.
        sky: colors of the background at the horizon and above, float64 [2, 3].
        up: unit vector that points up, float64 [3].
        shadows: whether solids cast shadows.
        noise: standard deviation of the noise of a pixel, of 0…255.
    """

    solids: tuple[Solid, ...]
    light: Array
    color: Array
    ambient: float
    sky: Array
    up: Array
    shadows: bool
    noise: float


def draw_scene(generator: np.random.Generator, difficulty: Difficulty) -> Scene:
    """Draw a scene.

    Args:
        generator: source of the random numbers.
        difficulty: ranges of the scene.

    Returns:
        The scene.
    """
    camera = _draw_camera(generator, difficulty.roll)
    height = generator.uniform(1.2, 1.7)  # of the camera above the floor
    room = _Room(
        left=-generator.uniform(2.0, 4.0),
        right=generator.uniform(2.0, 4.0),
        back=generator.uniform(5.5, 9.0),
        top=height - generator.uniform(2.2, 3.2),
        floor=height,
    )
    solids = _draw_room(generator, room, difficulty)
    heading = float(np.degrees(np.arctan2(camera[2, 0], camera[2, 2])))
    occupied: list[tuple[float, float, float]] = []
    for _ in range(generator.integers(difficulty.objects[0], difficulty.objects[1], endpoint=True)):
        if (solid := _draw_object(generator, room, heading, occupied, difficulty)) is not None:
            solids.append(solid)
    azimuth, elevation = np.radians(generator.uniform((-110, 35), (110, 70)))
    toward = (np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), -np.cos(azimuth) * np.cos(elevation))
    horizon = generator.uniform(0.6, 0.9, 3)
    return Scene(
        tuple(_to_camera(solid, camera) for solid in solids),
        light=camera @ np.array(toward),
        color=1 - difficulty.tint * generator.uniform(0, 1, 3),
        ambient=generator.uniform(*difficulty.ambient),
        sky=np.stack((horizon, horizon * generator.uniform(0.5, 1.0, 3))),
        up=camera @ np.array((0.0, -1.0, 0.0)),
        shadows=difficulty.shadows,
        noise=difficulty.noise,
    )


@dataclass(frozen=True)
class _Room:
    """Positions of the walls, the floor and the walls' upper edge; the camera is at 0. It begins 1 m behind it."""

    left: float
    right: float
    back: float
    top: float
    floor: float


def _draw_camera(generator: np.random.Generator, roll: float) -> Array:
    """Draw the rotation from the room to the camera, which looks down a little, [3, 3]."""
    yaw, pitch, turn = np.radians(generator.uniform((-25.0, 6.0, -roll), (25.0, 20.0, roll)))
    return _rotation(0, 1, turn) @ _rotation(1, 2, pitch) @ _rotation(0, 2, yaw)


def _rotation(first: int, second: int, angle: float) -> Array:
    """Return the rotation by an angle in the plane of two axes, [3, 3]."""
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _to_camera(solid: Solid, camera: Array) -> Solid:
    return replace(solid, center=camera @ solid.center, axes=camera @ solid.axes)


def _draw_room(generator: np.random.Generator, room: _Room, difficulty: Difficulty) -> list[Solid]:
    """Draw the floor and the walls, as rectangles that stand on its edges."""
    width, length = (room.right - room.left) / 2, (room.back + 1) / 2
    across, along, rise = (room.left + room.right) / 2, (room.back - 1) / 2, (room.floor - room.top) / 2
    middle = room.floor - rise
    upright, sideways = _rotation(1, 2, np.pi / 2), _rotation(0, 1, np.pi / 2)
    places = [
        ((across, room.floor, along), np.eye(3), (width, 0.0, length)),
        ((across, middle, room.back), upright, (width, 0.0, rise)),
        ((room.left, middle, along), sideways, (rise, 0.0, length)),
        ((room.right, middle, along), sideways, (rise, 0.0, length)),
    ]
    solids = []
    for number, (center, axes, half) in enumerate(places):
        present = generator.uniform() < difficulty.walls
        texture = _draw_texture(generator, difficulty.textured, pale=True)
        if number == 0 or present:
            label = CLASSES.index("wall" if number else "floor")
            solids.append(Solid("rectangle", label, np.array(center), axes, np.array(half), texture))
    return solids


def _draw_object(
    generator: np.random.Generator,
    room: _Room,
    heading: float,
    occupied: list[tuple[float, float, float]],
    difficulty: Difficulty,
) -> Solid | None:
    """Draw a solid that touches no other one; None if the room has no place for it."""
    shape = SHAPES[generator.integers(len(SHAPES))]
    half = _draw_half(generator, shape)
    texture = _draw_texture(generator, difficulty.textured, pale=False)
    marking = generator.uniform(0.05, 1.0, 3)
    axes = _rotation(0, 2, generator.uniform(-np.pi, np.pi))
    reach = half[0] if shape != "box" else np.hypot(half[0], half[2])
    bottom = half[1]
    if generator.uniform() < difficulty.tilted:
        axes = axes @ _rotation(1, 2, generator.uniform(-np.pi, np.pi)) @ _rotation(0, 1, generator.uniform(0, np.pi))
        reach = bottom = half[0] if shape == "sphere" else np.linalg.norm(half)
        bottom = bottom + generator.uniform(0, 0.6)
    for _ in range(TRIES):
        distance, bearing = generator.uniform(2.2, 6.5), np.radians(heading + generator.uniform(-32, 32))
        x, z = distance * np.sin(bearing), distance * np.cos(bearing)
        inside = room.left + reach < x < room.right - reach and z < room.back - reach
        if inside and all(np.hypot(x - a, z - b) > reach + other for a, b, other in occupied):
            occupied.append((x, z, reach))
            center = np.array((x, room.floor - bottom, z))
            return Solid(shape, CLASSES.index(shape), center, axes, half, texture, marking)
    return None


def _draw_half(generator: np.random.Generator, shape: Shape) -> Array:
    """Draw half of the extents of a solid, in metres, [3]."""
    if shape == "sphere":
        return np.full(3, generator.uniform(0.25, 0.6))
    if shape == "cylinder":
        radius, height = generator.uniform((0.18, 0.2), (0.45, 0.7))
        return np.array((radius, height, radius))
    width, height, depth = generator.uniform((0.3, 0.2, 0.5), (0.6, 0.7, 0.75))
    return np.array((width, height, width * depth))  # the front is wider than the side


def _draw_texture(generator: np.random.Generator, textured: float, pale: bool) -> Texture:
    """Draw a texture: pale colors and large patterns for the room, others for its objects."""
    first = generator.uniform(0.45, 0.8) + generator.uniform(-0.12, 0.12, 3) if pale else generator.uniform(0.1, 1.0, 3)
    second = first * generator.uniform(0.45, 0.8) if pale else generator.uniform(0.1, 1.0, 3)
    pattern = PATTERNS[generator.integers(len(PATTERNS))]
    frequency = np.diag(generator.uniform(0.8, 2.5, 3) if pale else generator.uniform(2.0, 6.0, 3))
    if generator.uniform() >= textured:
        pattern = "plain"
    return Texture(pattern, np.stack((first, second)), frequency, generator.uniform(0.1, 0.9, 3))
