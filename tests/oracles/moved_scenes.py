"""Ground truth of augmented images, rendered: a moved camera is a scene that is moved the other way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mtlcli.data.rendering.layout import DIFFICULTIES, Scene, draw_scene
from mtlcli.data.rendering.renderer import FOCAL, Rendering, render

MIRRORED, UPSIDE_DOWN = np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, -1.0, 1.0])


def scene(seed: int) -> Scene:
    """A scene with tilted solids and patterns, without noise."""
    return replace(draw_scene(np.random.default_rng(seed), DIFFICULTIES["hard"]), noise=0.0)


def clockwise(degrees: float) -> Any:
    """The rotation of the picture in its plane, x to the right and y down: (1, 0) turns towards (0, 1)."""
    matrix, angle = np.eye(3), np.radians(degrees)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def move(moved: Scene, matrix: Any) -> Scene:
    """Rotate or reflect a whole scene, its light and its sky, in camera space."""
    solids = [replace(solid, center=matrix @ solid.center, axes=matrix @ solid.axes) for solid in moved.solids]
    return replace(moved, solids=tuple(solids), light=matrix @ moved.light, up=matrix @ moved.up)


def photograph(
    seen: Scene, height: int, width: int, scale: float = 1.0, corner: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Tensor]:
    """Render the image and the maps of a camera of which the focal length is larger by a scale.

    Its upper left corner is at `corner` (y, x) in pixels of the camera with scale 1, whose axis passes its middle.
    """
    rays = np.ones((3, height, width))
    rays[0] = ((np.arange(width) + 0.5) / scale + corner[1] - width / 2) / (FOCAL * width)
    rays[1] = (((np.arange(height) + 0.5) / scale + corner[0] - height / 2) / (FOCAL * width))[:, None]
    seen_maps: Rendering = render(seen, rays, np.random.default_rng(0))
    names = {"class": "classes", "depth": "depth", "normals": "normals", "edge": "edges", "part": "parts"}
    maps = {name: torch.from_numpy(getattr(seen_maps, field)) for name, field in names.items()}
    return {"image": torch.from_numpy(seen_maps.image), **maps}


def within_neighbours(actual: Tensor, truth: Tensor, tolerance: float) -> Tensor:
    """Mark the pixels [H, W] whose values are in the range of the 3×3 pixels of the truth around them, [C, H, W].

    A missing value must have a missing one among them.
    """
    around = F.unfold(F.pad(truth[None].double(), (1, 1, 1, 1), mode="replicate"), 3).view(len(truth), 9, -1)
    missing = around.isnan()
    low = around.masked_fill(missing, torch.inf).amin(1).view_as(truth)
    high = around.masked_fill(missing, -torch.inf).amax(1).view_as(truth)
    inside = (actual >= low - tolerance) & (actual <= high + tolerance)
    return torch.where(actual.isnan(), missing.any(1).view_as(truth), inside).all(0)


def near_edges(maps: dict[str, Tensor]) -> Tensor:
    """Mark the pixels [H, W] with an edge of a surface or a part among the 5×5 around them, and those at the border."""
    codes = torch.stack([maps["edge"].double(), maps["part"].double(), maps["class"].double()])
    padded = F.pad(codes[None], (2, 2, 2, 2), mode="replicate")
    changes = F.max_pool2d(padded, 5, 1) != -F.max_pool2d(-padded, 5, 1)
    near = changes[0].any(0) | (maps["edge"] == 1)
    near[[0, -1]] = near[:, [0, -1]] = True
    return near
