"""Mask files: their geometry, their formats, and the messages about wrong ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.map_files import MapFiles
from mtlcli.data.formats.mask_targets import MaskTarget
from mtlcli.errors import MtlError
from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX

PARTS = MaskTarget("part", "classes", 12, ignore=(255,))
DEPTH = MaskTarget("depth", "depth", scale=1000)
NORMALS = MaskTarget("normals", "normals")
EDGES = MaskTarget("edges", "binary")


def random_map(height: int, width: int, classes: int = 12, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def write(path: Path, values: np.ndarray[Any, Any], mode: str | None = None) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        Image.fromarray(values).convert(mode).save(path) if mode else Image.fromarray(values).save(path)
    return path


def read(path: Path, target: MaskTarget = PARTS, size: tuple[int, int] = (6, 8), **options: Any) -> torch.Tensor:
    """Read a mask of an image of 6×8 pixels, unless `image` is another one."""
    image = options.pop("image", None) or write(path.parent / "image.png", random_map(6, 8))
    return MapFiles([path], [image], frozenset(), target, ImagePreparation(3, size, **options), lambda _: "t.csv:2")[0]


def fault(path: Path, target: MaskTarget = PARTS, **options: Any) -> str:
    with pytest.raises(MtlError) as error:
        read(path, target, **options)
    message = str(error.value)
    assert message.startswith(f"t.csv:2: {path}: ")
    return message.removeprefix(f"t.csv:2: {path}: ")


def nearest(values: np.ndarray[Any, Any], box: tuple[float, float, float, float], size: tuple[int, int]) -> Any:
    """Sample the center of each pixel of a grid over a box (top, left, height, width); none is between two pixels."""
    top, left, height, width = box
    return np.array([
        [values[math.floor(top + (i + 0.5) * height / size[0]), math.floor(left + (j + 0.5) * width / size[1])]
         for j in range(size[1])]
        for i in range(size[0])
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("fit", "shape", "size", "box"),
    [
        ("crop", (30, 50), (8, 8), (0, 10, 30, 30)),
        ("crop", (50, 30), (6, 10), (16, 0, 18, 30)),
        ("crop", (8, 8), (24, 24), (0, 0, 8, 8)),
        ("stretch", (30, 50), (12, 8), (0, 0, 30, 50)),
    ],
)
def test_a_map_is_resized_to_the_nearest_pixel(
    tmp_path: Path, fit: Any, shape: tuple[int, int], size: tuple[int, int], box: tuple[float, float, float, float]
) -> None:
    values = random_map(*shape)
    path = write(tmp_path / "mask.png", values)
    assert np.array_equal(read(path, size=size, fit=fit, image=path), nearest(values, box, size))
    array = write(tmp_path / "mask.npy", values.astype(np.int64))
    assert torch.equal(read(array, size=size, fit=fit, image=path), read(path, size=size, fit=fit, image=path))


def test_padding_has_no_labels(tmp_path: Path) -> None:
    values = random_map(30, 60)
    path = write(tmp_path / "mask.png", values)
    resized = read(path, size=(20, 20), fit="pad", image=path)
    assert (resized[:5] == IGNORE_BYTE).all() and (resized[15:] == IGNORE_BYTE).all()
    assert np.array_equal(resized[5:15], nearest(values, (0, 0, 30, 60), (10, 20)))
    vectors = np.zeros((30, 60, 3), np.float32)
    vectors[..., 2] = -1
    normals = read(write(tmp_path / "n.npy", vectors), NORMALS, size=(20, 20), fit="pad", image=path)
    assert normals[:, :5].isnan().all() and normals[:, 5:15].equal(
        torch.tensor([0.0, 0, -1]).view(3, 1, 1).expand(3, 10, 20)
    )


def test_a_map_of_a_smaller_size_covers_its_image(tmp_path: Path) -> None:
    image = write(tmp_path / "photo.png", random_map(60, 101))
    values = random_map(30, 50)
    mask = write(tmp_path / "mask.png", values)
    assert np.array_equal(read(mask, size=(60, 100), fit="stretch", image=image), values.repeat(2, 0).repeat(2, 1))
    turned = write(tmp_path / "turned.png", values.T.copy())
    assert fault(turned, size=(60, 100), fit="stretch", image=image) == (
        "has 30×50 pixels, but its image photo.png has 101×60 pixels"
    )
    upright = Image.fromarray(random_map(60, 101).T)
    exif = upright.getexif()
    exif[0x0112] = 6  # turn by 90°
    for suffix in ("jpg", "png"):
        upright.save(tmp_path / f"exif.{suffix}", exif=exif)
        assert read(mask, size=(30, 50), fit="stretch", image=tmp_path / f"exif.{suffix}").shape == (30, 50)


@pytest.mark.parametrize("mode", ["palette", "grey", "RGB", "RGBA", "L16", "tiff", "npy", "npy_floats", "npy_channel"])
def test_notations_of_classes(tmp_path: Path, mode: str) -> None:
    values = random_map(6, 8)
    values[0, 0] = 255
    expected = torch.from_numpy(values)
    if mode == "palette":
        image = Image.fromarray(values)
        image.putpalette([value % 256 for value in range(0, 3 * 256 * 7, 7)])  # other colors than positions
        image.save(path := tmp_path / "m.png")
    elif mode == "L16":
        write(path := tmp_path / "m.png", values.astype(np.uint16))
    elif mode == "npy":
        write(path := tmp_path / "m.npy", values.astype(np.int32))
    elif mode == "npy_floats":  # as the files of MTAN; also with NaN
        floats = values.astype(np.float64)
        floats[0, 0] = np.nan
        write(path := tmp_path / "m.npy", floats)
    elif mode == "npy_channel":
        write(path := tmp_path / "m.npy", values[None])
    else:
        write(path := tmp_path / f"m.{'tif' if mode == 'tiff' else 'png'}", values, mode if mode.isupper() else None)
    labels = read(path)
    assert labels.dtype == torch.uint8 and labels.equal(expected)


def test_values_of_classes(tmp_path: Path) -> None:
    values = np.array([[7, 8, 11], [7, 99, 26]])
    path = write(tmp_path / "m.npy", values)
    roads = MaskTarget("road", "classes", ("flat", "building", "car"), {7: 0, 8: 0, 11: 1, 26: 2}, (99,))
    assert read(path, roads, (2, 3)).tolist() == [[0, 0, 1], [0, 255, 2]]
    assert fault(path, MaskTarget("road", "classes", ("a", "b"), {7: 0, 8: 1}, (99,)), size=(2, 3)) == (
        "has the value 11; expected one of 7, 8, or 99 where there is no label"
    )
    others = MaskTarget("road", "classes", ("a", "b"), {7: 0, 8: 1}, others="missing")
    assert read(path, others, (2, 3)).tolist() == [[0, 1, 255], [0, 255, 255]]
    many = read(path, MaskTarget("many", "classes", 300, ignore=(99,)), (2, 3))
    assert many.dtype == torch.int64 and many.tolist() == [[7, 8, 11], [7, IGNORE_INDEX, 26]]
    signed = write(tmp_path / "s.npy", np.array([[-1.0, 0, 11], [1, 2, 3]]))  # -1 is missing, as in the files of MTAN
    assert read(signed, MaskTarget("part", "classes", 12, ignore=(-1,)), (2, 3)).tolist() == [[255, 0, 11], [1, 2, 3]]
    for dtype in (np.int8, np.uint64, np.int64):  # the largest number is no class
        large = write(tmp_path / "l.npy", np.array([[np.iinfo(dtype).max]], dtype))
        assert "expected a class from 0 to 11, or -1" in fault(
            large, MaskTarget("p", "classes", 12, ignore=(-1,)), size=(1, 1)
        )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 12]], "has the value 12; expected a class from 0 to 11, or 255 where there is no label"),
        ([[0, -1]], "has the value -1; expected a class from 0 to 11, or 255"),
        ([[0, 0.5]], "has the value 0.5; expected a class"),
        ([[0, np.inf]], "has the value inf; expected a class"),
        ([[0, 2.0**70]], r"has the value 1.18059e\+21; expected a class"),
    ],
)
def test_values_that_are_no_class(tmp_path: Path, values: Any, message: str) -> None:
    array = np.array(values)
    assert fault(write(tmp_path / "m.npy", array), size=array.shape).startswith(message.replace("\\", ""))


def test_binary_masks(tmp_path: Path) -> None:
    path = write(tmp_path / "m.png", np.array([[0, 255], [255, 0]], np.uint8))
    assert read(path, EDGES, (2, 2)).tolist() == [[0, 1], [1, 0]]
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")  # one bit per pixel
    assert read(tmp_path / "b.png", EDGES, (1, 2)).tolist() == [[1, 0]]
    assert read(write(tmp_path / "b.npy", np.array([[True, False]])), EDGES, (1, 2)).tolist() == [[1, 0]]
    mixed = write(tmp_path / "x.png", np.array([[0, 1, 255]], np.uint8))
    assert fault(mixed, EDGES, size=(1, 3)) == "has the values 1 and 255; set `ignore: 255` if 255 is a missing label"
    ignoring = MaskTarget("edges", "binary", ignore=(255,))
    assert read(mixed, ignoring, (1, 3)).tolist() == [[0, 1, 255]]
    grey = write(tmp_path / "g.png", np.array([[0, 128]], np.uint8))
    assert "has the value 128; expected one of 0, 1, 255" in fault(grey, EDGES, size=(1, 2))


def test_depth(tmp_path: Path) -> None:
    metres = np.array([[0, 1500], [2, 65535]], np.uint16)
    expected = torch.tensor([[torch.nan, 1.5], [0.002, 65.535]])
    for name in ("d.png", "d.tif", "d.npy"):
        depth = read(write(tmp_path / name, metres), DEPTH, (2, 2))
        assert depth.dtype == torch.float32 and torch.equal(depth.nan_to_num(-1), expected.nan_to_num(-1))
    floats = np.array([[[0.0], [np.nan]], [[1.25], [-7.0]]])  # [H, W, 1]
    path = write(tmp_path / "f.npy", floats)
    assert fault(path, DEPTH, size=(2, 2)).startswith("has the value -7; expected a distance > 0, or 0 or NaN")
    ignoring = read(path, MaskTarget("depth", "depth", ignore=(-7,)), (2, 2))
    assert ignoring.isnan().tolist() == [[True, True], [False, True]] and float(ignoring[1, 0]) == 1.25
    endless = write(tmp_path / "i.npy", np.array([[np.inf, 1.0]]))
    assert fault(endless, DEPTH, size=(1, 2)).startswith("has the value inf; expected a distance")
    real = read(write(tmp_path / "r.npy", np.array([[0.0, -3.0, np.nan]])), MaskTarget("r", "real", scale=2), (1, 3))
    assert real[0, :2].tolist() == [0, -1.5] and bool(real[0, 2].isnan())


def test_normals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, 8, 3))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[0, 0] = 0
    for number, layout in enumerate((vectors, np.moveaxis(vectors, -1, 0))):
        normals = read(write(tmp_path / f"{number}.npy", layout), NORMALS)
        assert normals.shape == (3, 6, 8) and normals[:, 0, 0].isnan().all()
        assert np.allclose(np.moveaxis(vectors, -1, 0)[:, 1:], normals[:, 1:], atol=1e-6)
    colors = np.round((vectors + 1) * 127.5).astype(np.uint8)  # 0 becomes grey (128)
    colors[0, 1] = 0  # black
    read_back = read(write(tmp_path / "n.png", colors), NORMALS)
    assert read_back.isnan().any(0).sum() == 2 and read_back[:, 0, :2].isnan().all()
    angles = np.degrees(np.arccos((np.moveaxis(vectors, -1, 0)[:, 1:] * read_back[:, 1:].numpy()).sum(0).clip(-1, 1)))
    assert angles.max() < 0.5  # half a step of 2/255 in each component is less
    lengths = read_back.norm(dim=0)
    assert torch.allclose(lengths[1:], torch.ones_like(lengths[1:]))
    assert fault(write(tmp_path / "g.png", random_map(6, 8)), NORMALS).startswith("has one channel; expected three")
    large = write(tmp_path / "l.npy", 255 * np.abs(vectors))
    assert "of a normal; expected from -1 to 1" in fault(large, NORMALS)
    assert fault(write(tmp_path / "w.npy", vectors[..., :2]), NORMALS).startswith(
        "is an array [6, 8, 2]; expected [H, W, 3] or [3, H, W]"
    )


def test_wrong_files(tmp_path: Path) -> None:
    lossy = tmp_path / "m.jpg"
    Image.fromarray(random_map(6, 8)).save(lossy)
    assert fault(lossy).endswith("their compression changes the values")
    color = write(tmp_path / "c.png", np.random.default_rng(0).integers(0, 12, (6, 8, 3)).astype(np.uint8))
    assert fault(color) == "is a color image; expected one value for each pixel: grey, or a palette"
    assert fault(write(tmp_path / "s.png", random_map(5, 8))) == "has 8×5 pixels, but the images have 8×6 pixels"
    whole = write(tmp_path / "a.npy", np.zeros((6, 8))).read_bytes()
    (tmp_path / "t.npy").write_bytes(whole[:-8])
    assert fault(tmp_path / "t.npy").startswith("can't be read as an array of NumPy: ")
    huge = whole.replace(b"(6, 8)", b"(9**9)")
    for content in (b"", whole[:20], huge, whole.replace(b"(6, 8), }     ", b"(600000, 8), }")):
        (tmp_path / "x.npy").write_bytes(content)
        assert fault(tmp_path / "x.npy").startswith("can't be read as an array of NumPy: ")
    np.save(tmp_path / "o.npy", np.array([[{}]], object), allow_pickle=True)
    assert "can't be read as an array of NumPy" in fault(tmp_path / "o.npy")
    np.savez(tmp_path / "z.npz", a=np.zeros((6, 8)))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    assert "can't be read as an array of NumPy" in fault(tmp_path / "z.npy")
    np.save(tmp_path / "u.npy", np.array([["a"]]))
    assert fault(tmp_path / "u.npy") == "is an array of <U1; expected numbers"
    (tmp_path / "k.png").write_bytes(write(tmp_path / "ok.png", random_map(60, 80)).read_bytes()[:200])
    assert fault(tmp_path / "k.png").startswith("can't be read as an image: ")
    assert fault(tmp_path / "absent.png") == "can't be read: No such file or directory"
    (tmp_path / "text.png").write_text("no image")
    assert "is not an array of NumPy (.npy) or an image of the formats" in fault(tmp_path / "text.png")


def test_checks_without_reading_all(tmp_path: Path) -> None:
    image = write(tmp_path / "image.png", random_map(6, 8))
    good, array = write(tmp_path / "g.png", random_map(6, 8)), write(tmp_path / "g.npy", random_map(6, 8))
    wrong = write(tmp_path / "w.png", random_map(6, 8, 40))  # classes above 11, which the header doesn't show
    small, short = write(tmp_path / "s.npy", random_map(3, 4)), tmp_path / "short.npy"
    short.write_bytes(array.read_bytes()[:-1])
    paths = [good, array, wrong, small, short, tmp_path / "blank"]
    files = MapFiles(paths, [image] * 6, frozenset([5]), PARTS, ImagePreparation(3, (6, 8)))
    assert [files.fault(row, whole=False) is not None for row in range(6)] == [False, False, False, True, True, False]
    assert [files.fault(row, whole=True) is not None for row in range(5)] == [False, False, True, True, True]
    present = files.present()
    assert list(present.paths) == paths[:5] and not present.blank
    assert (files[5] == IGNORE_BYTE).all() and files[5].shape == (6, 8)
