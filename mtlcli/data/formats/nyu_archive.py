"""The labelled images of NYUv2 in the files of Matlab in which they were published."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mtlcli.data.formats.dense_files import DenseSplit
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.mask_targets import Array, MaskTarget
from mtlcli.errors import ConfigError, MtlError

LABELLED = "nyu_depth_v2_labeled.mat"
LABELS = 894  # labels of the pixels, before they are mapped to classes
TOP, LEFT, HEIGHT, WIDTH = 45, 40, 425, 560  # region of the 480×640 pixels in which the depth is known (Gupta et al.)
_OPENED: dict[tuple[int, Path], Any] = {}  # process and file → the file, which a process can't take from another one


@dataclass(frozen=True)
class ArchiveImages:
    """Lazy sequence of the images of a split: item i is uint8 [3, height, width].

    Args:
        file: the file with all images.
        rows: their numbers in it.
        preparation: conversion to the inputs.
    """

    file: Path
    rows: Sequence[int]
    preparation: ImagePreparation

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        from PIL import Image

        pixels = _read(self.file, "images", self.rows[row])  # [3, 640, 480]
        return self.preparation.finish(Image.fromarray(np.ascontiguousarray(_crop(pixels.transpose(2, 1, 0)))))


@dataclass(frozen=True)
class ArchiveMaps:
    """Lazy sequence of the maps of a target, as they are stored.

    Args:
        file: the file with all maps.
        key: their name in it.
        rows: their numbers in it.
        target: the target.
        preparation: conversion of the images.
        classes: label → class, of a target with classes.
    """

    file: Path
    key: str
    rows: Sequence[int]
    target: MaskTarget
    preparation: ImagePreparation
    classes: Array = field(default_factory=lambda: np.arange(0))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        values = _crop(_read(self.file, self.key, self.rows[row]).T)  # [640, 480] in the file
        place = f"{self.file}: image {self.rows[row] + 1} of {self.key!r}"
        try:
            if len(self.classes):
                if int(values.max()) >= len(self.classes):
                    raise MtlError(f"has the label {int(values.max())}; expected 0 to {len(self.classes) - 1}")
                values = self.classes[values]
            if self.preparation.fit is not None:
                nearest = self.preparation.find_nearest(*values.shape)
                values = values.reshape(-1)[nearest]
            return self.target.convert(np.array(values), image=False)
        except MtlError as error:
            raise MtlError(f"{place} {error}") from error


class NyuArchive:
    """The labelled images of NYUv2.

    Args:
        root: folder of the files.
        classes: names of the 40 or 13 classes.

    Raises:
        ConfigError: h5py is not installed, or a file is invalid.
    """

    def __init__(self, root: Path, classes: tuple[str, ...]) -> None:
        self.root, self.names, self.file = root, classes, root / LABELLED
        self.amount = _check(self.file)
        splits = _load_mat(root / "splits.mat", ("trainNdxs", "testNdxs"))
        self.rows = {"train": self._rows(splits["trainNdxs"]), "test": self._rows(splits["testNdxs"])}
        codes = np.append(0, self._mapping("classMapping40.mat", ("mapClass",), LABELS, 40))
        if len(classes) == 13:
            names = ("class13Mapping.mat", "classMapping13.mat")
            found = next((name for name in names if (root / name).exists()), None)
            if found is None:
                raise ConfigError(f"{root}/{names[0]}: doesn't exist; without it, set `classes: 40`")
            codes = np.append(0, self._mapping(found, ("classMapping13", "labels13"), 40, 13))[codes]
        self.codes = codes

    def images(self, preparation: ImagePreparation) -> ArchiveImages:
        """Return the training images with a conversion."""
        return ArchiveImages(self.file, self.rows["train"], preparation)

    def open_splits(self, preparation: ImagePreparation) -> dict[str, DenseSplit]:
        """Return the splits.

        Args:
            preparation: conversion of the images.

        Returns:
            Split → its images and maps.
        """
        values = {value: value - 1 for value in range(1, len(self.names) + 1)}
        segmentation = MaskTarget("segmentation", "classes", self.names, values, (0,))
        size = self.file.stat().st_size
        return {
            split: DenseSplit(
                ArchiveImages(self.file, rows, preparation),
                {
                    "segmentation": ArchiveMaps(self.file, "labels", rows, segmentation, preparation, self.codes),
                    "depth": ArchiveMaps(self.file, "depths", rows, MaskTarget("depth", "depth"), preparation),
                },
                {"image": [f"{row} {size}" for row in rows]},
            )
            for split, rows in self.rows.items()
        }

    def _rows(self, numbers: Array) -> list[int]:
        rows = numbers.reshape(-1)
        if not len(rows) or rows.dtype.kind not in "iuf" or rows.min() < 1 or rows.max() > self.amount:
            raise ConfigError(f"{self.root}/splits.mat: expected numbers of images from 1 to {self.amount}")
        return [int(number) - 1 for number in rows]

    def _mapping(self, name: str, keys: tuple[str, ...], length: int, largest: int) -> Array:
        path = self.root / name
        value = _load_mat(path, keys[:1])[keys[0]]
        try:
            for key in keys[1:]:
                value = value[key][0, 0]
            mapping = np.asarray(value).reshape(-1).astype(np.int64)
        except (ValueError, IndexError, TypeError) as error:
            raise ConfigError(f"{path}: has no {'.'.join(keys)}") from error
        if len(mapping) != length or mapping.min() < 0 or mapping.max() > largest:
            raise ConfigError(f"{path}: expected {length} classes from 0 to {largest} in {'.'.join(keys)}")
        return mapping


def _crop(values: Array) -> Array:
    return values[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]


def _import_h5py() -> Any:
    try:
        return import_module("h5py")
    except ImportError as error:
        raise ConfigError(
            f"{LABELLED} is a file of HDF5, which the library h5py reads; install it: pip install 'mtlcli[nyuv2]'"
        ) from error


def _read(file: Path, key: str, row: int) -> Array:
    """Read a row of a dataset; each process opens the file for itself."""
    where = os.getpid(), file
    try:
        if where not in _OPENED:
            _OPENED[where] = _import_h5py().File(file, "r")
        values: Array = _OPENED[where][key][row]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise MtlError(f"{file}: image {row + 1} of {key!r} can't be read: {error}") from error
    return values


def _check(file: Path) -> int:
    """Return the number of images; ConfigError if the file isn't that of NYUv2."""
    h5py = _import_h5py()
    try:
        with h5py.File(file, "r") as opened:
            shapes = {key: opened[key].shape if key in opened else None for key in ("images", "depths", "labels")}
    except OSError as error:
        raise ConfigError(f"{file}: can't be read as HDF5: {error}") from error
    amount = (shapes["images"] or (0,))[0]
    expected = {"images": (amount, 3, 640, 480), "depths": (amount, 640, 480), "labels": (amount, 640, 480)}
    if not amount or shapes != expected:
        found = ", ".join(f"{key} {'missing' if shape is None else list(shape)}" for key, shape in shapes.items())
        raise ConfigError(
            f"{file}: expected images [N, 3, 640, 480], depths [N, 640, 480] and labels [N, 640, 480], found {found}"
        )
    return int(amount)


def _load_mat(path: Path, keys: Sequence[str]) -> dict[str, Array]:
    """Read arrays of a file of Matlab."""
    from scipy.io.matlab import loadmat

    try:
        content = loadmat(path, variable_names=list(keys))
    except Exception as error:  # SciPy raises various exceptions for invalid files
        raise ConfigError(f"{path}: can't be read as a file of Matlab: {error}") from error
    if missing := [key for key in keys if key not in content]:
        raise ConfigError(f"{path}: has no {missing[0]}")
    return {key: content[key] for key in keys}
