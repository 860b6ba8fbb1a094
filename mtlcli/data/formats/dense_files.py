"""Files of published datasets with labels for each pixel, which users place by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from mtlcli.data.content_hash import Hashes, hash_named, hash_texts
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import TargetSpec
from mtlcli.text import printable

MAX_LISTED = 10  # missing files that are listed one by one
_NUMBERED = re.compile(r"(0|[1-9][0-9]{0,8})\.npy")


class DenseMaps(Protocol):
    """Lazy maps of a target."""

    @property
    def target(self) -> Any:
        """The target, a `MaskTarget`."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Tensor: ...


class DenseImages(Protocol):
    """Lazy images."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> Tensor: ...


@dataclass(frozen=True)
class DenseSplit:
    """Images and maps of a split.

    Attributes:
        images: the images.
        maps: target → its maps.
        names: `image` or target → name of each file and its size, or whatever else identifies an image.
    """

    images: DenseImages
    maps: Mapping[str, DenseMaps]
    names: Mapping[str, Sequence[str]]

    @cached_property
    def hashes(self) -> Hashes:
        """Hashes of the files by their names and sizes, uint64 [N]."""
        return hash_named({part: hash_texts(list(names)) for part, names in self.names.items()})

    def specs(self) -> dict[str, TargetSpec]:
        """Return the specifications of the targets, without statistics."""
        return {name: maps.target.spec for name, maps in self.maps.items()}


def name_files(root: Path, paths: Sequence[Path]) -> list[str]:
    """Return path below a folder and size of each file.

    Args:
        root: the folder.
        paths: files below it.

    Returns:
        Texts.

    Raises:
        ConfigError: a file can't be accessed.
    """
    try:
        return [f"{path.relative_to(root).as_posix()} {path.stat().st_size}" for path in paths]
    except OSError as error:
        raise ConfigError(printable(f"{error.filename}: {describe_os_error(error)}")) from error


def find_numbered(folder: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """Find the files 0.npy, 1.npy, … of the folders of a split, as many in each.

    Args:
        folder: folder of the split.
        names: folders in it, of which the first has the images.

    Returns:
        Folder → its files, in order.

    Raises:
        ConfigError: files are missing.
    """
    numbers = {name: _list_numbers(folder / name) for name in names}
    images = names[0]
    amount = max(numbers[images], default=-1) + 1
    if not amount:
        raise ConfigError(f"{folder / images}: has no files 0.npy, 1.npy, …")
    faults = []
    for name, found in numbers.items():
        path = folder / name
        lacking = sorted({*range(amount)} - found)
        faults += [
            f"{path}/{number}.npy: doesn't exist, but {images}/{amount - 1 if name == images else number}.npy does"
            for number in lacking
        ]
        if name != images and (further := sorted(found - {*range(amount)})):
            faults.append(
                f"{path}: has {len(found)} files, but {folder / images} has {len(numbers[images])}; {further[0]}.npy "
                f"has no image"
            )
    raise_faults(faults)
    return {name: [folder / name / f"{number}.npy" for number in range(amount)] for name in names}


def _list_numbers(folder: Path) -> set[int]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ConfigError(
            f"{folder}: {describe_os_error(error)}; expected a folder of files 0.npy, 1.npy, …"
        ) from error
    return {int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))}


def require_files(paths: Sequence[Path], why: str) -> None:
    """Check that files exist.

    Args:
        paths: the files.
        why: end of the message about a missing one.

    Raises:
        ConfigError: files are missing; lists the first ones.
    """
    raise_faults([f"{path}: doesn't exist{why}" for path in paths if not path.is_file()])


def raise_faults(faults: Sequence[str]) -> None:
    """Raise a ConfigError with the first faults and the number of further ones, if there are any."""
    if faults:
        more = [f"… and {len(faults) - MAX_LISTED:,} more such files"] if len(faults) > MAX_LISTED else []
        raise ConfigError([Problem(printable(fault)) for fault in [*faults[:MAX_LISTED], *more]])


def sample_rows(hashes: Hashes, amount: int) -> list[int]:
    """Choose images for statistics by their hashes.

    Args:
        hashes: hashes of the images, uint64 [N].
        amount: maximum number of images.

    Returns:
        Positions.
    """
    rows: list[int] = np.argsort(hashes, kind="stable")[:amount].tolist()
    return rows
