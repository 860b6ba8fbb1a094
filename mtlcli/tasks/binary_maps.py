"""Metrics of a 0/1 label for each pixel of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlcli.specs import at_least_float32, is_labelled
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, in_float64
from mtlcli.tasks.pixels import count_codes

MOST_LOGIT = 16.0  # larger logits are in the last bin
BINS = 8192  # of the histogram of logits, 1/256 each


class BinaryMapColumns:
    """Numbers of each image from which the metrics of a 0/1 label for each pixel are computed.

    Args:
        logits: logits of the positive class, [B, H, W].
        target: labels, 0/1 [B, H, W]; NaN if missing.
        inverted: whether 0 is the positive class.
    """

    def __init__(self, logits: Tensor, target: Tensor, inverted: bool) -> None:
        self._logits, self._mask = at_least_float32(logits).flatten(1), is_labelled(target).flatten(1)
        self._positive = (target == (0 if inverted else 1)).flatten(1)

    def labelled(self) -> Tensor:
        """Return the mask of the images with a labelled pixel, bool [B]."""
        return self._mask.any(1)

    def outcomes(self) -> Tensor:
        """Count true positives, false negatives, false positives and true negatives, int64 [B, 4].

        A NaN counts as the wrong prediction, whatever the label.
        """
        predicted = torch.where(self._logits.isnan(), ~self._positive, self._logits > 0)
        codes = 2 * (~self._positive).long() + (predicted != self._positive).long()
        counts = count_codes(codes, self._mask, 4)  # tp, fn, tn, fp
        return counts[:, [0, 1, 3, 2]]

    def histogram(self) -> Tensor:
        """Count the pixels by label (0, 1) and bin of the logit, int64 [B, 2, BINS + 1]; the last bin is for NaN."""
        places = ((self._logits + MOST_LOGIT) * (BINS / (2 * MOST_LOGIT))).clamp(0, BINS - 1)
        places = places.nan_to_num(nan=BINS).long()
        counts = count_codes(self._positive.long() * (BINS + 1) + places, self._mask, 2 * (BINS + 1))
        return counts.view(-1, 2, BINS + 1)

    def log_loss(self) -> Tensor:
        """Return the sum of −log p of the labels, float64 [B]."""
        signs = torch.where(self._positive, 1.0, -1.0)
        return in_float64(-F.logsigmoid(signs * self._logits)).masked_fill(~self._mask, 0.0).sum(1)


def _of_counts(score: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[[Collected], Tensor]:
    """Make a metric of the numbers of true positives, false negatives, false positives and true negatives."""
    return lambda sums: score(*sums["outcomes"].double().unbind())


def _share(part: Tensor, whole: Tensor, pixels: Tensor) -> Tensor:
    """Divide; 0/0 is 0 if any pixel is labelled."""
    return torch.where(pixels > 0, (part / whole).nan_to_num(nan=0.0), torch.nan)


def _falling(sums: Collected) -> tuple[Tensor, Tensor]:
    """Return the numbers of zeros and ones by bin, from the largest logit on, float64 [BINS]; NaN if a logit is."""
    counts = sums["histogram"].double()
    undefined = torch.nan if bool(counts[:, -1].any()) else 0.0
    zeros, ones = counts[:, :-1].flip(1) + undefined
    return zeros, ones


def auroc(sums: Collected) -> Tensor:
    """Compute the area under the ROC curve; two pixels with logits in the same bin count as a tie."""
    zeros, ones = _falling(sums)
    return (ones * (zeros.sum() - zeros.cumsum(0) + zeros / 2)).sum() / (ones.sum() * zeros.sum())


def average_precision(sums: Collected) -> Tensor:
    """Compute the average precision Σ (R_n − R_{n−1}) P_n over the bins; NaN if no pixel is labelled 1."""
    zeros, ones = _falling(sums)
    right = ones.cumsum(0)
    precision = right / (right + zeros.cumsum(0))
    return (ones * precision.masked_fill(ones == 0, 0.0)).sum() / ones.sum()


def max_f1(sums: Collected) -> Tensor:
    """Compute the largest F1 score of any threshold for the logit, the same for all images; NaN without a label 1."""
    zeros, ones = _falling(sums)
    right = ones.cumsum(0)
    return (2 * right / (right + zeros.cumsum(0) + ones.sum())).max() if bool(ones.sum() != 0) else ones.sum() / 0


def log_loss(sums: Collected) -> Tensor:
    """Compute the mean of −log p of the labels."""
    return sums["log_loss"] / sums["outcomes"].double().sum()


COUNTS, RANKS = ("outcomes",), ("histogram",)
BINARY_MAP_METRICS: dict[str, CollectedMetric] = {
    "accuracy": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: (tp + tn) / (tp + fn + fp + tn))
    ),
    "auroc": CollectedMetric("max", RANKS, auroc),
    "f1": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: _share(2 * tp, 2 * tp + fn + fp, tp + fn + fp + tn))
    ),
    "iou": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: _share(tp, tp + fn + fp, tp + fn + fp + tn))
    ),
    "precision": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: _share(tp, tp + fp, tp + fn + fp + tn))
    ),
    "recall": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: _share(tp, tp + fn, tp + fn + fp + tn))
    ),
    "balanced_accuracy": CollectedMetric(
        "max", COUNTS, _of_counts(lambda tp, fn, fp, tn: torch.stack([tp / (tp + fn), tn / (tn + fp)]).nanmean())
    ),
    "average_precision": CollectedMetric("max", RANKS, average_precision),
    "max_f1": CollectedMetric("max", RANKS, max_f1),
    "log_loss": CollectedMetric("min", ("outcomes", "log_loss"), log_loss),
}  # fmt: skip
"""Metrics of the positive class, over all labelled pixels of a split."""

ONLY_MAPS = {name: BINARY_MAP_METRICS[name] for name in ("iou", "max_f1")}
"""Those that only maps have."""
