"""Image files, decoded one at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.errors import MtlError
from mtlcli.specs import DatasetSpec
from mtlcli.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


# Accepted formats, whatever a file's suffix, and their suffixes. By default, Pillow would try all its formats, pass
# PostScript to an interpreter, and accept any bytes as a format without a signature (TGA).
SUFFIXES = {
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx"),
}
OPTIONAL = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # as `PIL.features` calls them
MAX_PIXELS = 50_000_000  # 200 MB during decoding; the header of a file of some kB can claim a thousand times as many
DEEP = ("I", "F")  # prefixes of Pillow's modes of 16 and 32 bits, whose values it would clip at 255


@dataclass(frozen=True)
class ImageFiles:
    """Lazy sequence of images: item i is uint8 [channels, height, width], upright by its EXIF orientation.

    Of an animation or a file with several pages, the first image is read.

    Args:
        paths: the files.
        channels: 1 for grayscale, 3 for RGB.
        size: size × size to which images are resized (bilinear, without preserving the aspect ratio), or None.
        shape: (height, width) that every image must have, or None if `size` is set or the shape is not yet known.
    """

    paths: Sequence[Path]
    channels: Literal[1, 3]
    size: int | None
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Pillow's warnings lack the file's name; they concern faults that are reported here, or harmless ones.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        from PIL import Image, ImageOps, UnidentifiedImageError

        mode = "L" if self.channels == 1 else "RGB"
        try:
            with Image.open(self.paths[row], formats=supported_formats()) as file:
                _check_header(file)
                ImageOps.exif_transpose(file, in_place=True)
                image = file if file.mode == mode else file.convert(mode)
        except UnidentifiedImageError as error:
            raise self._error(row, f"is not an image of the formats {', '.join(supported_formats())}") from error
        except Exception as error:  # Pillow raises various exceptions for invalid files
            raise self._error(row, f"can't be read as an image: {describe_os_error(error)}") from error
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        if self.shape is not None and tuple(pixels.shape[:2]) != self.shape:
            height, width = self.shape
            raise self._error(
                row,
                f"has {pixels.shape[1]}×{pixels.shape[0]} pixels, but the first image has {width}×{height}. "
                f"Set the dataset's `size` to resize all images",
            )
        return pixels.unsqueeze(0) if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

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
                _check_header(file)
                size = file.height, file.width
                # A PNG's EXIF data follow its pixels.
                if file.format != "PNG" and file.getexif().get(0x0112, 1) > 4:  # turned by 90°
                    size = size[1], size[0]
                return self.shape in (None, size) and _is_complete(file, self.paths[row])
        except Exception:  # decoding the file will report the fault
            return False

    def _error(self, row: int, message: str) -> MtlError:
        return MtlError(printable(f"{self.paths[row]}: {message}"))


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


def _check_header(file: PILImage) -> None:
    """ValueError for an image of too many pixels or too many bits per pixel."""
    if file.width * file.height > MAX_PIXELS:
        raise ValueError(f"{file.width}×{file.height} pixels, but at most {MAX_PIXELS:,} are supported")
    if file.mode.startswith(DEEP):
        raise ValueError(f"its pixels have 16 or 32 bits (mode {file.mode}), but 8 are expected")


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


@cache
def supported_formats() -> tuple[str, ...]:
    """Return the formats that are read, by Pillow's names: those of SUFFIXES that this Pillow supports."""
    from PIL import features

    supported = features.get_supported()  # unlike `check`, doesn't warn about names unknown to an older Pillow
    return tuple(name for name in SUFFIXES if name not in OPTIONAL or OPTIONAL[name] in supported)


def supported_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case."""
    return frozenset(suffix for name in supported_formats() for suffix in SUFFIXES[name])
