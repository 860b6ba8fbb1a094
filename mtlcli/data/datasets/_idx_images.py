"""Base class of MNIST and Fashion-MNIST: images and labels in downloadable IDX files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.download.collection import Collection, data_root, ensure_files, suggest_fetch
from mtlcli.data.formats.compressed import describe_os_error, max_size, open_decompressed
from mtlcli.errors import MtlError
from mtlcli.specs import DatasetSpec, TargetSpec

FILES = {"train": "train", "test": "t10k"}


class IdxImages(Dataset):
    """Base class of datasets of grayscale images of 28×28 in 10 classes.

    Inputs are uint8 [N, 1, 28, 28]; the target is int64 [N].

    Args:
        root: path of the data root, see `data_root`.
        download: whether to download missing files.
        val: share of the training images that becomes the split `val`, drawn by seed.
        augment: transforms of `torchvision.transforms.v2` by name.

    Attributes:
        name: name in the registry.
        target: name of the target.
        classes: names of the classes.
        mean: mean of all pixels of the training images, in 0…1, as commonly reported.
        std: their standard deviation.
        collection: the files.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    mean: ClassVar[float]
    std: ClassVar[float]
    collection: ClassVar[Collection]
    fixed = True

    value_range = (0, 255)

    def __init__(
        self, *, root: str | None, download: bool, val: float, augment: list[str | dict[str, Any]] | None
    ) -> None:
        super().__init__(val=val, augment=augment)
        data_root(root)  # reports an invalid path as an error of the configuration
        self.root, self.download = root, download

    def describe(self) -> DatasetSpec:
        """Return the constant specification, without reading a file."""
        return DatasetSpec(
            input_shape=(1, 28, 28),
            targets={self.target: TargetSpec("classes", 10, self.classes)},
            main_target=self.target,
            splits=add_val_split(self.own_splits(), self.val),
            mean=(self.mean * 255,),
            std=(self.std * 255,),
            state={},
        )

    def read(self, split: str) -> Examples:
        """Read a split, downloading missing files.

        Raises a ConfigError if files are missing and `download` is False.

        Args:
            split: `train` or `test`.

        Returns:
            The examples.

        Raises:
            MtlError: a file is damaged, or can't be downloaded.
        """
        files = ensure_files(self.name, self.collection, self.root, self.download)
        advice = suggest_fetch(self.name, self.root)
        images_at, labels_at = (files[f"{FILES[split]}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(images_at, (28, 28), advice), read_idx(labels_at, (), advice)
        if len(labels) == 0:
            raise MtlError(f"{labels_at}: contains no examples. {advice}")
        if len(images) != len(labels):
            raise MtlError(f"{labels_at}: {len(labels)} labels, but {len(images)} images in {images_at.name}. {advice}")
        if wrong := (labels >= 10).nonzero()[:1].flatten().tolist():
            raise MtlError(
                f"{labels_at}: label {int(labels[wrong[0]])} of example {wrong[0]} (counted from 0) is not one of the "
                f"10 classes, 0 to 9. {advice}"
            )
        return Examples(images.unsqueeze(1), {self.target: labels.to(torch.int64)})


UINT8 = 0x08


def read_idx(path: Path, example: tuple[int, ...], remedy: str) -> Tensor:
    """Read an IDX file, plain or .gz.

    Args:
        path: the file.
        example: shape of one example.
        remedy: last sentence of error messages.

    Returns:
        uint8 [N, *example].

    Raises:
        MtlError: the file is not an IDX file of such examples, or its length differs from the one in its header.
    """
    try:
        return _parse_idx(path, example)
    except (OSError, ValueError) as error:
        raise MtlError(f"{path}: {describe_os_error(error)}. {remedy}") from error


def _parse_idx(path: Path, example: tuple[int, ...]) -> Tensor:
    start = bytes([0, 0, UINT8, len(example) + 1]) + struct.pack(f">{len(example)}I", *example)
    with open_decompressed(path) as file:
        magic, count, shape = file.read(4), file.read(4), file.read(4 * len(example))
        if magic + shape != start or len(count) < 4:
            raise ValueError(
                f"is not an IDX file of uint8 examples of shape {list(example)}: it begins with "
                f"0x{(magic + count + shape).hex()}, not with 0x{start[:4].hex()}…{start[4:].hex()}"
            )
        (examples,) = struct.unpack(">I", count)
        expected = examples * int(torch.Size(example).numel())
        # Checked before allocating memory, so that a damaged header can't request terabytes.
        if expected > (limit := max_size(path) - len(magic + count + shape)):
            raise ValueError(f"its header gives {examples} examples, {expected} bytes; it has at most {limit}")
        data = torch.empty(expected, dtype=torch.uint8)
        view = memoryview(data.numpy())  # type: ignore[arg-type]
        while view and (size := file.readinto(view[: 1 << 20])):  # type: ignore[attr-defined]
            view = view[size:]
        if view or file.read(1):
            actual = f"{expected - len(view)} bytes" if view else "more"
            raise ValueError(f"its header gives {examples} examples, {expected} bytes; it has {actual}")
    return data.view(examples, *example)
