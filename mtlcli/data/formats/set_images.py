"""Images in a column of a data set."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from mtlcli.data.content_hash import mix_bits
from mtlcli.data.examples import LazyInputs
from mtlcli.data.formats.image_decoding import ImagePreparation
from mtlcli.data.formats.image_statistics import fixed_statistics, measure_channels, sample_images
from mtlcli.data.formats.images import probe_size
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import ConfigError, MtlError, Problem
from mtlcli.specs import DatasetSpec
from mtlcli.text import printable

MAX_TRIED = 10  # images to read for the image size
Normalization = Literal["fit", "half", "imagenet"]


class MappedCells(Sequence[Any]):
    """Cells of a column of a memory-mapped set.

    Args:
        rows: `datasets.Dataset`, which workers open again rather than receive.
        name: name of the column.
    """

    def __init__(self, rows: Any, name: str) -> None:
        self.rows, self.name = rows.flatten_indices() if rows._indices is not None else rows, name
        self._column: Any = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> Any: ...
    @overload
    def __getitem__(self, row: slice) -> list[Any]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if self._column is None:  # thirty times as fast as an item of the Dataset
            self._column = self.rows.data.column(self.name)
        return self._column[row].to_pylist() if isinstance(row, slice) else self._column[row].as_py()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_column": None}


@dataclass(frozen=True)
class SetImages:
    """Lazy sequence of the images of a data set: item i is uint8 [channels, height, width].

    Args:
        cells: cells of the column, see `read_cell`.
        prepare: conversion to the inputs.
        place: function from an index to the place of its row.
    """

    cells: Sequence[Any]
    prepare: ImagePreparation
    place: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, row: int) -> Tensor:
        try:
            return read_cell(self.cells[row], self.prepare)
        except MtlError as error:
            raise MtlError(printable(f"{self.place(row)}: {error}")) from error


def read_cell(cell: Any, prepare: ImagePreparation) -> Tensor:
    """Decode the image in a cell.

    Args:
        cell: the bytes of a file, the path of a file, or a dict of `bytes` and `path`, one of which may be None.
        prepare: conversion to the inputs.

    Returns:
        uint8 [channels, height, width].

    Raises:
        MtlError: the cell holds no image, or one that can't be read.
    """
    path = None
    if isinstance(cell, dict):
        cell, path = cell.get("bytes"), cell.get("path")
    elif isinstance(cell, str):
        cell, path = None, cell
    if cell is None and path is None:
        raise MtlError("has no image")
    if cell is None and "://" in str(path):  # on the hub, or in an archive
        import fsspec

        try:
            with fsspec.open(path, "rb") as file:
                cell = file.read()
        except Exception as error:  # of any file system
            raise MtlError(f"{path}: can't be read: {error}") from error
    return prepare.read(Path(str(path)) if cell is None else io.BytesIO(cell))


def describe_images(
    spec: DatasetSpec, images: LazyInputs, train: Rows, prepare: ImagePreparation, normalize: Normalization
) -> DatasetSpec:
    """Complete a specification of targets by that of images.

    Args:
        spec: specification of the targets.
        images: the images of the set.
        train: indices of training images.
        prepare: conversion of the images, with their size.
        normalize: see the dataset `images`; `fit` uses up to 200 training images, chosen by a hash of their positions.

    Returns:
        The specification.

    Raises:
        ConfigError: images can't be read.
    """
    assert prepare.size is not None
    if normalize == "fit":
        mean, std = measure_channels(images, train[sample_images(mix_bits(train.astype(np.uint64)))].tolist())
    else:
        mean, std = fixed_statistics(normalize)
    state = {"image": prepare.state(), "dtype": "uint8"}
    shape = (prepare.channels, *prepare.size)
    return replace(spec, input_shape=shape, columns=(), mean=mean, std=std, state=state)


def with_size(images: SetImages, train: Rows) -> SetImages:
    """Give images a size, that of the first readable training image, if they have none.

    Args:
        images: the images.
        train: indices of the training images.

    Returns:
        The images.

    Raises:
        ConfigError: none of the first training images can be read.
    """
    if images.prepare.size is not None:
        return images
    cells = [images.cells[row] for row in train[:MAX_TRIED].tolist()]
    try:
        size = probe_size(replace(images, cells=cells, place=lambda row: images.place(int(train[row]))))
    except MtlError as error:
        raise ConfigError(map(Problem, str(error).splitlines())) from error
    return replace(images, prepare=replace(images.prepare, size=size))


def restore_preparation(stored: DatasetSpec, prepare: ImagePreparation) -> ImagePreparation:
    """Return a checkpoint's preparation of images.

    Args:
        stored: specification stored in the checkpoint.
        prepare: preparation by the options.

    Returns:
        The preparation of the checkpoint.

    Raises:
        ConfigError: the options differ from those of the checkpoint, or it was not trained on images.
    """
    then, now = ImagePreparation.of(stored), prepare
    old, new = then.state(), now.state()
    if changed := [f"`{key}: {old[key] or 'none'}`" for key in old if old[key] != new[key]]:
        raise ConfigError(f"the checkpoint was trained with {' and '.join(changed)}, but these options are changed")
    if then.channels != now.channels or now.size not in (None, then.size):
        shape = "×".join(map(str, stored.input_shape))
        raise ConfigError(f"the checkpoint was trained on images {shape}, but `mode` or `size` is another here")
    return then


@dataclass(frozen=True)
class Decoder:
    """Decodes the images of streamed rows.

    Attributes:
        prepare: conversion to the inputs.
        path: path or id of the data set, for messages.
        split: name of the split, for messages.
    """

    prepare: ImagePreparation
    path: str
    split: str

    def __call__(self, cells: Sequence[Any], numbers: Sequence[int]) -> Tensor:
        """Decode images.

        Args:
            cells: cells of the column.
            numbers: number of each row in the split.

        Returns:
            uint8 [n, channels, height, width].
        """
        images = SetImages(cells, self.prepare, lambda row: f"{self.path}: split {self.split!r}, row {numbers[row]}")
        return torch.stack([images[row] for row in range(len(cells))])
