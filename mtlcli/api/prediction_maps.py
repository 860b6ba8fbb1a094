"""Files with the predictions for the pixels of images: masks, distances and normals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.api.map_options import MapFormat, check_map_folder
from mtlcli.api.prediction_files import OutputColumn
from mtlcli.api.prediction_inputs import Piece
from mtlcli.api.trained_model import Model
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.original_size import OriginalSize, read_upright_size
from mtlcli.errors import MtlError
from mtlcli.labels import IGNORE_BYTE
from mtlcli.plotting import COMPRESSION, class_colors, normal_colors

LOG = logging.getLogger("mtl")
DEPTH_SCALE = 1000.0
MOST = 2**16 - 1  # largest number of a PNG file
NO_CLASS = MOST  # position of a class that isn't predicted, if there are more than 255 classes
GREY = (160, 160, 160)  # of pixels without a prediction, in a palette
Array = NDArray[Any]


class PredictionMaps:
    """Writes a file for each image and each task that predicts a map, in a folder for each task.

    Args:
        folder: folder of the task folders and of the table.
        model: the model.
        alias: alias of the dataset.
        tasks: the tasks that predict maps.
        inputs: files and folders that are predicted; of an image in one of these folders, the file that is written has
            the same path below the task's folder, apart from the suffix.
        form: `png` for classes (8 bits with a palette; 16 bits if there are more than 255), distances (16 bits) and
            normals (RGB); numbers of other kinds are arrays. `npy` for arrays of all of them.
        depth_scale: number in a PNG file for the distance 1.
        probabilities: write an array with the probability of each class too.

    Raises:
        ConfigError: the folder can't be used.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        alias: str,
        tasks: Sequence[str],
        inputs: Sequence[Path],
        form: MapFormat,
        depth_scale: float,
        probabilities: bool,
    ) -> None:
        check_map_folder(folder, tasks, inputs)
        self.folder, self._model, self._form = folder, model, form
        self._scale, self._probabilities = depth_scale, probabilities
        self._parents = [path for path in inputs if path.is_dir()]
        self._preparation = _preparation(model, alias)
        self._used: set[str] = set()  # the list of the images has a name for each of them too
        self._arrays: dict[str, str] = {}
        self._piece: Piece | None = None
        self._places: list[tuple[str, OriginalSize | None]] = []
        self._made: set[Path] = set()
        self._beyond = dict.fromkeys(tasks, 0)

    def make_folder(self) -> Path:
        """Create the folder, unless it exists.

        Returns:
            The folder.

        Raises:
            MtlError: it can't be created.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise MtlError(f"{self.folder}: can't be created: {error.strerror or error}") from error
        return self.folder

    def write(self, task: str, outputs: Tensor, piece: Piece) -> list[OutputColumn]:
        """Write the predictions of a task for some examples.

        Args:
            task: name of the task.
            outputs: raw outputs [B, outputs, H, W], on the CPU.
            piece: the examples.

        Returns:
            The columns with the paths of the files.

        Raises:
            MtlError: a file can't be written.
        """
        if piece is not self._piece:
            self._piece, self._places = piece, self._find_places(piece)
        files: list[str] = []
        of_probabilities: list[str] = []
        for values, (name, original) in zip(outputs, self._places, strict=True):
            labels, probabilities = self._decode(task, values, original)
            files.append(self._save(task, name, labels))
            if probabilities is not None:
                of_probabilities.append(self._save_array(task, f"{name}-probabilities", probabilities))
        columns = [OutputColumn(task, "text", files)]
        if of_probabilities:
            columns.append(OutputColumn(f"{task}[probabilities]", "text", of_probabilities))
        return columns

    def warn(self) -> None:
        """Warn of distances that don't fit the files."""
        for task, pixels in self._beyond.items():
            if pixels:
                LOG.warning(
                    "%s: %s pixels are beyond %g, the largest distance of a 16-bit PNG file at --depth-scale %g, and "
                    "are written as that; --maps npy writes exact distances",
                    task, f"{pixels:,}", MOST / self._scale, self._scale,
                )  # fmt: skip

    def _find_places(self, piece: Piece) -> list[tuple[str, OriginalSize | None]]:
        """Return the name of the files of each example, and the size of its image."""
        files = [Path(file) for file in piece.files]
        return [(self._name(file, row), self._size_of(file)) for file, row in zip(files, piece.rows, strict=True)]

    def _name(self, file: Path, row: int) -> str:
        """Return the path of an example's files below the folder of a task, without a suffix."""
        if file.suffix.lower() == ".npy":
            if str(file) not in self._arrays:
                self._arrays[str(file)] = self._unused(file.stem)
            return self._unused(f"{self._arrays[str(file)]}-{row:06d}")
        parent = next((parent for parent in self._parents if file.is_relative_to(parent)), file.parent)
        return self._unused(file.relative_to(parent).with_suffix("").as_posix())

    def _unused(self, name: str) -> str:
        """Return the name, with a number if another example has it, and remember it."""
        number, unused = 1, name
        while unused.casefold() in self._used:
            number += 1
            unused = f"{name}-{number}"
        self._used.add(unused.casefold())
        return unused

    def _size_of(self, file: Path) -> OriginalSize | None:
        if self._preparation is None or file.suffix.lower() == ".npy":
            return None
        return OriginalSize(self._preparation, *read_upright_size(file))

    def _decode(self, task: str, outputs: Tensor, original: OriginalSize | None) -> tuple[Array, Array | None]:
        """Return predictions and probabilities in the size of the image."""
        kind = self._model.kinds[task]
        labels: list[Tensor] = []
        probabilities: list[Tensor] = []
        for band in [outputs] if original is None else original.restore(outputs.float()):
            decoded = kind.decode(band.unsqueeze(0))
            assert isinstance(decoded.labels, Tensor)
            labels.append(decoded.labels[0])
            if self._probabilities and decoded.probabilities is not None:
                probabilities.append(decoded.probabilities[0])
        joined = torch.cat(labels, -2).numpy()
        return joined, torch.cat(probabilities, -2).numpy() if probabilities else None

    def _save(self, task: str, name: str, labels: Array) -> str:
        """Write predictions in the form of their type, and return the path of the file."""
        target = self._model.kinds[task].target
        discrete = target.type in ("class_map", "binary_map")
        if discrete:
            size = len(target.class_names)
            missing, dtype = (IGNORE_BYTE, np.uint8) if size <= IGNORE_BYTE else (NO_CLASS, np.uint16)
            labels = np.where(labels < 0, missing, labels).astype(dtype)
        if self._form == "npy" or target.type == "real_map":
            return self._save_array(task, name, labels if discrete else labels.astype(np.float32))
        palette = None
        if target.type == "depth_map":
            labels = self._distances(task, labels)
        elif target.type == "normal_map":
            labels = normal_colors(labels)
        elif labels.dtype == np.uint8:
            palette = _palette(len(target.class_names), target.type == "binary_map")
        return self._save_image(task, name, labels, palette)

    def _distances(self, task: str, labels: Array) -> Array:
        """Return distances as integers from 1 to `MOST`, and 0 for a missing one."""
        missing = np.isnan(labels)
        scaled = np.rint(np.where(missing, 1, labels.astype(np.float64) * self._scale))
        self._beyond[task] += int((scaled > MOST).sum())
        return np.where(missing, 0, scaled.clip(1, MOST)).astype(np.uint16)

    def _save_array(self, task: str, name: str, values: Array) -> str:
        path = self._path(task, f"{name}.npy")
        try:
            np.save(path, np.ascontiguousarray(values))
        except OSError as error:
            raise MtlError(f"{path}: can't be written: {error.strerror or error}") from error
        return str(path)

    def _save_image(self, task: str, name: str, pixels: Array, palette: Array | None) -> str:
        from PIL import Image

        path = self._path(task, f"{name}.png")
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if palette is not None:
            image.putpalette(palette.tobytes())
        try:
            image.save(path, compress_level=COMPRESSION)
        except OSError as error:
            raise MtlError(f"{path}: can't be written: {error.strerror or error}") from error
        return str(path)

    def _path(self, task: str, name: str) -> Path:
        """Return the path of a file, and create its folder."""
        path = self.folder / task / name
        if path.parent not in self._made:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise MtlError(f"{path.parent}: can't be created: {error.strerror or error}") from error
            self._made.add(path.parent)
        return path


def _palette(size: int, binary: bool) -> Array:
    """Return the colors of 256 positions, uint8 [256, 3]."""
    colors = np.full((IGNORE_BYTE + 1, 3), GREY, np.uint8)
    colors[:size] = [[0] * 3, [255] * 3] if binary else class_colors(size)
    return colors


def _preparation(model: Model, alias: str) -> ImagePreparation | None:
    """Return how a dataset resizes images; None if it takes images of one size, or resizes in its own way."""
    spec = model.specs[alias]
    if not isinstance(spec.state.get("image"), dict):
        return None
    preparation = ImagePreparation.of(spec)
    return None if preparation.fit is None else preparation
