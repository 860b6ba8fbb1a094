"""Numbers of labelled pixels of maps, known on the host, and checks of the labels of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtlcli.data.label_counts import count_labels
from mtlcli.data.samplers.base import Rows
from mtlcli.errors import MtlError
from mtlcli.specs import IGNORE_BYTE, IGNORE_INDEX, TargetSpec, expand_map, is_labelled, labelled_pixels

CHUNK = 32  # maps that are counted at once


@dataclass(frozen=True)
class PixelCounts:
    """Numbers of labelled pixels of n examples.

    Attributes:
        labelled: target → number of labelled pixels, int64 [n].
        classes: target → number of pixels of each class, int64 [n, K]; only for targets whose classes have weights.
    """

    labelled: dict[str, Rows]
    classes: dict[str, Rows]

    def select(self, start: int, stop: int) -> PixelCounts:
        """Return the numbers of the examples [start, stop)."""
        return PixelCounts(
            {target: counts[start:stop] for target, counts in self.labelled.items()},
            {target: counts[start:stop] for target, counts in self.classes.items()},
        )

    def order(self, rows: Rows) -> PixelCounts:
        """Return the numbers of some examples, in the order of `rows`, int64 [amount]."""
        return PixelCounts(
            {target: counts[rows] for target, counts in self.labelled.items()},
            {target: counts[rows] for target, counts in self.classes.items()},
        )


class PixelCounter:
    """Counts the labelled pixels of the maps of a dataset, and checks their labels.

    Args:
        targets: target → its specification.
        weighted: targets whose classes have weights.
    """

    def __init__(self, targets: Mapping[str, TargetSpec], weighted: Sequence[str] = ()) -> None:
        self.targets, self.weighted = targets, weighted

    def count(self, maps: Mapping[str, Tensor], rows: Sequence[int]) -> PixelCounts:
        """Count the labelled pixels of examples.

        Args:
            maps: target → maps as they are stored, [n, …].
            rows: row of each example in the dataset, for messages.

        Returns:
            The numbers.

        Raises:
            MtlError: A label is invalid.
        """
        for target, stored in maps.items():
            if (wrong := find_wrong_label(stored, self.targets[target])) is not None:
                raise MtlError(f"example {rows[wrong[0]]}: a label of target {target!r} is {wrong[1]}")
        return PixelCounts(
            {target: count_labels(stored).cpu().numpy() for target, stored in maps.items()},
            {target: count_classes(maps[target], self.targets[target]).cpu().numpy() for target in self.weighted},
        )

    def count_all(self, maps: Mapping[str, Tensor]) -> PixelCounts:
        """Count the labelled pixels of all examples of a dataset, in chunks.

        Args:
            maps: target → maps as they are stored, [N, …].

        Returns:
            The numbers.
        """
        amount = len(next(iter(maps.values())))
        counts = [
            self.count({target: stored[start : start + CHUNK] for target, stored in maps.items()}, range(start, amount))
            for start in range(0, amount, CHUNK)
        ]
        return PixelCounts(
            {target: np.concatenate([chunk.labelled[target] for chunk in counts]) for target in maps},
            {target: np.concatenate([chunk.classes[target] for chunk in counts]) for target in self.weighted},
        )


def count_classes(maps: Tensor, target: TargetSpec) -> Tensor:
    """Count the pixels of each class.

    Args:
        maps: maps as they are stored, of a target with classes, [n, H, W].
        target: its specification.

    Returns:
        int64 [n, K].
    """
    classes = len(target.class_names)
    codes = maps.flatten(1).long().masked_fill(~is_labelled(maps).flatten(1), classes)
    codes += torch.arange(len(maps), device=maps.device).unsqueeze(1) * (classes + 1)
    counts = torch.bincount(codes.flatten(), minlength=len(maps) * (classes + 1))
    return counts.view(len(maps), classes + 1)[:, :classes]


def weigh_classes(counts: Rows, weights: Tensor) -> NDArray[np.float64]:
    """Compute the sum of the weights of the pixels of each example.

    Args:
        counts: numbers of the pixels of each class, int64 [n, K].
        weights: weights of the classes, [K].

    Returns:
        [n].
    """
    sums: NDArray[np.float64] = (counts * weights.to(torch.float32).double().numpy()).sum(1)
    return sums


def pixel_weights(labels: Tensor, weights: Tensor) -> Tensor:
    """Return the weight of each pixel by its class.

    Args:
        labels: labels of pixels as in a batch, [B, H, W].
        weights: weights of the classes, float32 [K], on the same device.

    Returns:
        float32 [B, H, W]; 0 for a missing label.
    """
    labelled = is_labelled(labels)
    return weights[labels.masked_fill(~labelled, 0).long()].masked_fill(~labelled, 0.0)


def find_wrong_label(maps: Tensor, target: TargetSpec) -> tuple[int, str] | None:
    """Find an invalid label.

    Args:
        maps: maps as they are stored, [n, …].
        target: their specification.

    Returns:
        Position of the example, and the label with the expected values; None if all labels are valid.
    """
    missing = "NaN" if maps.is_floating_point() else str(IGNORE_BYTE if maps.element_size() == 1 else IGNORE_INDEX)
    if target.type in ("class_map", "binary_map"):
        highest = len(target.class_names) - 1
        bad = ((maps < 0) | (maps > highest)) & is_labelled(maps)
        expected = "0 or 1" if target.type == "binary_map" else f"a class from 0 to {highest}"
    elif target.type == "depth_map":
        bad, expected = maps.isinf() | (maps <= 0), "a positive distance"
    elif target.type == "normal_map":
        bad, expected = maps.isinf(), "a vector of finite numbers other than 0"
        bad |= (labelled_pixels(maps) & (maps == 0).all(1)).unsqueeze(1)
    else:
        bad, expected = maps.isinf(), "a finite number"
    if not bool(bad.any()):
        return None
    index = tuple(bad.nonzero()[0].tolist())
    return index[0], f"{maps[index].item():g}; expected {expected}, or {missing} if it is missing"


def expand_maps(maps: Mapping[str, Tensor], targets: Mapping[str, TargetSpec]) -> dict[str, Tensor]:
    """Convert maps from the form in which they are stored to that of a batch.

    Args:
        maps: target → maps, [B, …].
        targets: target → its specification.

    Returns:
        Target → labels of the pixels, [B, H, W] or [B, C, H, W].
    """
    return {target: expand_map(stored, targets[target].type) for target, stored in maps.items()}
