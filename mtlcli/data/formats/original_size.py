"""Values for the pixels of a model's input, brought back to the pixels of the image that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mtlcli.data.formats.image_decoding import ORIENTATION, ImagePreparation, supported_formats

BAND = 2**24  # numbers that are computed at once


@dataclass(frozen=True)
class _Axis:
    """The pixels of an image along one of its sides, and their places in the input.

    Attributes:
        before: the pixel of the input at or before each place, int64 [N].
        after: the one after it.
        share: weight of the one after, float32 [N].
        inside: whether the place is within the input, bool [N].
    """

    before: Tensor
    after: Tensor
    share: Tensor
    inside: Tensor

    @classmethod
    def make(cls, size: int, places: Tensor, low: int, high: int) -> _Axis:
        """Find the neighbors of places, in pixels of an input of which those from `low` to `high` show the image."""
        clamped = (places - 0.5).clamp(low, high - 1)
        before = clamped.floor().long()
        inside = (places >= 0) & (places <= size)
        return cls(before, (before + 1).clamp(max=high - 1), (clamped - before).float(), inside)


class OriginalSize:
    """The inverse of the resizing of an image: bilinear interpolation between the centres of the input's pixels.

    Of an image that was cropped, the pixels outside have no value.

    Args:
        preparation: how the image became an input of fixed size.
        height: height of the image.
        width: its width.
    """

    def __init__(self, preparation: ImagePreparation, height: int, width: int) -> None:
        assert preparation.size is not None
        sizes = preparation.size
        self._same = preparation.fit is None or sizes == (height, width)
        if not self._same:
            self._rows, self._columns = (
                _axis(preparation.fit, *lengths)
                for lengths in zip(sizes, (height, width), sizes[::-1], (width, height), strict=True)
            )

    def restore(self, values: Tensor) -> Iterator[Tensor]:
        """Interpolate values, a band of the image's rows at a time.

        Args:
            values: values for the pixels of the input, float [C, H, W].

        Yields:
            Values for the pixels of the image, [C, rows, width]; NaN for those that were cropped.
        """
        if self._same:
            yield values
            return
        rows, columns = self._rows, self._columns
        wide = torch.lerp(values[..., columns.before], values[..., columns.after], columns.share.to(values.dtype))
        wide[..., ~columns.inside] = torch.nan
        at_once = max(BAND // (wide.shape[0] * wide.shape[2]), 1)
        for start in range(0, len(rows.share), at_once):
            part = slice(start, start + at_once)
            share = rows.share[part].to(values.dtype).unsqueeze(1)
            band = torch.lerp(wide[:, rows.before[part]], wide[:, rows.after[part]], share)
            band[:, ~rows.inside[part]] = torch.nan
            yield band


def _axis(fit: str | None, size: int, length: int, other_size: int, other_length: int) -> _Axis:
    """Find the places of an image's pixels along one side, as Pillow resizes (`ImagePreparation`).

    Args:
        fit: `crop`, `stretch` or `pad`.
        size: length of this side of the input.
        length: length of this side of the image.
        other_size: length of the other side of the input.
        other_length: length of the other side of the image.

    Returns:
        The places.
    """
    centers = torch.arange(length, dtype=torch.float64) + 0.5
    if fit == "crop":
        kept = min(float(length), other_length * size / other_size)
        return _Axis.make(size, (centers - (length - kept) / 2) * (size / kept), 0, size)
    if fit == "pad" and length * other_size < other_length * size:
        filled = round(length / other_length * other_size)
        first = round((size - filled) * 0.5)
        return _Axis.make(size, first + centers * (filled / length), first, first + filled)
    return _Axis.make(size, centers * (size / length), 0, size)


def read_upright_size(path: Path) -> tuple[int, int]:
    """Return height and width of an image after its EXIF orientation.

    Args:
        path: a file that can be read as an image.

    Returns:
        (height, width).
    """
    from PIL import Image

    with Image.open(path, formats=supported_formats()) as file:
        turned = file.getexif().get(ORIENTATION, 1) > 4  # by 90°
        return (file.width, file.height) if turned else (file.height, file.width)
