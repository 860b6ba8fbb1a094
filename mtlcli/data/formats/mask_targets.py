"""Targets that are files with a label for each pixel, and the conversion of the values in a file to labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.errors import MtlError
from mtlcli.labels import IGNORE_BYTE, IGNORE_INDEX
from mtlcli.specs import TargetSpec

MaskType = Literal["classes", "binary", "real", "depth", "normals"]
Array = NDArray[Any]
TYPES: dict[MaskType, Literal["class_map", "binary_map", "real_map", "depth_map", "normal_map"]] = {
    "classes": "class_map",
    "binary": "binary_map",
    "real": "real_map",
    "depth": "depth_map",
    "normals": "normal_map",
}
MISSING, INVALID = -1, -2  # codes of values that are no class
SHORT = 0.1  # length of a vector of 8 bits per component from which on it is a normal: 0 has none, but rounding does
LONGEST = 1.01  # largest component of a unit vector, with rounding
LISTED = 12  # values that a message lists


@dataclass(frozen=True)
class MaskTarget:
    """A target with a label for each pixel, and the notation of its labels in files.

    Args:
        name: name of the target.
        type: type of the labels.
        classes: names of the classes, or their number; None for types without classes.
        values: value in a file → number of its class; None for 0, 1, …
        ignore: values in a file that mean a missing label.
        others: whether a value that is no class is an error or a missing label.
        scale: divisor of the numbers in a file, see `offset`.
        offset: the label is (number − offset) / scale.
    """

    name: str
    type: MaskType
    classes: tuple[str, ...] | int | None = None
    values: Mapping[int, int] | None = None
    ignore: tuple[int, ...] = ()
    others: Literal["error", "missing"] = "error"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def spec(self) -> TargetSpec:
        """The specification of the target, without statistics."""
        names = self.classes if isinstance(self.classes, tuple) else None
        size = 3 if self.type == "normals" else self.amount if self.type == "classes" else 1
        return TargetSpec(TYPES[self.type], size, names, missing=True)

    @property
    def amount(self) -> int:
        """The number of classes; 2 for a binary target."""
        return self.classes if isinstance(self.classes, int) else len(self.classes or (0, 1))

    @property
    def channels(self) -> int:
        """The number of values of a pixel in a file."""
        return 3 if self.type == "normals" else 1

    @property
    def is_discrete(self) -> bool:
        """True if the labels are classes."""
        return self.type in ("classes", "binary")

    @cached_property
    def _codes(self) -> dict[int, int]:
        """Value in a file → class; a missing label is MISSING."""
        if self.type == "binary":
            codes = {0: 0, 1: 1, 255: 1}
        else:
            codes = dict(self.values) if self.values is not None else {code: code for code in range(self.amount)}
        return codes | dict.fromkeys(self.ignore, MISSING)

    def convert(self, values: Array, image: bool) -> Tensor:
        """Convert the values of a file to labels as they are stored, see `TargetSpec`.

        Args:
            values: [H, W], or [H, W, 3] for normals.
            image: whether the file is an image, in which components of normals are from 0 to 255.

        Returns:
            [H, W], or [3, H, W] for normals.

        Raises:
            MtlError: a value is invalid; without the file.
        """
        if self.is_discrete:
            return self._convert_classes(values)
        if self.type == "normals":
            return self._convert_normals(np.array(np.moveaxis(values, -1, 0), np.float32, order="C"), image)
        labels = values.astype(np.float32)
        missing = np.isnan(labels) | np.isin(values, self.ignore)
        if self.type == "depth":
            missing |= labels == 0
        wrong = np.isinf(labels) & ~missing
        if self.type == "depth":
            wrong |= (labels < 0) & ~missing
        if wrong.any():
            expected = "a distance > 0, or 0" if self.type == "depth" else "a finite number"
            raise MtlError(f"has the value {labels[wrong][0]:g}; expected {expected} or NaN where there is no label")
        labels = (labels - np.float32(self.offset)) / np.float32(self.scale)
        if self.type == "depth":
            missing |= labels == 0
        labels[missing] = np.nan
        return torch.from_numpy(labels)

    def _convert_classes(self, values: Array) -> Tensor:
        if values.dtype.kind == "f":
            with np.errstate(invalid="ignore"):  # of NaN and infinity
                whole = values.astype(np.int64)
            codes = self._look_up(whole)
            codes[whole != values] = INVALID
            codes[np.isnan(values)] = MISSING
        else:
            codes = self._look_up(values)
        if (wrong := codes == INVALID).any():
            raise MtlError(f"has the value {values[wrong][0]:g}; expected {self._expected()}")
        if self.type == "binary" and not {1, 255} & {*self.ignore} and (values == 1).any() and (values == 255).any():
            raise MtlError("has the values 1 and 255; set `ignore: 255` if 255 is a missing label")
        if self.amount <= IGNORE_BYTE:
            return torch.from_numpy(codes.astype(np.uint8))  # MISSING becomes IGNORE_BYTE
        labels = codes.astype(np.int64)
        labels[codes == MISSING] = IGNORE_INDEX
        return torch.from_numpy(labels)

    def _look_up(self, values: Array) -> NDArray[np.int32]:
        """Return the class of each integer, MISSING or INVALID."""
        low, table = self._table
        if values.dtype == np.uint64:
            values = np.minimum(values, np.uint64(2**62))  # larger numbers would become negative
        return np.take(table, values.astype(np.int64) - low, mode="clip")

    @cached_property
    def _table(self) -> tuple[int, NDArray[np.int32]]:
        """The class of each value from the first number on; the ends are those of all values below and above."""
        low, high = min(self._codes) - 1, max(self._codes) + 1
        table = np.full(high - low + 1, MISSING if self.others == "missing" else INVALID, np.int32)
        table[np.array([*self._codes]) - low] = [*self._codes.values()]
        return low, table

    def _expected(self) -> str:
        classes = [value for value, code in self._codes.items() if code != MISSING]
        if self.values is None and self.type == "classes":
            text = f"a class from 0 to {self.amount - 1}"
        else:
            shown = ", ".join(map(str, classes[:LISTED]))
            text = f"one of {shown}{', …' if len(classes) > LISTED else ''}"
        if not self.ignore:
            return f"{text} (the option `ignore` sets values that are missing labels)"
        return f"{text}, or {' or '.join(map(str, self.ignore))} where there is no label"

    def _convert_normals(self, vectors: NDArray[np.float32], image: bool) -> Tensor:
        """Convert vectors [3, H, W]."""
        if image:
            missing = (vectors == 0).all(0)
            vectors *= np.float32(2 / 255)
            vectors -= 1
        squares = np.square(vectors).sum(0)
        if not image:
            missing = np.isnan(squares) & np.isnan(vectors).any(0)
            if (outside := (np.abs(vectors) > LONGEST) & ~missing).any():
                raise MtlError(
                    f"has the component {vectors[outside][0]:g} of a normal; expected from -1 to 1, or three zeros or "
                    f"NaN where there is no label"
                )
        missing |= squares < SHORT**2 if image else squares == 0
        vectors /= np.sqrt(np.where(missing, 1, squares))
        vectors[:, missing] = np.nan
        return torch.from_numpy(vectors)

    def missing_map(self, size: tuple[int, int]) -> Tensor:
        """Return the map of an image without labels, as it is stored.

        Args:
            size: height and width.

        Returns:
            [H, W], or [3, H, W] for normals.
        """
        if not self.is_discrete:
            return torch.full(((3, *size) if self.type == "normals" else size), torch.nan)
        if self.amount <= IGNORE_BYTE:
            return torch.full(size, IGNORE_BYTE, dtype=torch.uint8)
        return torch.full(size, IGNORE_INDEX)
