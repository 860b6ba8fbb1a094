"""Labels of pixels passed from Python: the type of a target, by a stated rule, and its encoding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from mtlcli.data.examples import Examples, LazyInputs
from mtlcli.data.map_counts import CHUNK
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX, TargetSpec, is_labelled

MapType = Literal["class_map", "binary_map", "real_map", "depth_map", "normal_map"]


def fit_python_map(
    maps: Tensor | LazyInputs, name: str, declared: str | None, classes: Sequence[str] | None
) -> TargetSpec:
    """Determine the type and the size of a target.

    Booleans are a `binary_map`, integers a `class_map`, floats a `real_map`.

    Args:
        maps: labels of pixels of the training examples, see `as_maps`.
        name: Name of the target.
        declared: Type that the configuration sets; None to infer it.
        classes: Names of the classes that the configuration sets.

    Returns:
        The specification, without `missing` and statistics.

    Raises:
        ConfigError: The labels don't fit the type.
    """
    first = maps[0]
    if declared is not None and not declared.endswith("_map"):
        raise ConfigError(f"target {name!r} has labels for each pixel, so its type can't be {declared!r}")
    inferred = "real_map" if first.is_floating_point() else "binary_map" if first.dtype == torch.bool else "class_map"
    type_ = declared or inferred
    channels = 1 if first.ndim == 2 else len(first)
    if classes is not None and type_ != "class_map":
        raise ConfigError(f"`classes` names those of target {name!r}, which is of the type {type_!r} and has none")
    if channels != {"normal_map": 3, "real_map": channels}.get(type_, 1):
        wanted = "[N, 3, H, W]" if type_ == "normal_map" else "[N, H, W]"
        raise ConfigError(f"target {name!r} is a {type_}, so its maps are {wanted}, not {['N', *first.shape]}")
    if type_ == "binary_map":
        return TargetSpec("binary_map")
    if type_ == "depth_map":
        return TargetSpec("depth_map")
    if type_ == "normal_map":
        return TargetSpec("normal_map", 3)
    if type_ == "real_map":
        return TargetSpec("real_map", channels)
    if first.is_floating_point():
        raise ConfigError(f"target {name!r} is a class_map, so its labels are integers, not {first.dtype}")
    size = len(classes) if classes is not None else 1 + max(_largest_class(chunk) for chunk in _chunks(maps))
    if size < 2:
        raise ConfigError(f"target {name!r} has no class but 0 in the training examples")
    names = None if classes is None else tuple(classes)
    if names is not None and len(set(names)) != size:
        raise ConfigError(f"`classes` has {len(set(names))} different names for the {size} labels of target {name!r}")
    return TargetSpec("class_map", size, names)


def encode_python_map(maps: Tensor | LazyInputs, name: str, target: TargetSpec) -> Tensor | LazyInputs:
    """Encode labels of pixels as `TargetSpec` defines their storage.

    Args:
        maps: labels of pixels, see `as_maps`.
        name: Name of the target.
        target: Its specification.

    Returns:
        The maps; lazy if they were.
    """
    return encode(maps, name, target) if isinstance(maps, Tensor) else EncodedMaps(maps, name, target)


class EncodedMaps:
    """Maps that are read one at a time, and then encoded.

    Args:
        maps: the maps, see `as_maps`.
        name: name of the target.
        target: its specification.
    """

    def __init__(self, maps: LazyInputs, name: str, target: TargetSpec) -> None:
        self.maps, self.name, self.target = maps, name, target

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, row: int) -> Tensor:
        return encode(self.maps[row].unsqueeze(0), self.name, self.target, row)[0]


def encode(maps: Tensor, name: str, target: TargetSpec, row: int = 0) -> Tensor:
    """Encode maps in memory.

    Args:
        maps: labels of pixels, [n, H, W] or [n, C, H, W].
        name: Name of the target.
        target: Its specification.
        row: Number of the first example, for messages.

    Returns:
        The maps as they are stored.

    Raises:
        ConfigError: A label is none of the target's.
    """
    if target.type not in ("class_map", "binary_map"):
        floats = maps if maps.is_floating_point() else maps.float()
        if target.type == "depth_map":
            return floats.masked_fill(floats <= 0, math.nan)
        if target.type == "normal_map":
            return floats.masked_fill((floats == 0).all(1, keepdim=True), math.nan)
        return floats
    size = len(target.class_names)
    missing = maps.isnan() if maps.is_floating_point() else (maps == IGNORE_INDEX)
    if size <= IGNORE_BYTE:
        missing |= maps == IGNORE_BYTE
    wrong = ~missing & ((maps < 0) | (maps >= size) | (maps != maps.long()))
    if bool(wrong.any()):
        index = tuple(wrong.nonzero()[0].tolist())
        expected = f"0 to {size - 1}, or {IGNORE_BYTE} or {IGNORE_INDEX} for a missing one"
        raise ConfigError(f"target {name!r} has the label {maps[index].item():g} in example {row + index[0]}; "
                          f"expected {expected}")  # fmt: skip
    if size <= IGNORE_BYTE:
        return maps.masked_fill(missing, 0).to(torch.uint8).masked_fill(missing, IGNORE_BYTE)
    return maps.long()


def compute_map_statistics(name: str, train: Examples) -> tuple[float, float]:
    """Compute the mean and standard deviation of the labels of a map of numbers.

    Args:
        name: Name of the target.
        train: The training examples.

    Returns:
        Mean and standard deviation over the labelled pixels.

    Raises:
        ConfigError: No pixel is labelled.
    """
    count, total, squares = 0, 0.0, 0.0
    for maps in train.iterate_maps(name, CHUNK):
        values = maps[is_labelled(maps)].double()
        count, total, squares = count + len(values), total + float(values.sum()), squares + float(values.square().sum())
    if not count:
        raise ConfigError(f"target {name!r} has no label in the training examples")
    mean = total / count
    return mean, math.sqrt(max(squares / count - mean * mean, 0.0))


def has_missing_pixels(maps: Tensor | LazyInputs) -> bool:
    """Return whether the label of a pixel is missing in stored maps; True for maps that are read one at a time."""
    if not isinstance(maps, Tensor):
        return True
    return not all(bool(is_labelled(chunk).all()) for chunk in torch.split(maps, CHUNK))


def _chunks(maps: Tensor | LazyInputs) -> Iterator[Tensor]:
    if isinstance(maps, Tensor):
        yield from torch.split(maps, CHUNK)
    else:
        yield from (maps[row] for row in range(len(maps)))


def _largest_class(maps: Tensor) -> int:
    """Return the largest class, without IGNORE_BYTE unless there are larger ones; -1 if all labels are missing."""
    largest = int(maps.max())
    if largest != IGNORE_BYTE:
        return largest if largest >= 0 else -1
    classes = maps[maps != IGNORE_BYTE]
    return int(classes.max()) if len(classes) and int(classes.max()) >= 0 else -1
