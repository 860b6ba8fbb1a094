"""The surface normal of each pixel of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import labelled_pixels
from mtlcli.tasks.base import Direction
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, in_float64
from mtlcli.tasks.decoding import Decoded, decode_number_map
from mtlcli.tasks.map_kind import MapKind
from mtlcli.tasks.pixels import count_codes, counted_pixels, pixel_mean, pixel_weights

BINS = 9000  # of the histogram of angles, 0.02° each
NEGLIGIBLE = 0.5  # angle in degrees
SHORTEST = 1e-6  # length that shorter predictions count as in the loss, which bounds its gradient


class NormalColumns:
    """Numbers of each image from which the metrics of angles are computed, in degrees, over its labelled pixels.

    Args:
        prediction: predicted vectors of any length, [B, 3, H, W].
        target: normals, [B, 3, H, W]; NaN if missing.
    """

    def __init__(self, prediction: Tensor, target: Tensor) -> None:
        mask = labelled_pixels(target)
        angles = angles_between(in_float64(prediction), in_float64(target).masked_fill(~mask.unsqueeze(1), 0.0))
        self._mask = mask.flatten(1)
        self._angles = angles.flatten(1).masked_fill(~self._mask, 0.0)

    def labelled(self) -> Tensor:
        """Return the mask of the images with a labelled pixel, bool [B]."""
        return self._mask.any(1)

    def pixels(self) -> Tensor:
        """Return the numbers of pixels, int64 [B]."""
        return self._mask.sum(1)

    def total(self) -> Tensor:
        """Return the sums of the angles, [B]."""
        return self._angles.sum(1)

    def squared(self) -> Tensor:
        """Return the sums of the squares of the angles, [B]."""
        return self._angles.square().sum(1)

    def histogram(self) -> Tensor:
        """Count the angles in bins of 0.02°, int64 [B, BINS]; NaN counts as 180°."""
        codes = (self._angles.nan_to_num(nan=180.0) * (BINS / 180)).long().clamp(0, BINS - 1)
        return count_codes(codes, self._mask, BINS)

    def within_11(self) -> Tensor:
        """Return the numbers of pixels with an angle below 11.25°, int64 [B]."""
        return self._within(11.25)

    def within_22(self) -> Tensor:
        """Return the numbers of pixels with an angle below 22.5°, int64 [B]."""
        return self._within(22.5)

    def within_30(self) -> Tensor:
        """Return the numbers of pixels with an angle below 30°, int64 [B]."""
        return self._within(30.0)

    def _within(self, limit: float) -> Tensor:
        return ((self._angles < limit) & self._mask).sum(1)


def angles_between(a: Tensor, b: Tensor) -> Tensor:
    """Compute the angles between vectors, atan2(|a × b|, a·b), which is exact for small ones, unlike the arc cosine.

    Args:
        a: vectors of any length, [B, 3, H, W].
        b: vectors of any length, [B, 3, H, W].

    Returns:
        Angles in degrees, [B, H, W]; 90 if a vector is 0.
    """
    (ax, ay, az), (bx, by, bz) = a.unbind(1), b.unbind(1)  # faster than torch's products and norms of three numbers
    x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    cross = (x.square() + y.square() + z.square()).sqrt()
    dot = ax * bx + ay * by + az * bz
    return torch.where((cross == 0) & (dot == 0), 90.0, torch.atan2(cross, dot).rad2deg())


def angle_median(sums: Collected) -> Tensor:
    """Compute the median of the angles from their histogram, linearly within the bin that contains it."""
    counts = sums["histogram"].double()
    half = counts.sum() / 2
    if not half > 0:
        return torch.tensor(torch.nan)
    below = counts.cumsum(0)
    place = int((below < half).sum())
    return (place + 1 - (below[place] - half) / counts[place]) * (180 / BINS)


def _share(column: str) -> Callable[[Collected], Tensor]:
    """Make the mean of a number of the pixels."""
    return lambda sums: sums[column].double() / sums["pixels"].double()


NORMAL_METRICS: dict[str, CollectedMetric] = {
    "angle_mean": CollectedMetric("min", ("pixels", "total"), _share("total")),
    "angle_median": CollectedMetric("min", ("histogram",), angle_median),
    "within_11.25": CollectedMetric("max", ("pixels", "within_11"), _share("within_11")),
    "within_22.5": CollectedMetric("max", ("pixels", "within_22"), _share("within_22")),
    "within_30": CollectedMetric("max", ("pixels", "within_30"), _share("within_30")),
    "angle_rmse": CollectedMetric("min", ("pixels", "squared"), lambda sums: _share("squared")(sums).sqrt()),
}


@kinds.register("normals")
class Normals(MapKind):
    """The surface normal of each pixel of an image: 1 − cosine. Metrics: angle_mean, angle_median, within_11.25, ….

    Predictions are vectors v̂ [B, 3, H, W] of any length; targets are unit vectors n [B, 3, H, W]. Predictions are
    normalized to unit length in the loss and in the metrics, and when they are decoded (`mtl predict`); the output of
    the model itself is not. The loss is the mean of 1 − n·v̂/|v̂| over the labelled pixels of a batch.

    All metrics are of the angles between prediction and target in degrees, over all labelled pixels of the split.
    `angle_mean` is the primary metric. `angle_median` is computed from a histogram with bins of 0.02°, so that memory
    is bounded, and is exact to 0.02° (of an even number of pixels, the lower of the two in the middle). `within_11.25`,
    `within_22.5` and `within_30` are the shares of the pixels with an angle below 11.25°, 22.5° and 30°, and
    `angle_rmse` is the root of the mean square. The angle of a prediction of length 0 is 90°.

    LibMTL computes the same five metrics over the split. MTAN and Nash-MTL compute them over each batch and report the
    means of the batches, which depend on the batch size.

    Args:
        target: the target, of type `normal_map`.

    References:
        Eigen and Fergus, Predicting depth, surface normals and semantic labels with a common multi-scale convolutional
            architecture, ICCV 2015, eq. 2 (the loss, to which 1 is added here, so that its minimum is 0).
    """

    accepts = ("normal_map",)
    directions: ClassVar[dict[str, Direction]] = {
        "loss": "min",
        **{name: metric.direction for name, metric in NORMAL_METRICS.items() if name != "angle_rmse"},
    }
    bounded: ClassVar[frozenset[str]] = frozenset({"within_11.25", "within_22.5", "within_30"})
    table = NORMAL_METRICS
    collected: ClassVar[Mapping[str, CollectedMetric]] = {"angle_rmse": NORMAL_METRICS["angle_rmse"]}
    likelihood = "gaussian"
    primary = "angle_mean"
    outputs = 3

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return an angle of half a degree.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error.
        """
        return {name: NEGLIGIBLE for name in ("angle_mean", "angle_median", "angle_rmse") if name in metrics}

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean of 1 − cosine over the labelled pixels; see `TaskKind.loss`.

        Args:
            prediction: vectors of any length and precision, [B, 3, H, W].
            target: unit vectors, float32 [B, 3, H, W].
            weight: weights of the images, float32 [B], or of their pixels, [B, H, W]; None for equal weights.

        Returns:
            The mean loss, float32, 0-d.
        """
        prediction = prediction.float()
        if not self.target.missing and weight is None:
            return (1 - _cosines(prediction, target)).mean()
        weight = pixel_weights(weight, target[:, 0])
        mask = counted_pixels(target, weight)
        outside = ~mask.unsqueeze(1)
        # the prediction of an unlabelled pixel, even if infinite, doesn't reach the gradient
        cosines = _cosines(prediction.masked_fill(outside, 1.0), target.masked_fill(outside, 0.0))
        return pixel_mean(1 - cosines, mask, weight)

    def columns(self, prediction: Tensor, target: Tensor) -> NormalColumns:
        """Return the numbers of the images of a batch from which metrics are computed."""
        return NormalColumns(prediction, target)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the unit vectors, float32 [B, 3, H, W]; see `TaskKind.decode`."""
        return decode_number_map(F.normalize(outputs.float(), dim=1), ("x", "y", "z"))


def _cosines(vectors: Tensor, normals: Tensor) -> Tensor:
    """Compute the cosines of the angles between vectors and unit vectors, [B, 3, H, W] each → [B, H, W].

    Sums of three products are several times faster on CPUs than torch's norms of three numbers.
    """
    return (vectors * normals).sum(1) * vectors.square().sum(1).clamp(min=SHORTEST**2).rsqrt()
