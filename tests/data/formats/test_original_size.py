"""Values of a model's input at the pixels of the image that it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mtlcli.data.formats.image_decoding import Fit, ImagePreparation
from mtlcli.data.formats.original_size import OriginalSize, read_upright_size


def restore(values: torch.Tensor, fit: Fit | None, size: tuple[int, int]) -> torch.Tensor:
    height, width = values.shape[1:]
    original = OriginalSize(ImagePreparation(3, (height, width), fit), *size)
    return torch.cat(list(original.restore(values)), 1)


@pytest.mark.parametrize("size", [(7, 9), (20, 31), (12, 16), (5, 40)])
def test_stretched_images_are_interpolated_as_by_torch(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(3, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]
    assert torch.allclose(restore(values, "stretch", size), expected, atol=1e-6)
    whole = restore(values, "stretch", size)
    monkeypatch.setattr("mtlcli.data.formats.original_size.BAND", 3 * size[1] * 2)
    assert torch.equal(restore(values, "stretch", size), whole)  # two rows at a time


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(40, 90), (90, 40), (61, 40), (33, 44), (8, 9)])
def test_the_inverse_of_the_preparation_restores_places(fit: Fit, size: tuple[int, int], tmp_path: Path) -> None:
    """Resize an image whose colors are the coordinates of its pixels, and restore them."""
    height, width, prepared = *size, ImagePreparation(3, (24, 32), fit)
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    pixels = np.stack([rows * 2, columns * 2, np.zeros_like(rows)], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    values = prepared.read(tmp_path / "image.png").double()
    restored = restore(values, fit, size)
    known = ~restored[0].isnan()
    # rounding to 8 bits, and the edges, where resampling sees one side of a pixel only
    step = max(height / 24, width / 32, 1)
    inner = torch.zeros(size, dtype=torch.bool)
    margin = int(2 * step) + 1
    inner[margin:-margin, margin:-margin] = True
    inner &= torch.from_numpy(~_near_unknown(~known.numpy(), margin))
    difference = (restored - torch.from_numpy(pixels).permute(2, 0, 1)).abs()[:2]
    if min(size) > 20:
        assert inner.any()
        assert difference[:, inner].max() < 1.5
    if fit != "crop":
        assert known.all()
        return
    kept = min(width, height * 32 / 24) * min(height, width * 24 / 32)
    assert int(known.sum()) == pytest.approx(kept, abs=height + width)
    assert known.flip(0).equal(known) and known.flip(1).equal(known)


def _near_unknown(unknown: np.ndarray, margin: int) -> np.ndarray:
    padded = np.pad(unknown, margin)
    shifts = [
        np.roll(padded, (down, right), (0, 1))
        for down in range(-margin, margin + 1)
        for right in range(-margin, margin + 1)
    ]
    near: np.ndarray = np.any(shifts, 0)[margin:-margin, margin:-margin]
    return near


def test_images_of_the_size_of_the_input_keep_their_values() -> None:
    values = torch.randn(2, 12, 16)
    assert restore(values, None, (12, 16)) is not values
    for fit in (None, "crop", "pad", "stretch"):
        assert torch.equal(restore(values, fit, (12, 16)), values)  # type: ignore[arg-type]


def test_the_size_of_a_turned_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.jpg", "a.png"):
        image.save(tmp_path / name, exif=exif)
        assert read_upright_size(tmp_path / name) == (30, 20)
    image.save(tmp_path / "b.png")
    assert read_upright_size(tmp_path / "b.png") == (20, 30)
