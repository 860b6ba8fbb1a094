"""Images in files, read one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtlcli.errors import MtlError

# Those of torchvision's ImageFolder.
SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class ImageFiles:
    """`files[i]` is image i as uint8 [channels, height, width], upright.

    shape: (height, width) that every image has, or None where `size` makes it so: the images are then resized to
    size × size (bilinear, their proportions are not kept). MtlError for a file that is no image or of another size.
    """

    paths: Sequence[Path]
    channels: Literal[1, 3]
    size: int | None
    shape: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Tensor:
        from PIL import Image, ImageOps

        path = self.paths[row]
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file).convert("L" if self.channels == 1 else "RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise MtlError(f"{path}: can't be read as an image: {error}") from error
        if self.size is not None:
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        if self.shape is not None and tuple(pixels.shape[:2]) != self.shape:
            height, width = self.shape
            raise MtlError(
                f"{path}: is {pixels.shape[1]}×{pixels.shape[0]} pixels, where the first image has {width}×{height}. "
                f"Set the dataset's `size` to have all of them resized"
            )
        return pixels.unsqueeze(0) if self.channels == 1 else pixels.permute(2, 0, 1).contiguous()


def image_paths(folder: Path) -> list[Path]:
    """The image files in `folder` and below, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
