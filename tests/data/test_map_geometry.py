"""Augmented maps, compared with rendered scenes: a transformed image is the picture of a moved camera."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.data.augmentation import Augmentation
from mtlcli.data.datasets.scenes import TARGETS
from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX, TargetSpec
from tests.oracles.moved_scenes import (
    MIRRORED,
    UPSIDE_DOWN,
    clockwise,
    move,
    near_edges,
    photograph,
    scene,
    within_neighbours,
)

SIZE = (72, 96)
COORDINATES = TargetSpec("real_map", 2)  # row and column of each pixel: a target whose values no transform changes
Entry = str | dict[str, Any]


def augment(maps: dict[str, Tensor], *transforms: Entry, row: int = 0) -> dict[str, Tensor]:
    """Augment an image and its maps."""
    maps = dict(maps)
    image = maps.pop("image")
    targets = {**TARGETS, "coordinates": COORDINATES}
    [image], [maps] = Augmentation(list(transforms), targets=targets)([image], [0], [row], [maps])
    return {"image": image, **maps}


def coordinates(height: int, width: int) -> Tensor:
    return torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()


def assert_pictures_equal(actual: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """Equal in all pixels, up to the rounding of the renderer."""
    for name in ("class", "part", "edge"):
        assert torch.equal(actual[name], truth[name]), name
    assert (actual["image"].int() - truth["image"].int()).abs().max() <= 1
    torch.testing.assert_close(actual["depth"], truth["depth"], rtol=1e-5, atol=0, equal_nan=True)
    torch.testing.assert_close(actual["normals"], truth["normals"], rtol=0, atol=1e-5, equal_nan=True)


def assert_pictures_agree(actual: dict[str, Tensor], truth: dict[str, Tensor], depth_scale: float) -> None:
    """Equal up to the distance from the nearest pixel, where the image isn't filled."""
    filled, edges = actual["class"] == IGNORE_BYTE, near_edges(truth)
    depth = actual["depth"][None] * depth_scale
    checked = ~filled & ~edges
    assert checked.float().mean() > 0.25
    assert within_neighbours(depth, truth["depth"][None], 2e-3)[checked].all()
    assert within_neighbours(actual["normals"], truth["normals"], 2e-3)[checked].all()
    for name in ("class", "part"):
        assert torch.equal(actual[name][checked], truth[name][checked])
        assert within_neighbours(actual[name][None], truth[name][None], 0)[~filled].float().mean() > 0.98
    assert actual["depth"][filled].isnan().all()
    assert actual["normals"][:, filled].isnan().all()
    assert (actual["part"][filled] == IGNORE_BYTE).all()
    assert (actual["edge"][filled] == IGNORE_BYTE).all()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "matrix"), [("RandomHorizontalFlip", MIRRORED), ("RandomVerticalFlip", UPSIDE_DOWN)])
def test_a_flip_is_the_picture_of_the_mirrored_scene(name: str, matrix: Any, seed: int) -> None:
    flipped = augment(photograph(scene(seed), *SIZE), {"name": name, "p": 1.0})
    assert_pictures_equal(flipped, photograph(move(scene(seed), matrix), *SIZE))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_quarter_turn_is_the_picture_of_the_rolled_camera(degrees: int) -> None:
    turned = augment(photograph(scene(2), 80, 80), {"name": "RandomRotation", "degrees": [degrees, degrees]})
    assert_pictures_equal(turned, photograph(move(scene(2), clockwise(-degrees)), 80, 80))


def test_two_flips_turn_twice() -> None:
    original = photograph(scene(2), *SIZE)
    flips: list[Entry] = [{"name": f"Random{way}Flip", "p": 1.0} for way in ("Horizontal", "Vertical")]
    assert_pictures_equal(augment(original, *flips), photograph(move(scene(2), clockwise(180)), *SIZE))


@pytest.mark.parametrize(
    ("degrees", "scale", "flip"), [(30, 1.0, False), (-20, 1.0, False), (12, 1.4, True), (0, 0.7, False)]
)
def test_an_affine_transform_is_the_picture_of_a_rolled_camera_with_another_focal_length(
    degrees: float, scale: float, flip: bool
) -> None:
    height, width = SIZE
    affine = {
        "name": "RandomAffine",
        "degrees": [degrees, degrees],
        "scale": [scale, scale],
        "interpolation": "bilinear",
    }
    transforms: list[Entry] = [affine, {"name": "RandomHorizontalFlip", "p": float(flip)}]
    actual = augment(photograph(scene(3), height, width), *transforms)
    matrix = clockwise(degrees)
    corner = (height / 2 * (1 - 1 / scale), width / 2 * (1 - 1 / scale))
    truth = photograph(move(scene(3), MIRRORED @ matrix if flip else matrix), height, width, scale, corner)
    assert_pictures_agree(actual, truth, scale)
    assert (actual["class"] == IGNORE_BYTE).any() == ((degrees != 0 and scale == 1) or scale < 1)


@pytest.mark.parametrize("scale", [1.2, 1.5])
def test_scale_and_crop_is_the_picture_of_a_camera_with_a_longer_focal_length(scale: float) -> None:
    height, width = SIZE
    original = photograph(scene(4), height, width) | {"coordinates": coordinates(height, width)}
    actual = augment(original, {"name": "RandomScaleCrop", "scales": [scale]})
    corner = actual["coordinates"].amin((1, 2))  # the first pixel of the part
    size = actual["coordinates"].amax((1, 2)) - corner + 1
    assert size.tolist() == [height / scale, width / scale]
    truth = photograph(scene(4), height, width, scale, (corner[0].item(), corner[1].item()))
    assert_pictures_agree(actual, truth, scale)
    smooth = ~near_edges(truth)
    assert (actual["image"].int() - truth["image"].int()).abs()[:, smooth].float().median() <= 2


@pytest.mark.parametrize("size", [(288, 384), (128, 256), (17, 23)])
def test_scale_and_crop_divides_depth_by_the_scale(size: tuple[int, int]) -> None:
    maps = {"image": torch.zeros(3, *size, dtype=torch.uint8), "depth": torch.full(size, 6.0)}
    for scale in (1.0, 1.2, 1.5, 2.0):
        depth = augment(maps, {"name": "RandomScaleCrop", "scales": [scale]})["depth"]
        torch.testing.assert_close(depth, torch.full(size, 6.0 / scale))


def test_scale_and_crop_draws_all_scales_and_positions() -> None:
    maps = {"image": torch.zeros(3, 6, 9, dtype=torch.uint8), "coordinates": coordinates(6, 9)}
    seen = [augment(maps, "RandomScaleCrop", row=row)["coordinates"] for row in range(200)]
    corners = {
        tuple(grid.amin((1, 2)).tolist() + (grid.amax((1, 2)) - grid.amin((1, 2)) + 1).tolist()) for grid in seen
    }
    parts = {(6, 9): 1, (5, 7): 2 * 3, (4, 6): 3 * 4}  # size of the part → positions
    assert len(corners) == sum(parts.values())
    assert {corner[2:] for corner in corners} == parts.keys()


def test_scale_and_crop_shows_the_same_place_in_the_image_and_in_the_maps() -> None:
    ramp = coordinates(60, 80)
    maps = {"image": ramp.flip(0), "coordinates": ramp}
    for row in range(5):
        actual = augment(maps, {"name": "RandomScaleCrop", "scales": [1.2, 2]}, row=row)
        assert (actual["image"].flip(0) - actual["coordinates"]).abs().max() <= 0.5 + 1e-4


def test_normals_whose_y_points_up_turn_the_other_way() -> None:
    original = photograph(scene(5), 64, 64)
    turn: Entry = {"name": "RandomRotation", "degrees": [90, 90]}
    mirrored = torch.tensor([1.0, -1.0, -1.0]).view(3, 1, 1)  # x right, y up, z towards the camera
    opposite = augment(original | {"normals": original["normals"] * mirrored}, turn)["normals"]
    torch.testing.assert_close(opposite * mirrored, augment(original, turn)["normals"], equal_nan=True)


@pytest.mark.parametrize(
    "transform",
    [{"name": "RandomAffine", "degrees": 40, "scale": [0.8, 1.3]}, {"name": "RandomScaleCrop", "scales": [2]}],
)
def test_missing_labels_stay_missing_and_labels_are_not_interpolated(transform: Entry) -> None:
    generator = torch.Generator().manual_seed(0)
    missing = torch.rand(40, 48, generator=generator) < 0.3
    normals = torch.nn.functional.normalize(torch.randn(3, 40, 48, generator=generator), dim=0)
    label = torch.where(missing, IGNORE_BYTE, 1)
    maps = {
        "image": torch.zeros(3, 40, 48, dtype=torch.uint8),
        "depth": coordinates(40, 48)[0].masked_fill(missing, math.nan),
        "normals": normals.masked_fill(missing, math.nan),
        "class": label.byte(),
        "part": torch.where(missing, IGNORE_INDEX, 1),  # stored as int64
        "coordinates": coordinates(40, 48),
    }
    warped = augment(maps, transform, row=7)
    missing = warped["class"] == IGNORE_BYTE
    assert 0.2 < missing.float().mean() < 0.9
    assert torch.equal(missing, warped["depth"].isnan())
    assert torch.equal(missing.expand(3, -1, -1), warped["normals"].isnan())
    assert torch.equal(missing, warped["part"] == IGNORE_INDEX)
    ratio = (warped["coordinates"][0] / warped["depth"])[~missing & (warped["depth"] > 0)]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    torch.testing.assert_close(warped["normals"][:, ~missing].norm(dim=0), torch.ones(int((~missing).sum())))


def test_stored_types_are_kept() -> None:
    maps = photograph(scene(6), *SIZE)
    maps |= {"depth": maps["depth"].half(), "normals": maps["normals"].half()}
    warped = augment(maps, {"name": "RandomAffine", "degrees": [30, 30], "scale": [1.2, 1.2]})
    assert {name: warped[name].dtype for name in maps} == {name: stored.dtype for name, stored in maps.items()}
