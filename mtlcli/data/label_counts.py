"""Numbers of labels, by which mean losses divide."""

from __future__ import annotations

from torch import Tensor

from mtlcli.specs import has_label, is_labelled, labelled_pixels


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
