"""Weighted means, counts and areas, for examples with weights.

An example with weight w counts as w equal examples would; an example with weight 0 counts as if it were missing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mean(values: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Compute the weighted mean Σwv / Σw of the values in a mask.

    A value outside the mask gets a gradient of exactly 0, provided that it is finite (0 × ∞ is NaN).

    Args:
        values: values, [B].
        mask: bool, [B], False for missing labels and for weights of 0.
        weight: weights, [B].

    Returns:
        The mean, 0-d; 0 with a zero gradient if the mask is empty.
    """
    weight = weight.masked_fill(~mask, 0.0)
    total = weight.sum()
    return (values.masked_fill(~mask, 0.0) * weight).sum() / torch.where(total > 0, total, 1.0)


def count(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Sum the weights of true and false positives and negatives.

    Args:
        predicted: predicted labels, bool [B, L].
        target: labels, integers [B, L]: 1, 0, or a negative number if missing.
        weight: weights of the examples, [B].

    Returns:
        The sums, float64 [4, L], on the CPU for MPS, which has no float64: true and false positives, true and false
        negatives.
    """
    cells = torch.stack([predicted & (target == 1), predicted & (target == 0), ~predicted & (target == 0),
                         ~predicted & (target == 1)])  # fmt: skip
    device = torch.device("cpu") if weight.device.type == "mps" else weight.device
    return (cells.to(device) * weight.to(device).double().unsqueeze(1)).sum(1)


def weighted_auroc(scores: Tensor, labels: Tensor, weight: Tensor) -> float:
    """Compute the area under the ROC curve, with each pair of examples weighted by the product of their weights.

    Args:
        scores: scores, [N].
        labels: labels, integers [N]: 1, 0, or a negative number for examples to ignore.
        weight: weights of the examples, [N].

    Returns:
        The area; NaN unless both labels occur, or if a labelled score is NaN.
    """
    mask = (labels >= 0) & (weight > 0)
    scores, order = scores[mask].sort()
    if scores.device.type == "mps":
        scores, order, labels, weight, mask = (x.cpu() for x in (scores, order, labels, weight, mask))
    weight = weight[mask][order].double()
    ones = weight * labels[mask][order]
    zeros = weight - ones
    pairs = float(ones.sum() * zeros.sum())
    if not pairs or bool(scores.isnan().any()):
        return float("nan")
    _, group, sizes = torch.unique_consecutive(scores, return_inverse=True, return_counts=True)
    empty = torch.zeros(len(sizes), dtype=torch.float64, device=scores.device)
    ones, zeros = (empty.index_add(0, group, x) for x in (ones, zeros))
    below = zeros.cumsum(0) - zeros
    return float((ones * (below + zeros / 2)).sum()) / pairs
