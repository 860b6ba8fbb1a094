"""Files with a value for each pixel of an image, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.image_decoding import (
    MAX_PIXELS,
    ORIENTATION,
    SUFFIXES,
    ImagePreparation,
    decode_upright,
    supported_formats,
)
from mtlcli.data.formats.mask_targets import Array, MaskTarget
from mtlcli.errors import MtlError
from mtlcli.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

LOSSLESS = ("BMP", "GIF", "PNG", "PPM", "TIFF")  # other formats change the values
NUMPY = b"\x93NUMPY"


def read_array(path: Path) -> Array:
    """Read an array of NumPy from a file (.npy).

    Args:
        path: the file.

    Returns:
        The array, of integers, floats or truth values.

    Raises:
        MtlError: it is no such file, is truncated, or too large; without the path.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # a header that claims more than the file has fails
    except Exception as error:  # NumPy raises various exceptions for invalid files
        raise MtlError(f"can't be read as an array of NumPy: {describe_os_error(error)}") from error
    if array.dtype.kind not in "biuf":
        raise MtlError(f"is an array of {array.dtype}; expected numbers")
    if array.size > 3 * MAX_PIXELS:
        raise MtlError(f"has {array.size:,} numbers, but at most {3 * MAX_PIXELS:,} are supported")
    return array


def read_values(path: Path, channels: int) -> tuple[Array, bool]:
    """Read a file with a value for each pixel: an array of NumPy, or an image without loss.

    Args:
        path: the file.
        channels: number of values of each pixel, 1 or 3.

    Returns:
        [H, W], or [H, W, 3]; and whether the file is an image. The values of a palette are the positions in it.

    Raises:
        MtlError: the file can't be read, or has another shape; without the path.
    """
    if _begins_with(path, NUMPY) or path.suffix == ".npy":
        return arrange_channels(read_array(path), channels), False
    return _read_image(path, channels), True


def arrange_channels(array: Array, channels: int) -> Array:
    """Bring an array to the form [H, W], or [H, W, 3] for three channels.

    Args:
        array: [H, W], [H, W, C] or [C, H, W].
        channels: the number of channels, C.

    Returns:
        The array.

    Raises:
        MtlError: it has another shape; without the path.
    """
    if array.ndim == 2 and channels == 1:
        return array
    if array.ndim == 3 and array.shape[-1] == channels:
        return array if channels > 1 else array[..., 0]
    if array.ndim == 3 and array.shape[0] == channels:
        return np.moveaxis(array, 0, -1) if channels > 1 else array[0]
    expected = "[H, W]" if channels == 1 else f"[H, W, {channels}] or [{channels}, H, W]"
    raise MtlError(f"is an array {list(array.shape)}; expected {expected}")


def _begins_with(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError as error:
        raise MtlError(f"can't be read: {describe_os_error(error)}") from error


@cache
def _formats() -> tuple[str, ...]:
    return tuple(name for name in supported_formats() if name in LOSSLESS)


def _read_image(path: Path, channels: int) -> Array:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=_formats()) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width}×{file.height} pixels, but at most {MAX_PIXELS:,} are supported")
            ImageOps.exif_transpose(file, in_place=True)
            values = np.asarray(file)
    except UnidentifiedImageError as error:
        lossy = any(path.suffix.lower() in SUFFIXES[name] for name in ("JPEG", "WEBP", "AVIF", "JPEG2000"))
        why = ": their compression changes the values" if lossy else ""
        raise MtlError(
            f"is not an array of NumPy (.npy) or an image of the formats {', '.join(_formats())}{why}"
        ) from error
    except Exception as error:  # Pillow raises various exceptions for invalid files
        raise MtlError(f"can't be read as an image: {describe_os_error(error)}") from error
    if channels == 3:
        if values.ndim != 3 or values.shape[-1] < 3:
            raise MtlError("has one channel; expected three, x, y and z as red, green and blue")
        return values[..., :3]
    if values.ndim == 2:
        return values
    color = values[..., : 3 if values.shape[-1] >= 3 else 1]
    if (color != color[..., :1]).any():
        raise MtlError("is a color image; expected one value for each pixel: grey, or a palette")
    return color[..., 0]


def _upright_size(path: Path, fully: bool) -> tuple[int, int]:
    """Return height and width of an image after its orientation; from the header unless `fully`."""
    from PIL import Image

    with Image.open(path, formats=supported_formats()) as file:
        image: PILImage = decode_upright(file) if fully else file
        turned = not fully and file.format != "PNG" and file.getexif().get(ORIENTATION, 1) > 4  # by 90°
        return (image.width, image.height) if turned else (image.height, image.width)


@dataclass(frozen=True)
class MapFiles:
    """Lazy sequence of maps: item i has the labels of image i, as they are stored.

    A map is resized to the size of the inputs as its image is, to the nearest pixel.

    Args:
        paths: a file for each image.
        images: the images.
        blank: indices of the images without labels, which have no file.
        target: the target.
        preparation: conversion of the images.
        place: function from an index to the place where the file is listed, with which messages begin.
    """

    paths: Sequence[Path]
    images: Sequence[Path]
    blank: frozenset[int]
    target: MaskTarget
    preparation: ImagePreparation
    place: Callable[[int], str] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the maps."""
        assert self.preparation.size is not None
        return self.preparation.size

    @property
    def rule(self) -> str:
        """The files that are accepted, for a cache of those that passed a check."""
        return f"{self.target}\0{self.preparation.fixed_size}"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        if row in self.blank:
            return self.target.missing_map(self.size)
        path = self.paths[row]
        try:
            return self._read(path, self.images[row])
        except MtlError as error:
            place = "" if self.place is None else f"{self.place(row)}: "
            raise MtlError(printable(f"{place}{path}: {error}")) from error

    def _read(self, path: Path, image: Path) -> Tensor:
        values, is_image = read_values(path, self.target.channels)
        size: tuple[int, int] = values.shape[:2]
        if self.preparation.fit is None:
            if size != self.size:
                raise MtlError(f"has {_describe(size)}, but the images have {_describe(self.size)}")
            return self.target.convert(np.array(values), is_image)
        self._check_size(size, image)
        nearest = self.preparation.find_nearest(*size)
        resized = values.reshape(size[0] * size[1], *values.shape[2:])[nearest]
        labels = self.target.convert(resized, is_image)
        if self.preparation.fit == "pad" and (padding := nearest < 0).any():
            outside = self.target.missing_map((1, 1))
            labels[..., torch.from_numpy(padding)] = outside[..., 0]
        return labels

    def _check_size(self, size: tuple[int, int], image: Path) -> None:
        """Check that a map has the aspect ratio of its image, up to the rounding of a smaller size."""
        for fully in (False, True):
            try:
                height, width = _upright_size(image, fully)
            except Exception:  # reading the image will report the fault
                return
            if abs(size[0] * width - size[1] * height) <= max(height, width):
                return
        raise MtlError(f"has {_describe(size)}, but its image {image.name} has {_describe((height, width))}")

    def fault(self, row: int, whole: bool) -> str | None:
        """Check a file.

        Args:
            row: its index.
            whole: whether to read it. Otherwise nothing but its beginning is read.

        Returns:
            The fault in words, or None.
        """
        try:
            if whole or not self._plausible(self.paths[row]):
                self[row]
        except MtlError as error:
            return str(error)
        return None

    def _plausible(self, path: Path) -> bool:
        from PIL import Image

        try:
            if _begins_with(path, NUMPY):
                size = arrange_channels(read_array(path), self.target.channels).shape[:2]
            else:
                with Image.open(path, formats=_formats()) as file:
                    size = (file.height, file.width)
            return self.preparation.fixed_size in (None, size)
        except Exception:  # reading the file will report the fault
            return False

    def present(self) -> MapFiles:
        """Return the maps of the images that have labels."""
        rows = [row for row in range(len(self)) if row not in self.blank]
        place = self.place
        return replace(
            self,
            paths=[self.paths[row] for row in rows],
            images=[self.images[row] for row in rows],
            blank=frozenset(),
            place=None if place is None else lambda row: place(rows[row]),
        )


def _describe(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]} pixels"
