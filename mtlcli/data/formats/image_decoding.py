"""Decoding of image files, and their conversion to inputs of a model.

Pillow decodes all formats. torchvision's decoders give the same pixels of JPEG and WebP in the same time, but they are
deprecated (from version 0.29 on), and warnings of libpng and libjpeg go to stderr.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.errors import ConfigError, MtlError, Problem
from mtlcli.specs import DatasetSpec

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from PIL.Image import Resampling

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
ORIENTATION = 0x0112  # EXIF tag

Indices = NDArray[np.int32]
Fit = Literal["crop", "stretch", "pad"]
Background = Literal["white", "black"]


@dataclass(frozen=True)
class ImagePreparation:
    """Conversion of an image to an input, uint8 [channels, height, width].

    The image is turned upright by its EXIF orientation and converted to 8-bit RGB or grey, then resized (bilinear with
    antialiasing, by Pillow):

    * of 16 bits per channel, the upper 8 are kept;
    * palettes and CMYK are converted by Pillow, without color profiles;
    * grey is (299 R + 587 G + 114 B) / 1000;
    * of an animation or a file with several pages, the first image is read.

    Args:
        channels: 1 for grey, 3 for RGB.
        size: (height, width) of the result; None to keep the size of each image.
        fit: `crop` resizes the largest centred region that has the aspect ratio of `size`; `stretch` resizes the whole
            image, whatever its aspect ratio; `pad` resizes the whole image to fit into `size`, and centres it. None:
            images are not resized, and another size is an error.
        background: color behind transparent pixels and of the padding. None: the color that a file stores for
            transparent pixels, and black.
    """

    channels: Literal[1, 3]
    size: tuple[int, int] | None
    fit: Fit | None = None
    background: Background | None = None

    @classmethod
    def of(cls, spec: DatasetSpec) -> ImagePreparation:
        """Return the preparation that a dataset's specification stores.

        Args:
            spec: specification whose `state` has the key `image`, see `state`.

        Returns:
            The preparation.

        Raises:
            ConfigError: the specification is not one of images, or invalid.
        """
        stored, shape = spec.state.get("image"), spec.input_shape
        if not isinstance(stored, dict) or len(shape) != 3 or shape[0] not in (1, 3):
            raise ConfigError(Problem("is not the specification of images", "state.image"))
        fit, background = stored.get("fit"), stored.get("background")
        if fit not in (None, *get_args(Fit)) or background not in (None, *get_args(Background)):
            raise ConfigError(Problem("is not a valid preparation of images", "state.image"))
        return cls(1 if shape[0] == 1 else 3, (shape[1], shape[2]), fit, background)

    def state(self) -> dict[str, Any]:
        """Return what `of` needs in addition to the shape of the inputs, for the key `image` of a specification."""
        return {"fit": self.fit, "background": self.background}

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(height, width) that every image must have; None if images of any size are accepted."""
        return self.size if self.fit is None else None

    def describe(self) -> str:
        """Describe the conversion in words."""
        color = "RGB" if self.channels == 3 else "grey (Pillow's mode L)"
        behind = f", transparent pixels on {self.background}" if self.background else ""
        if self.fit is None or self.size is None:
            return f"upright by its EXIF tag, converted to {color}{behind}; channels first"
        how = {
            "crop": "cropped at the centre to the aspect ratio, and resized",
            "stretch": "resized",
            "pad": f"padded at the centre with {self.background or 'black'} to the aspect ratio, and resized",
        }[self.fit]
        height, width = self.size
        size = f", {how} to {height} x {width} (bilinear, by Pillow)"
        return f"upright by its EXIF tag, converted to {color}{behind}{size}; channels first"

    def read(self, file: Path | IO[bytes]) -> Tensor:
        """Read an image.

        Args:
            file: path of the file, or its content.

        Returns:
            uint8 [channels, height, width].

        Raises:
            MtlError: the file can't be read as an image, or has another size; without the path.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(file, formats=supported_formats()) as opened:
                check_header(opened)
                image = decode_upright(opened)
                image = self._convert(image)
        except UnidentifiedImageError as error:
            raise MtlError(f"is not an image of the formats {', '.join(supported_formats())}") from error
        except Exception as error:  # Pillow raises various exceptions for invalid files
            raise MtlError(f"can't be read as an image: {describe_os_error(error)}") from error
        return self.finish(image)

    def finish(self, image: PILImage) -> Tensor:
        """Resize an image of the mode of the inputs, and convert it to an input.

        Args:
            image: the image.

        Returns:
            uint8 [channels, height, width].

        Raises:
            MtlError: the image has another size, and images are not resized.
        """
        image = self._resize(image)
        if self.fixed_size is not None and (image.height, image.width) != self.fixed_size:
            height, width = self.fixed_size
            raise MtlError(
                f"has {image.width}×{image.height} pixels, but the first image has {width}×{height}. "
                f"Set the dataset's `size` to resize all images"
            )
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels.unsqueeze(0) if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()

    def _convert(self, image: PILImage) -> PILImage:
        """Convert an image of 8 bits to the mode of the inputs."""
        from PIL import Image

        if self.background is not None and image.has_transparency_data:
            layer = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", layer.size, self.background), layer).convert("RGB")
        mode = "L" if self.channels == 1 else "RGB"
        return image if image.mode == mode else image.convert(mode)

    def find_nearest(self, height: int, width: int) -> Indices:
        """Find the pixel of an image that is the nearest to each pixel of the result.

        Args:
            height: height of the image.
            width: width of the image.

        Returns:
            int32 [H, W]: y * width + x of the nearest pixel; -1 in the padding.
        """
        return _find_nearest(self, height, width)

    def _resize(self, image: PILImage) -> PILImage:
        from PIL import Image

        return _resize(image, self.size, self.fit, Image.Resampling.BILINEAR, self.background or "black")


@lru_cache(maxsize=16)
def _find_nearest(preparation: ImagePreparation, height: int, width: int) -> Indices:
    """Resize an image whose values are the positions of its pixels."""
    from PIL import Image

    positions = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    return np.asarray(_resize(positions, preparation.size, preparation.fit, Image.Resampling.NEAREST, -1))


def _resize(
    image: PILImage, size: tuple[int, int] | None, fit: Fit | None, method: Resampling, padding: str | int
) -> PILImage:
    from PIL import ImageOps

    if fit is None or size is None:
        return image
    if fit == "crop":
        return ImageOps.fit(image, size[::-1], method)
    if fit == "pad":
        return ImageOps.pad(image, size[::-1], method, padding)
    return image.resize(size[::-1], method)


def check_header(file: PILImage) -> None:
    """Check size and mode of an opened image.

    Args:
        file: the image, of which only the header is read.

    Raises:
        ValueError: it has too many pixels or too many bits per pixel.
    """
    if file.width * file.height > MAX_PIXELS:
        raise ValueError(f"{file.width}×{file.height} pixels, but at most {MAX_PIXELS:,} are supported")
    if file.mode.startswith(("I", "F")) and not _has_16_bits(file):
        raise ValueError(f"its pixels have 32 bits (mode {file.mode}), but 8 or 16 are expected")


def _has_16_bits(file: PILImage) -> bool:
    """Return True for a grey image of 16 bits, for which Pillow uses mode I in some formats."""
    return file.mode.startswith("I;16") or (file.mode == "I" and file.format in ("PNG", "PPM"))


def decode_upright(file: PILImage) -> PILImage:
    """Decode an opened file to 8 bits, and turn it upright.

    Args:
        file: the image.

    Returns:
        The image, of any mode of 8 bits.
    """
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(file, in_place=True)
    if not _has_16_bits(file):
        return file
    return Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))


@cache
def supported_formats() -> tuple[str, ...]:
    """Return the formats that are read, by Pillow's names: those of SUFFIXES that this Pillow supports."""
    from PIL import features

    supported = features.get_supported()  # unlike `check`, doesn't warn about names unknown to an older Pillow
    return tuple(name for name in SUFFIXES if name not in OPTIONAL or OPTIONAL[name] in supported)


def supported_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, in lower case."""
    return frozenset(suffix for name in supported_formats() for suffix in SUFFIXES[name])
