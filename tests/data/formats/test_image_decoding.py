"""Decoding of images, compared with NumPy and torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from mtlcli.data.formats.image_decoding import Fit, ImagePreparation
from mtlcli.errors import ConfigError, MtlError
from mtlcli.specs import DatasetSpec, TargetSpec

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 80, 3)).astype(np.uint8)


def save(path: Path, pixels: np.ndarray[Any, Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def read(path: Path, channels: Any = 3, size: Any = None, fit: Fit | None = None, background: Any = "white") -> Any:
    return ImagePreparation(channels, size, fit, background).read(path).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("shape", [(60, 80), (80, 60)], ids=["wide", "high"])
def test_crop_equals_resizing_the_shorter_side_and_cropping_the_centre(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = save(tmp_path / "a.png", PIXELS.reshape(*shape, 3))
    expected = v2.CenterCrop(30)(v2.Resize(30)(Image.open(path)))  # type: ignore[no-untyped-call, attr-defined]
    assert np.array_equal(read(path, size=(30, 30), fit="crop"), np.asarray(expected))


def test_crop_to_another_aspect_ratio(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", PIXELS)
    assert np.array_equal(read(path, size=(20, 80), fit="crop"), PIXELS[20:40])
    assert np.array_equal(read(path, size=(60, 30), fit="crop"), PIXELS[:, 25:55])


def test_stretch_resizes_the_whole_image(tmp_path: Path) -> None:
    blocks = np.kron(PIXELS[:6, :8], np.ones((10, 10, 1), np.uint8))
    path = save(tmp_path / "a.png", blocks)
    stretched = read(path, size=(240, 80), fit="stretch")
    assert stretched.shape == (240, 80, 3)
    assert np.array_equal(stretched[20::40, 5::10], PIXELS[:6, :8])  # in the middle of each block


@pytest.mark.parametrize(("background", "value"), [("white", 255), ("black", 0), (None, 0)])
def test_pad_centres_the_whole_image(tmp_path: Path, background: str | None, value: int) -> None:
    path = save(tmp_path / "a.png", PIXELS)
    padded = read(path, size=(100, 80), fit="pad", background=background)
    assert np.array_equal(padded[20:80], PIXELS) and (padded[:20] == value).all() and (padded[80:] == value).all()


def test_grey(tmp_path: Path) -> None:
    expected = PIXELS @ np.array([0.299, 0.587, 0.114])
    grey = read(save(tmp_path / "a.png", PIXELS), channels=1)
    assert grey.shape == (60, 80, 1) and np.abs(grey[..., 0] - expected).max() <= 1
    assert np.array_equal(read(save(tmp_path / "b.png", grey[..., 0])), np.repeat(grey, 3, 2))


@pytest.mark.parametrize(("background", "behind"), [("white", 255), ("black", 0)])
def test_transparent_pixels_are_composed_with_the_background(tmp_path: Path, background: str, behind: int) -> None:
    alpha = RNG.integers(0, 256, (60, 80, 1)).astype(np.uint8)
    path = save(tmp_path / "a.png", np.concatenate([PIXELS, alpha], 2))
    share = alpha / 255
    assert np.abs(read(path, background=background) - (share * PIXELS + (1 - share) * behind)).max() <= 1
    assert np.array_equal(read(path, background=None), PIXELS)


def test_a_palette_with_a_transparent_color(tmp_path: Path) -> None:
    image = Image.fromarray((PIXELS[..., 0] % 4).astype(np.uint8), "L")
    image = image.convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0])
    image.save(tmp_path / "a.png", transparency=1)
    colors = np.array([[10, 20, 30], [255, 255, 255], [70, 80, 90], [0, 0, 0]])
    assert np.array_equal(read(tmp_path / "a.png"), colors[PIXELS[..., 0] % 4])


def test_cmyk(tmp_path: Path) -> None:
    inks = RNG.integers(0, 256, (60, 80, 4)).astype(np.uint8)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tiff")
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert np.abs(read(tmp_path / "a.tiff") - expected).max() <= 1


def test_16_bits_of_color(tmp_path: Path) -> None:
    wide = (PIXELS[..., 0].astype(np.uint16) << 8) | 77
    path = save(tmp_path / "a.png", wide)
    assert np.array_equal(read(path, channels=1)[..., 0], PIXELS[..., 0])


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
     (6, lambda x: np.rot90(x, -1)), (8, np.rot90)],
)  # fmt: skip
def test_images_are_upright_before_they_are_cropped(tmp_path: Path, orientation: int, turn: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", PIXELS, exif=exif)
    assert np.array_equal(read(path), turn(PIXELS))
    plain = save(tmp_path / "b.png", np.ascontiguousarray(turn(PIXELS)))
    assert np.array_equal(read(path, size=(20, 50), fit="crop"), read(plain, size=(20, 50), fit="crop"))


def test_a_fixed_size(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", PIXELS)
    assert np.array_equal(read(path, size=(60, 80)), PIXELS)
    with pytest.raises(MtlError, match="has 80×60 pixels, but the first image has 60×80"):
        read(path, size=(80, 60))


def spec(preparation: ImagePreparation, **state: Any) -> DatasetSpec:
    shape = (preparation.channels, *(preparation.size or ()))
    return DatasetSpec(
        shape, {"a": TargetSpec("real")}, "a", (), (0.0,), (1.0,), {"image": preparation.state(), **state}
    )


@pytest.mark.parametrize(
    "preparation", [ImagePreparation(3, (4, 5), "pad", "black"), ImagePreparation(1, (4, 5), None, None)]
)
def test_the_preparation_is_restored_from_a_specification(preparation: ImagePreparation) -> None:
    plain = json.loads(json.dumps(spec(preparation).to_dict()))
    assert ImagePreparation.of(DatasetSpec.from_dict(plain)) == preparation


@pytest.mark.parametrize("state", [None, 3, {"fit": "squeeze", "background": None}, {"fit": None, "background": [1]}])
def test_an_invalid_specification_is_refused(state: Any) -> None:
    with pytest.raises(ConfigError, match="image"):
        ImagePreparation.of(spec(ImagePreparation(3, (4, 5)), image=state))


def test_descriptions() -> None:
    assert ImagePreparation(1, (4, 5), "pad", "black").describe() == (
        "upright by its EXIF tag, converted to grey (Pillow's mode L), transparent pixels on black, padded at the "
        "centre with black to the aspect ratio, and resized to 4 x 5 (bilinear, by Pillow); channels first"
    )
