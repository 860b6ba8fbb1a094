"""Description of targets that are maps, for the report on the data of an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mtlcli.data.base import Examples
from mtlcli.data.label_counts import count_labels
from mtlcli.data.map_counts import CHUNK, count_classes
from mtlcli.specs import TargetSpec, is_labelled

DIGITS = 7  # of float32


def describe_maps(examples: Mapping[str, Examples], name: str, target: TargetSpec) -> dict[str, Any]:
    """Describe the maps of a target.

    Args:
        examples: split → its examples.
        name: name of the target.
        target: its specification.

    Returns:
        `type`; `labels`: the number of images with labelled pixels in each split; `missing`: the share of pixels
        without a label; `pixels`: the number of labelled pixels in each split; for the training images the number of
        pixels of each class, or the range, mean and standard deviation. If the maps are read one at a time, which takes
        a pass over the data, `labels`, `missing` and `pixels` are None.
    """
    if not all(isinstance(of_split.maps[name], Tensor) for of_split in examples.values()):
        return {"type": target.type, "labels": None, "missing": None, "pixels": None}
    images: dict[str, int] = {}
    pixels: dict[str, int] = {}
    total = 0
    for split, of_split in examples.items():
        images[split] = pixels[split] = 0
        for maps in of_split.iterate_maps(name, CHUNK):
            counts = count_labels(maps)
            images[split] += int((counts > 0).sum())
            pixels[split] += int(counts.sum())
            total += len(maps) * math.prod(maps.shape[-2:])
    train = examples.get("train", next(iter(examples.values())))
    distribution = _classes if target.type in ("class_map", "binary_map") else _statistics
    return {
        "type": target.type,
        "labels": images,
        "missing": 1 - sum(pixels.values()) / max(total, 1),
        "pixels": pixels,
        **distribution(train, name, target),
    }


def _classes(train: Examples, name: str, target: TargetSpec) -> dict[str, Any]:
    counts = sum(count_classes(maps, target).sum(0) for maps in train.iterate_maps(name, CHUNK))
    assert isinstance(counts, Tensor)
    return {"classes": dict(zip(target.class_names, counts.tolist(), strict=True))}


def _statistics(train: Examples, name: str, target: TargetSpec) -> dict[str, Any]:
    """Return range, mean and standard deviation of the labels; the latter from the sums of differences from a label."""
    low, high, count, offset = math.inf, -math.inf, 0, 0.0
    sums = torch.zeros(2, dtype=torch.float64)
    for maps in train.iterate_maps(name, CHUNK):
        values = maps[is_labelled(maps)].double()
        if not len(values):
            continue
        offset = offset if count else float(values[0])
        low, high, count = min(low, float(values.min())), max(high, float(values.max())), count + len(values)
        sums += torch.stack([(values - offset).sum(), (values - offset).square().sum()])
    if not count:
        return {"range": [None, None], "mean": None, "std": None}
    mean, square = (sums / count).tolist()
    statistics = (low, high, offset + mean, math.sqrt(max(square - mean * mean, 0.0)))
    low, high, mean, std = (float(f"{statistic:.{DIGITS}g}") for statistic in statistics)
    return {"range": [low, high], "mean": mean, "std": std}
