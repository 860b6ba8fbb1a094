"""Images in arrays of NumPy (.npy), read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.map_files import arrange_channels, read_array
from mtlcli.data.formats.mask_targets import Array
from mtlcli.errors import MtlError
from mtlcli.text import printable

ROUNDING = 0.01  # by which values that were interpolated may exceed the range


def to_pixels(array: Array) -> Array:
    """Convert the values of an image to 8 bits.

    Args:
        array: floats from 0 to 1, rounded to multiples of 1/255, or uint8; of any shape.

    Returns:
        uint8, of the same shape.

    Raises:
        MtlError: a value is out of range, or the type is another one; without the file.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise MtlError(f"is an array of {array.dtype}; expected an image of floats from 0 to 1 or of uint8")
    outside = array[~((array >= -ROUNDING) & (array <= 1 + ROUNDING))]
    if outside.size:
        raise MtlError(f"has the value {outside[0]:g}; expected an image of floats from 0 to 1 or of uint8")
    return (array.clip(0, 1) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class ArrayImages:
    """Lazy sequence of images: item i is uint8 [3, height, width].

    Args:
        paths: the files, arrays [H, W, 3] or [3, H, W] each.
        preparation: conversion to the inputs.
    """

    paths: Sequence[Path]
    preparation: ImagePreparation

    @property
    def rule(self) -> str:
        """The files that are accepted, for a cache of those that passed a check."""
        return f"array {self.preparation.fixed_size}"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        from PIL import Image

        try:
            array = arrange_channels(read_array(self.paths[row]), 3)
            return self.preparation.finish(Image.fromarray(np.ascontiguousarray(to_pixels(array))))
        except MtlError as error:
            raise MtlError(printable(f"{self.paths[row]}: {error}")) from error

    def fault(self, row: int, whole: bool) -> str | None:
        """Check a file.

        Args:
            row: its index.
            whole: whether to read it. Otherwise nothing but its beginning is read.

        Returns:
            The fault in words, or None.
        """
        try:
            array = arrange_channels(read_array(self.paths[row]), 3)
        except MtlError as error:
            return printable(f"{self.paths[row]}: {error}")
        if not whole and self.preparation.fixed_size in (None, array.shape[:2]):
            return None
        try:
            self[row]
        except MtlError as error:
            return str(error)
        return None
