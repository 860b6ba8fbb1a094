"""Labels of pixels passed from Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.data.datasets.in_memory import InMemory
from mtlcli.errors import ConfigError
from mtlcli.specs import TargetSpec

AMOUNT, SIDE = 10, 4
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (AMOUNT, 3, SIDE, SIDE), dtype=np.uint8)
CLASSES = RNG.integers(0, 3, (AMOUNT, SIDE, SIDE))
DEPTH = RNG.random((AMOUNT, SIDE, SIDE)) + 0.5


def open_data(data: object, **options: Any) -> tuple[dict[str, TargetSpec], InMemory]:
    dataset = InMemory(test=0.0, val=0.0, **options)
    dataset.attach(data)
    return dataset.describe().targets, dataset


def read(dataset: InMemory, target: str) -> Tensor:
    (maps,) = dataset.examples("train", 0).iterate_maps(target, AMOUNT)
    return maps


def test_types_follow_from_the_arrays_or_from_the_options() -> None:
    normals = RNG.normal(size=(AMOUNT, 3, SIDE, SIDE)).astype(np.float32)
    given = {
        "class": CLASSES, "edge": CLASSES[:, None] > 0, "depth": DEPTH, "normals": normals, "flow": normals[:, :2],
        "scene": np.arange(AMOUNT) % 2,
    }  # fmt: skip
    types = {"depth": "depth_map", "normals": "normal_map"}
    targets, dataset = open_data((IMAGES, given), targets=types, classes={"class": ["floor", "wall", "object"]})
    mean, std = float(DEPTH.astype(np.float32).mean()), float(DEPTH.astype(np.float32).std())
    assert targets["depth"].mean == pytest.approx(mean, rel=1e-6)
    assert targets["depth"].std == pytest.approx(std, rel=1e-6)
    assert {name: (target.type, target.size) for name, target in targets.items()} == {
        "class": ("class_map", 3), "edge": ("binary_map", 1), "depth": ("depth_map", 1), "normals": ("normal_map", 3),
        "flow": ("real_map", 2), "scene": ("classes", 2),
    }  # fmt: skip
    assert targets["class"].classes == ("floor", "wall", "object")
    assert not any(target.missing for target in targets.values())
    assert torch.equal(read(dataset, "class"), torch.from_numpy(CLASSES).to(torch.uint8))
    assert torch.equal(read(dataset, "edge"), torch.from_numpy(CLASSES > 0).to(torch.uint8))
    assert torch.equal(read(dataset, "normals"), torch.from_numpy(normals))


@pytest.mark.parametrize(("dtype", "missing"), [(np.uint8, 255), (np.int32, 255), (np.int64, -100)])
def test_missing_classes(dtype: Any, missing: int) -> None:
    labels = CLASSES.astype(dtype)
    labels[:, 0] = missing
    targets, dataset = open_data((IMAGES, {"class": labels}))
    assert targets["class"] == TargetSpec("class_map", 3, missing=True)
    expected = torch.from_numpy(CLASSES).to(torch.uint8)
    expected[:, 0] = 255
    assert torch.equal(read(dataset, "class"), expected)


def test_more_classes_than_a_byte_has_values() -> None:
    labels = np.zeros((AMOUNT, SIDE, SIDE), np.int64)
    labels[0, 0, :3] = 255, 300, -100
    targets, dataset = open_data((IMAGES, {"class": labels}))
    assert targets["class"] == TargetSpec("class_map", 301, missing=True)
    assert read(dataset, "class")[0, 0].tolist() == [255, 300, -100, 0]


def test_a_depth_of_0_and_normals_of_0_are_missing() -> None:
    depth, normals = DEPTH.astype(np.float16), np.ones((AMOUNT, 3, SIDE, SIDE), np.float32)
    depth[0, 0, 0], normals[0, :, 0, 0] = 0, 0
    types = {"depth": "depth_map", "normals": "normal_map"}
    targets, dataset = open_data((IMAGES, {"depth": depth, "normals": normals}), targets=types)
    assert targets["depth"].missing and targets["normals"].missing
    assert math.isnan(read(dataset, "depth")[0, 0, 0]) and bool(read(dataset, "normals")[0, :, 0, 0].isnan().all())


@pytest.mark.parametrize("limit", [2**20, 1])
def test_items_of_a_dataset(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Items are kept in memory, or read one at a time if they are large; the maps follow their images."""
    monkeypatch.setattr("mtlcli.data.formats.python_items.READ_WHOLE", limit)
    items = [(image, {"class": mask, "scene": int(mask[0, 0])}) for image, mask in zip(IMAGES, CLASSES, strict=True)]
    targets, dataset = open_data(items)
    assert (targets["class"].type, targets["class"].missing) == ("class_map", limit == 1)
    train = dataset.examples("train", 0)
    assert isinstance(train.maps["class"], Tensor) == (limit > 1)
    assert torch.equal(read(dataset, "class"), torch.from_numpy(CLASSES).to(torch.uint8))
    assert train.labels("scene").tolist() == CLASSES[:, 0, 0].tolist()


def test_drawn_splits_share_the_maps_and_depend_on_them() -> None:
    splits = []
    for labels in (CLASSES, CLASSES[:, ::-1].copy()):
        dataset = InMemory(test=0.4, val=0.2)
        dataset.attach((IMAGES, {"class": labels}))
        train, test = dataset.examples("train", 0), dataset.examples("test", 0)
        assert train.maps["class"] is test.maps["class"]
        assert len(train) + len(dataset.examples("val", 0)) + len(test) == AMOUNT
        splits.append(dataset.recorded().splits["test"])
    assert splits[0] != splits[1]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.where(CLASSES == 2, 7, CLASSES), {"classes": {"y": ["a", "b", "c"]}},
         "'y' has the label 7 in example 0; expected 0 to 2, or 255 or -100"),
        (CLASSES - 1, {}, "'y' has the label -1 in example 0"),
        (DEPTH, {"targets": {"y": "class_map"}}, "its labels are integers"),
        (DEPTH, {"targets": {"y": "normal_map"}}, "a normal_map, so its maps are"),
        (CLASSES, {"targets": {"y": "classes"}}, "its type can't be 'classes'"),
        (np.zeros_like(CLASSES), {}, "no class but 0"),
        (CLASSES[:5], {}, "10 inputs, but 5 labels of target 'y'"),
        (CLASSES[:, :3], {}, "'y' has labels for 3×4 pixels, and the images are 4×4"),
        (np.zeros((AMOUNT, 1, 1, 2, 2)), {}, "expected labels of pixels"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit(labels: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_data((IMAGES, {"y": labels}), **options)
