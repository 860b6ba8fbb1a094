"""What was read from a checkpoint is plain: nothing in it does anything, or is larger than the file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOST_DEPTH = 64
MOST_VALUES = 2**22
SCALARS = {str, int, float, bool, type(None)}


def check_plain(document: Any, size: int) -> None:
    """ValueError, with the place, for anything but dicts with strings or integers for keys, lists, tuples, strings,
    numbers, booleans, None, and dense tensors on the CPU that need no gradient.

    What stands in several places counts as often: ValueError too for more than MOST_VALUES values, for deeper nesting
    than MOST_DEPTH, and for tensors of more bytes than `size`, that of the file.
    """
    _Walk(size).walk(document, ())


class _Walk:
    def __init__(self, size: int) -> None:
        self.room = size
        self.values = 0

    def walk(self, value: Any, path: tuple[Any, ...]) -> None:
        if isinstance(value, Tensor):
            self._tensor(value, path)
            return
        if type(value) not in (dict, list, tuple):
            raise ValueError(f"{_place(path)} is a {type(value).__name__}, and no plain data")
        if len(path) >= MOST_DEPTH:
            raise ValueError(f"{_place(path[:4])} is nested deeper than {MOST_DEPTH} levels")
        self.values += len(value)
        if self.values > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES} values")
        for key, item in value.items() if type(value) is dict else enumerate(value):
            if type(key) not in (str, int):
                raise ValueError(f"{_place(path)} has a key that is neither a string nor an integer")
            if type(item) not in SCALARS:
                self.walk(item, (*path, key))

    def _tensor(self, value: Tensor, path: tuple[Any, ...]) -> None:
        plain = type(value) is Tensor and value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.requires_grad or value._backward_hooks:
            raise ValueError(f"{_place(path)} is a tensor of another kind than a checkpoint's")
        claimed = value.numel() * value.element_size()
        self.room -= claimed
        if claimed > value.untyped_storage().nbytes() or self.room < 0:
            raise ValueError(f"{_place(path)} is a tensor of more bytes than the file has")


def _place(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path)) or "it"
