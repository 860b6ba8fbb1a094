"""What MNIST and FashionMNIST share: images and labels in IDX files, that can be fetched."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mtlcli.data.base import Dataset, Examples, add_val_split
from mtlcli.data.download.collection import Collection, data_root, ensure_files, suggest_fetch
from mtlcli.data.formats.compressed import describe_error, max_size, open_decompressed
from mtlcli.errors import MtlError
from mtlcli.specs import DatasetSpec, TargetSpec

FILES = {"train": "train", "test": "t10k"}


class IdxImages(Dataset):
    """Base of datasets of 28×28 grey images in 10 classes: inputs uint8 [N, 1, 28, 28], one target of int64 [N].

    name: as registered. target: name of the target. classes: their names. mean, std: of all pixels of the training
    images, in 0…1, as they are commonly given. download: whether missing files are fetched.
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
        data_root(root)  # a folder that can't be is a problem of the configuration, before any file is looked for
        self.root, self.download = root, download

    def describe(self) -> DatasetSpec:
        """Constant: reads no file."""
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
        """Fetches missing files, or raises ConfigError where `download` is false. MtlError for a damaged file."""
        files = ensure_files(self.name, self.collection, self.root, self.download)
        advice = suggest_fetch(self.name, self.root)
        images_at, labels_at = (files[f"{FILES[split]}-{part}-ubyte"] for part in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(images_at, (28, 28), advice), read_idx(labels_at, (), advice)
        if len(labels) == 0:
            raise MtlError(f"{labels_at}: has no examples. {advice}")
        if len(images) != len(labels):
            raise MtlError(f"{labels_at}: {len(labels)} labels, but {len(images)} images in {images_at.name}. {advice}")
        if wrong := (labels >= 10).nonzero()[:1].flatten().tolist():
            raise MtlError(
                f"{labels_at}: label {int(labels[wrong[0]])} of example {wrong[0]} (the first is 0), where there "
                f"are 10 classes, 0 to 9. {advice}"
            )
        return Examples(images.unsqueeze(1), {self.target: labels.to(torch.int64)})


UINT8 = 0x08


def read_idx(path: Path, example: tuple[int, ...], remedy: str) -> Tensor:
    """The uint8 tensor [N, *example] in an IDX file, plain or .gz.

    MtlError, ending in `remedy`, where the file is no IDX file of such examples, or shorter or longer than it says.
    """
    start = bytes([0, 0, UINT8, len(example) + 1]) + struct.pack(f">{len(example)}I", *example)
    try:
        with open_decompressed(path) as file:
            magic, count, shape = file.read(4), file.read(4), file.read(4 * len(example))
            if magic + shape != start or len(count) < 4:
                raise ValueError(
                    f"is no IDX file of uint8 examples of shape {list(example)}: it begins with "
                    f"0x{(magic + count + shape).hex()}, not with 0x{start[:4].hex()}…{start[4:].hex()}"
                )
            (examples,) = struct.unpack(">I", count)
            expected = examples * int(torch.Size(example).numel())
            # Before there is memory for it, so that a damaged header can't ask for terabytes.
            if expected > (room := max_size(path) - len(magic + count + shape)):
                raise ValueError(f"announces {examples} examples, {expected} bytes, and has no more than {room}")
            data = torch.empty(expected, dtype=torch.uint8)
            view = memoryview(data.numpy())  # type: ignore[arg-type]
            while view and (got := file.readinto(view[: 1 << 20])):  # type: ignore[attr-defined]
                view = view[got:]
            if view or file.read(1):
                had = f"{expected - len(view)} bytes" if view else "more"
                raise ValueError(f"announces {examples} examples, {expected} bytes, and has {had}")
    except (OSError, ValueError) as error:
        raise MtlError(f"{path}: {describe_error(error)}. {remedy}") from error
    return data.view(examples, *example)
