"""Image files, read one at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.image_decoding import ORIENTATION, ImagePreparation, check_header, supported_formats
from mtlcli.errors import MtlError
from mtlcli.specs import DatasetSpec
from mtlcli.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@dataclass(frozen=True)
class ImageFiles:
    """Lazy sequence of images: item i is uint8 [channels, height, width].

    Args:
        paths: the files.
        preparation: conversion to the inputs.
        place: function from an index to the place where the image is listed, such as the row of a table; messages begin
            with it.
    """

    paths: Sequence[Path]
    preparation: ImagePreparation
    place: Callable[[int], str] | None = None

    def __post_init__(self) -> None:
        # Pillow's warnings lack the file's name; they concern faults that are reported here, or harmless ones.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        try:
            return self.preparation.read(self.paths[row])
        except MtlError as error:
            place = "" if self.place is None else f"{self.place(row)}: "
            raise MtlError(printable(f"{place}{self.paths[row]}: {error}")) from error

    @property
    def rule(self) -> str:
        """The images that are accepted, for a cache of those that passed a check."""
        return f"{self.preparation.fixed_size}"

    def fault(self, row: int, whole: bool) -> str | None:
        """Check an image.

        Args:
            row: its index.
            whole: whether to decode it. Otherwise its header and the end of the file are read, and it is decoded only
                if these leave a doubt.

        Returns:
            The fault in words, or None.
        """
        try:
            if whole or not self._plausible(row):
                self[row]
        except MtlError as error:
            return str(error)
        return None

    def _plausible(self, row: int) -> bool:
        from PIL import Image

        try:
            with Image.open(self.paths[row], formats=supported_formats()) as file:
                check_header(file)
                size = file.height, file.width
                # A PNG's EXIF data follow its pixels.
                if file.format != "PNG" and file.getexif().get(ORIENTATION, 1) > 4:  # turned by 90°
                    size = size[1], size[0]
                return self.preparation.fixed_size in (None, size) and _is_complete(file, self.paths[row])
        except Exception:  # decoding the file will report the fault
            return False


@runtime_checkable
class OpensImages(Protocol):
    """A dataset that decodes image files by its own rule, such as resizing; others take files of the inputs' shape."""

    def open_images(self, paths: Sequence[Path], spec: DatasetSpec) -> LazyInputs:
        """Open image files as raw inputs of a trained model, decoded as the dataset decodes its own.

        Args:
            paths: image files; one that can't be read raises an MtlError when it is accessed.
            spec: specification of the dataset, restored from a checkpoint.

        Returns:
            The images, uint8 [*input_shape] each.
        """


def probe_size(files: LazyInputs) -> tuple[int, int]:
    """Return the size of the first readable image.

    Args:
        files: at least one image, of any size.

    Returns:
        (height, width).

    Raises:
        MtlError: no image can be read; lists the faults.
    """
    faults = []
    for row in range(len(files)):
        try:
            _, height, width = files[row].shape
        except MtlError as error:
            faults.append(str(error))
        else:
            return height, width
    raise MtlError("\n".join(faults))


def _is_complete(file: PILImage, path: Path) -> bool:
    """Check that the file is not truncated, as far as its format allows without decoding."""
    with path.open("rb") as raw:
        head = raw.read(8)
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - 512))
        end = raw.read()
    if file.format in ("JPEG", "MPO"):
        return b"\xff\xd9" in end  # cameras append data
    if file.format == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    if file.format == "GIF":
        return end.rstrip(b"\0").endswith(b";")
    if file.format == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    if file.format == "TIFF":
        tags = file.tag_v2  # type: ignore[attr-defined]
        starts, lengths = (tags.get(strips) or tags[tiles] for strips, tiles in ((273, 324), (279, 325)))
        return all(start + length <= size for start, length in zip(starts, lengths, strict=True))
    return False
