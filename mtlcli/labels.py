"""Labels that are missing, numbers of labels, and labels for the pixels of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORE_INDEX = -100  # missing label of an integer target; NaN for targets of floats
IGNORE_BYTE = 255  # missing label of a map that is stored in bytes
MAP_TYPES = ("class_map", "binary_map", "real_map", "depth_map", "normal_map")


def is_labelled(target: Tensor) -> Tensor:
    """Mark the labels that are not missing: neither IGNORE_INDEX (integers), nor IGNORE_BYTE (bytes), nor NaN (floats).

    Args:
        target: labels as `TargetSpec` defines them, [N], [N, size], [N, H, W] or [N, size, H, W].

    Returns:
        bool, of the same shape as `target`.
    """
    if target.is_floating_point():
        return target.isnan().logical_not()
    return target != (IGNORE_BYTE if target.element_size() == 1 else IGNORE_INDEX)


def has_label(target: Tensor) -> Tensor:
    """Mark the examples with at least one label that is not missing.

    Args:
        target: labels as `TargetSpec` defines them, [N], [N, size], [N, H, W] or [N, size, H, W].

    Returns:
        bool [N].
    """
    mask = is_labelled(target) if target.ndim < 4 else labelled_pixels(target)
    return mask if mask.ndim == 1 else mask.flatten(1).any(1)


def labelled_pixels(target: Tensor) -> Tensor:
    """Mark the pixels of a map that are labelled: those without a missing channel.

    Args:
        target: labels of pixels, [N, H, W] or [N, size, H, W].

    Returns:
        bool [N, H, W].
    """
    mask = is_labelled(target)
    return mask.all(1) if mask.ndim == 4 else mask


def count_labels(target: Tensor) -> Tensor:
    """Count the labels of each example, by which the mean loss of a batch divides.

    Args:
        target: labels as `TargetSpec` defines them, [N], [N, size], [N, H, W] or [N, size, H, W].

    Returns:
        int64 [N]: of a target with a class for each word or token, the number of labels that are not missing; of a map,
        the number of labelled pixels; otherwise 1 for an example with a label and 0 for others.
    """
    if target.ndim > 2:
        return labelled_pixels(target).flatten(1).sum(1)
    if target.ndim == 2 and not target.is_floating_point():
        return is_labelled(target).sum(1)
    return has_label(target).long()


def expand_map(stored: Tensor, type: str) -> Tensor:  # noqa: A002
    """Convert a map from the form in which it is stored to that of a batch, on its device.

    Args:
        stored: labels of pixels as `TargetSpec` describes their storage, [N, H, W] or [N, size, H, W].
        type: type of the target, of `MAP_TYPES`.

    Returns:
        Of a `class_map` int64, IGNORE_INDEX if missing; otherwise float32, NaN if missing. The shape is that of
        `stored`.
    """
    if stored.is_floating_point():
        return stored.float()
    missing = ~is_labelled(stored)
    if type == "class_map":
        return stored.long().masked_fill(missing, IGNORE_INDEX)
    return stored.float().masked_fill(missing, float("nan"))
