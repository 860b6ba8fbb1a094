"""Checks of image files before a run, once for each file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtlcli.data.formats import image_checks
from mtlcli.data.formats.image_checks import check_images
from mtlcli.data.formats.image_decoding import SUFFIXES, ImagePreparation, supported_formats
from mtlcli.data.formats.images import ImageFiles

BYTES = 3 * 60 * 50


@pytest.fixture
def checked_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the checked files; those of decoded ones end in a star."""
    names: list[str] = []
    fault, read = ImageFiles.fault, ImageFiles.__getitem__

    def noting_fault(self: ImageFiles, row: int, whole: bool) -> str | None:
        names.append(self.paths[row].name)
        return fault(self, row, whole)

    def noting_read(self: ImageFiles, row: int) -> object:
        names.append(f"{self.paths[row].name}*")
        return read(self, row)

    monkeypatch.setattr(ImageFiles, "fault", noting_fault)
    monkeypatch.setattr(ImageFiles, "__getitem__", noting_read)
    return names


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (60, 50), **options: object) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path


def files(*paths: Path, size: int | None = 8) -> ImageFiles:
    preparation = ImagePreparation(3, (60, 50)) if size is None else ImagePreparation(3, (size, size), "stretch")
    return ImageFiles(paths, preparation)


def cut(path: Path, share: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def test_small_sets_are_decoded_and_checked_once(tmp_path: Path, checked_files: list[str]) -> None:
    images = files(*(draw(tmp_path / f"{number}.png", number) for number in range(4)))
    assert check_images(images, BYTES) == []
    assert sorted(checked_files) == [f"{number}.png{star}" for number in range(4) for star in ("", "*")]
    checked_files.clear()
    assert check_images(images, BYTES) == [] and checked_files == []
    os.utime(tmp_path / "2.png", ns=(0, 0))
    assert check_images(images, BYTES) == [] and checked_files == ["2.png", "2.png*"]
    checked_files.clear()
    damaged = bytearray((tmp_path / "3.png").read_bytes())
    damaged[len(damaged) // 2] ^= 255  # neither header nor end
    (tmp_path / "3.png").write_bytes(damaged)
    (fault,) = check_images(images, BYTES)
    assert "3.png: can't be read as an image" in fault
    assert check_images(images, BYTES) == [fault]  # failures are not cached
    assert checked_files == 2 * ["3.png", "3.png*"]


def test_faults_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:03}.png" for number in range(150)]
    for path in paths[:12]:
        path.write_bytes(b"none")
    faults = check_images(files(*paths[:12]), BYTES)
    assert len(faults) == 11 and faults[-1] == "… and 2 more such files"
    faults = check_images(files(*paths), BYTES)  # the others aren't there at all
    assert len(faults) == 11 and faults[-1] == "… and at least 90 more such files"


@pytest.mark.parametrize("name", [name for name in supported_formats() if name != "AVIF"])  # which is always decoded
def test_large_sets_are_checked_by_their_headers_and_ends(
    tmp_path: Path, checked_files: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_checks, "READ_WHOLE", 0)
    suffix = SUFFIXES[name][0]
    fine, short = draw(tmp_path / f"a{suffix}", format=name), cut(draw(tmp_path / f"b{suffix}", format=name))
    (fault,) = check_images(files(fine, short), BYTES)
    assert f"b{suffix}: " in fault
    if name not in ("BMP", "PPM", "JPEG2000"):
        assert f"a{suffix}*" not in checked_files


def test_large_sets_of_another_size_or_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "READ_WHOLE", 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    paths = [
        draw(tmp_path / "a.jpg"),
        draw(tmp_path / "b.jpg", size=(50, 60), exif=turned),
        draw(tmp_path / "c.jpg", size=(50, 60)),
        draw(tmp_path / "d.png", size=(50, 60)),
    ]
    Image.new("F", (50, 60)).save(tmp_path / "e.tif")
    faults = check_images(files(*paths, tmp_path / "e.tif", size=None), BYTES)
    assert [fault.split(": ")[0][-5:] for fault in faults] == ["c.jpg", "d.png", "e.tif"]
    assert "has 60×50 pixels, but the first image has 50×60" in faults[0] and "32 bits" in faults[2]


def test_appended_bytes_are_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_checks, "READ_WHOLE", 0)
    path = draw(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert check_images(files(path), BYTES) == []


def test_a_sample(tmp_path: Path, checked_files: list[str]) -> None:
    images = files(*(draw(tmp_path / f"{number}.png", number) for number in range(9)))
    assert check_images(images, BYTES, most=3) == []
    assert checked_files == ["0.png", "3.png", "6.png"]


def test_an_unusable_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert check_images(files(draw(tmp_path / "a.png")), BYTES) == []
    assert check_images(files(), BYTES) == []
