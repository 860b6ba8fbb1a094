"""Cityscapes in its two layouts, with small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtlcli.data.datasets.cityscapes import Cityscapes
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_BYTE

AMOUNTS = {"train": 5, "val": 3}
CITIES = ("aachen", "bonn")
HEIGHT, WIDTH = 8, 16
# of https://github.com/mcordts/cityscapesScripts, helpers/labels.py: id, name, train id (255 if it has none), category
LABELS = """
0 unlabeled 255 void, 1 ego_vehicle 255 void, 2 rectification_border 255 void, 3 out_of_roi 255 void, 4 static 255 void,
5 dynamic 255 void, 6 ground 255 void, 7 road 0 flat, 8 sidewalk 1 flat, 9 parking 255 flat, 10 rail_track 255 flat,
11 building 2 construction, 12 wall 3 construction, 13 fence 4 construction, 14 guard_rail 255 construction,
15 bridge 255 construction, 16 tunnel 255 construction, 17 pole 5 object, 18 polegroup 255 object,
19 traffic_light 6 object, 20 traffic_sign 7 object, 21 vegetation 8 nature, 22 terrain 9 nature, 23 sky 10 sky,
24 person 11 human, 25 rider 12 human, 26 car 13 vehicle, 27 truck 14 vehicle, 28 bus 15 vehicle,
29 caravan 255 vehicle, 30 trailer 255 vehicle, 31 train 16 vehicle, 32 motorcycle 17 vehicle, 33 bicycle 18 vehicle
"""
CATEGORIES = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")


def label_table() -> list[tuple[str, int, str]]:
    rows = [row.split() for row in LABELS.replace("\n", " ").split(",")]
    assert [int(row[0]) for row in rows] == list(range(34))
    return [(name.replace("_", " "), int(train_id), category) for _, name, train_id, category in rows]


def pixels(split: str, at: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return an image, ids, and a disparity of 16 bits."""
    rng = np.random.default_rng([len(split), at])
    ids = np.resize(np.arange(34), (HEIGHT, WIDTH)).astype(np.uint8)
    disparity = rng.integers(0, 32257, (HEIGHT, WIDTH)).astype(np.uint16)
    disparity[0] = 0
    disparity[1, :3] = 1, 2, 257
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8), ids, disparity


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    for split, amount in AMOUNTS.items():
        for at in range(amount):
            stem = f"{split}/{CITIES[at % 2]}/{CITIES[at % 2]}_{at:06}_000019"
            named = (f"leftImg8bit/{stem}_leftImg8bit", f"gtFine/{stem}_gtFine_labelIds", f"disparity/{stem}_disparity")
            for name, array in zip(named, pixels(split, at), strict=True):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(tmp_path / f"{name}.png")
            (tmp_path / f"gtFine/{stem}_gtFine_polygons.json").write_text("{}")
    return tmp_path


@pytest.fixture
def mtan(tmp_path: Path) -> Path:
    for split, amount in AMOUNTS.items():
        for at in range(amount):
            image, ids, disparity = pixels(split, at)
            arrays = {
                "image": image / 255, "label_7": ids % 8 - 1.0, "label_19": ids % 20 - 1.0,
                "depth": disparity[..., None] / 65535,
            }  # fmt: skip
            for name, array in arrays.items():
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                np.save(tmp_path / split / name / f"{at}.npy", array)
    return tmp_path


@pytest.mark.parametrize("classes", [19, 7])
def test_originals(originals: Path, classes: Any) -> None:
    dataset = Cityscapes(root=str(originals), classes=classes, val=0.0)
    spec = dataset.describe()
    table = label_table()
    assert spec.input_shape == (3, HEIGHT, WIDTH) and spec.splits == ("train", "test")
    names = tuple(name for name, train_id, _ in table if train_id != 255) if classes == 19 else CATEGORIES
    assert spec.targets["segmentation"].classes == names and spec.main_target == "segmentation"
    codes = np.array([train_id if classes == 19 else (*CATEGORIES, "void").index(c) for _, train_id, c in table])
    codes[codes == 7 if classes == 7 else codes == 255] = IGNORE_BYTE
    for split, of_files in (("train", "train"), ("test", "val")):
        examples = dataset.read(split)
        assert len(examples) == AMOUNTS[of_files]
        order = sorted(range(len(examples)), key=lambda at: (CITIES[at % 2], at))
        for row, at in enumerate(order):
            image, ids, disparity = pixels(of_files, at)
            assert np.array_equal(examples.inputs[row].permute(1, 2, 0), image)
            assert np.array_equal(examples.maps["segmentation"][row], codes[ids])
            expected = np.where(disparity <= 1, np.nan, (disparity.astype(np.float64) - 1) / 256)
            assert np.allclose(examples.maps["depth"][row].numpy(), expected, rtol=1e-6, equal_nan=True)
    assert dataset.check_files() == []


def test_both_layouts_have_the_same_disparity(originals: Path) -> None:
    """The files of MTAN have p / 65535: they end at 0.4922, and the originals at 32,257 (lorenmt/mtan, issue 25)."""
    assert pytest.approx(0.4922, abs=5e-5) == 32257 / 65535
    depth = Cityscapes(root=str(originals), disparity="unit").read("train").maps["depth"][0].numpy()
    written = pixels("train", 0)[2] / 65535
    assert np.allclose(depth, np.where(written == 0, np.nan, written), rtol=1e-6, equal_nan=True)


def test_files_of_mtan(mtan: Path) -> None:
    for classes in (7, 19):
        dataset = Cityscapes(root=str(mtan), classes=classes)  # type: ignore[arg-type]
        spec = dataset.describe()
        assert (spec.targets["segmentation"].size, spec.targets["segmentation"].classes) == (classes, None)
        examples = dataset.read("test")
        for at in range(3):
            image, ids, disparity = pixels("val", at)
            assert np.array_equal(examples.inputs[at].permute(1, 2, 0), image)
            expected = ids % (classes + 1) - 1.0
            assert np.array_equal(examples.maps["segmentation"][at], np.where(expected < 0, IGNORE_BYTE, expected))
            values = np.where(disparity == 0, np.nan, disparity / 65535)
            assert np.allclose(examples.maps["depth"][at].numpy(), values, rtol=1e-6, equal_nan=True)
        assert dataset.check_files() == []
    for split in AMOUNTS:  # as LibMTL names it
        (mtan / split / "label_7").rename(mtan / split / "label")
    assert Cityscapes(root=str(mtan)).describe().targets["segmentation"].size == 7
    assert len(Cityscapes(root=str(mtan)).notes()) == 2


def test_sizes(originals: Path) -> None:
    dataset = Cityscapes(root=str(originals), size=[4, 8])
    examples = dataset.read("train")
    assert examples.inputs[0].shape == (3, 4, 8)
    disparity = pixels("train", 0)[2][1::2, 1::2].astype(np.float64)
    expected = np.where(disparity <= 1, np.nan, (disparity - 1) / 256)
    assert np.allclose(examples.maps["depth"][0].numpy(), expected, rtol=1e-6, equal_nan=True)


def test_wrong_files(originals: Path) -> None:
    labels = originals / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 34, np.uint8)).save(labels)
    Image.fromarray(np.zeros((HEIGHT, WIDTH // 2), np.uint16)).save(
        originals / "disparity/val/bonn/bonn_000001_000019_disparity.png"
    )
    first, second = Cityscapes(root=str(originals)).check_files()
    assert first.startswith(f"{labels}: has the value 34; expected one of 7, 8, 9, ")
    assert second.endswith("_disparity.png: has 8×8 pixels, but the images have 16×8 pixels")
    labels.unlink()
    with pytest.raises(ConfigError, match=r"labelIds.png: doesn't exist; expected one for each image in leftImg8bit"):
        Cityscapes(root=str(originals)).describe()
    for path in (originals / "leftImg8bit/val").rglob("*.png"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"leftImg8bit/val: has no images CITY/NAME_leftImg8bit.png"):
        Cityscapes(root=str(originals)).describe()


def test_a_target_without_a_folder_is_left_out(originals: Path) -> None:
    (originals / "disparity").rename(originals / "unused")
    assert list(Cityscapes(root=str(originals)).describe().targets) == ["segmentation"]
    with pytest.raises(ConfigError, match=r"expected train/image, val/image \(`layout: npy`\)\. Set `root`"):
        Cityscapes(root=str(originals), layout="npy").describe()
