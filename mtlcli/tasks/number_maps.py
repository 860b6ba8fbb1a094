"""Metrics of numbers for each pixel of an image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtlcli.specs import labelled_pixels
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, in_float64

EPSILON = torch.finfo(torch.float64).eps  # smallest denominator of a relative error, as for numbers of examples
RESOLUTION = 1e-12  # share of Σ(y − c)² below which Σ(y − ȳ)² is a rounding error


class NumberMapColumns:
    """Sums over the labelled pixels of each image from which the metrics of numbers are computed.

    Args:
        prediction: predictions in the target's units, [B, C, H, W].
        target: labels, [B, H, W] or [B, C, H, W]; NaN if missing.
        offset: a number near the labels, which is subtracted before they are squared.
    """

    def __init__(self, prediction: Tensor, target: Tensor, offset: float) -> None:
        self._pixels = labelled_pixels(target).flatten(1)
        outside = ~self._pixels.unsqueeze(1)
        labels = in_float64(target).view(len(target), prediction.shape[1], -1)
        self._error = (in_float64(prediction).flatten(2) - labels).masked_fill(outside, 0.0)
        self._shifted = (labels - offset).masked_fill(outside, 0.0)
        self._labels = labels

    def labelled(self) -> Tensor:
        """Return the mask of the images with a labelled pixel, bool [B]."""
        return self._pixels.any(1)

    def pixels(self) -> Tensor:
        """Return the numbers of pixels, int64 [B]."""
        return self._pixels.sum(1)

    def absolute(self) -> Tensor:
        """Return Σ|ŷ − y| of each channel, [B, C]."""
        return self._error.abs().sum(2)

    def squared(self) -> Tensor:
        """Return Σ(ŷ − y)² of each channel, [B, C]."""
        return self._error.square().sum(2)

    def relative(self) -> Tensor:
        """Return Σ|ŷ − y| / |y| of each channel, [B, C]."""
        shares = self._error.abs() / self._labels.abs().clamp(min=EPSILON)
        return shares.masked_fill(~self._pixels.unsqueeze(1), 0.0).sum(2)

    def shifted(self) -> Tensor:
        """Return Σ(y − offset) of each channel, [B, C]."""
        return self._shifted.sum(2)

    def shifted_squares(self) -> Tensor:
        """Return Σ(y − offset)² of each channel, [B, C]."""
        return self._shifted.square().sum(2)


def _mean(column: str) -> Callable[[Collected], Tensor]:
    """Make the mean of a number over the pixels and their channels."""
    return lambda sums: sums[column].double().mean() / sums["pixels"].double()


def r2(sums: Collected) -> Tensor:
    """Compute 1 − Σ(y − ŷ)² / Σ(y − ȳ)², with the mean ȳ of each channel; NaN if all labels of a channel are equal."""
    squares = sums["shifted_squares"].double()
    spread = squares - sums["shifted"].double().square() / sums["pixels"].double()
    if not bool((spread > RESOLUTION * squares).all()):
        return torch.tensor(torch.nan)
    return 1 - sums["squared"].double().sum() / spread.sum()


NUMBER_MAP_METRICS: dict[str, CollectedMetric] = {
    "r2": CollectedMetric("max", ("pixels", "squared", "shifted", "shifted_squares"), r2),
    "mse": CollectedMetric("min", ("pixels", "squared"), _mean("squared")),
    "rmse": CollectedMetric("min", ("pixels", "squared"), lambda sums: _mean("squared")(sums).sqrt()),
    "mae": CollectedMetric("min", ("pixels", "absolute"), _mean("absolute")),
    "mape": CollectedMetric("min", ("pixels", "relative"), _mean("relative")),
}
"""Metrics over all labelled pixels of a split."""
