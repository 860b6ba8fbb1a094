"""The distance of each pixel of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.base import Direction
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, in_float64
from mtlcli.tasks.decoding import Decoded, decode_number_map
from mtlcli.tasks.map_kind import MapKind
from mtlcli.tasks.pixels import counted_pixels, pixel_mean, pixel_weights

NEAREST = 1e-3  # distance that smaller predictions count as, in logarithms
RATIO = 1.25  # of `delta1`
NEGLIGIBLE = 0.01  # relative error


class DepthColumns:
    """Sums over the labelled pixels of each image from which the metrics of distances are computed.

    Args:
        prediction: predicted distances, [B, H, W].
        target: distances, [B, H, W]; NaN if missing.
    """

    def __init__(self, prediction: Tensor, target: Tensor) -> None:
        self._mask = is_labelled(target).flatten(1)
        self._true = in_float64(target).flatten(1).masked_fill(~self._mask, 1.0)
        self._predicted = in_float64(prediction).flatten(1)
        self._error = (self._predicted - self._true).masked_fill(~self._mask, 0.0)

    def labelled(self) -> Tensor:
        """Return the mask of the images with a labelled pixel, bool [B]."""
        return self._mask.any(1)

    def pixels(self) -> Tensor:
        """Return the numbers of pixels, int64 [B]."""
        return self._mask.sum(1)

    def absolute(self) -> Tensor:
        """Return Σ|d̂ − d|, [B]."""
        return self._error.abs().sum(1)

    def relative(self) -> Tensor:
        """Return Σ|d̂ − d| / d, [B]."""
        return (self._error.abs() / self._true).sum(1)

    def squared(self) -> Tensor:
        """Return Σ(d̂ − d)², [B]."""
        return self._error.square().sum(1)

    def squared_relative(self) -> Tensor:
        """Return Σ(d̂ − d)² / d, [B]."""
        return (self._error.square() / self._true).sum(1)

    def squared_log(self) -> Tensor:
        """Return Σ(log d̂ − log d)², [B]."""
        errors = self._predicted.clamp(min=NEAREST).log() - self._true.log()
        return errors.masked_fill(~self._mask, 0.0).square().sum(1)

    def below_1(self) -> Tensor:
        """Return the numbers of pixels with max(d̂ / d, d / d̂) < 1.25, int64 [B]."""
        return self._below(1)

    def below_2(self) -> Tensor:
        """Return the numbers of pixels with max(d̂ / d, d / d̂) < 1.25², int64 [B]."""
        return self._below(2)

    def below_3(self) -> Tensor:
        """Return the numbers of pixels with max(d̂ / d, d / d̂) < 1.25³, int64 [B]."""
        return self._below(3)

    def _below(self, power: int) -> Tensor:
        most = RATIO**power
        near = (self._predicted < most * self._true) & (self._true < most * self._predicted)
        return (near & self._mask).sum(1)


def _mean(column: str) -> Callable[[Collected], Tensor]:
    """Make the mean of a number of the pixels."""
    return lambda sums: sums[column].double() / sums["pixels"].double()


def _root(column: str) -> Callable[[Collected], Tensor]:
    """Make the root of the mean of a number of the pixels."""
    return lambda sums: (sums[column].double() / sums["pixels"].double()).sqrt()


DEPTH_METRICS: dict[str, CollectedMetric] = {
    "abs_err": CollectedMetric("min", ("pixels", "absolute"), _mean("absolute")),
    "rel_err": CollectedMetric("min", ("pixels", "relative"), _mean("relative")),
    "rmse": CollectedMetric("min", ("pixels", "squared"), _root("squared")),
    "sq_rel": CollectedMetric("min", ("pixels", "squared_relative"), _mean("squared_relative")),
    "rmse_log": CollectedMetric("min", ("pixels", "squared_log"), _root("squared_log")),
    **{f"delta{k}": CollectedMetric("max", ("pixels", f"below_{k}"), _mean(f"below_{k}")) for k in (1, 2, 3)},
}
DEFAULTS = ("abs_err", "rel_err", "rmse")


@kinds.register("depth")
class Depth(MapKind):
    """The distance of each pixel of an image: absolute error. Metrics: abs_err, rel_err, rmse.

    Predictions are distances d̂ [B, 1, H, W] in the target's units; targets are distances d > 0 [B, H, W]. The loss is
    the mean over the labelled pixels of a batch. With `log_l1`, the head predicts the logarithm of the distance
    (divided by the mean distance of the training images), and the model's output layer converts it.

    All metrics are means over the labelled pixels of the split. `abs_err` (the primary metric) is that of |d̂ − d|,
    `rel_err` that of |d̂ − d| / d, `sq_rel` that of (d̂ − d)² / d. `rmse` is the root of the mean of (d̂ − d)², and
    `rmse_log` that of (log d̂ − log d)², where a prediction below 0.001 counts as 0.001. `delta1`, `delta2` and
    `delta3` are the shares of the pixels with max(d̂ / d, d / d̂) below 1.25, 1.25² and 1.25³.

    The default loss is that of MTAN, Nash-MTL and LibMTL. LibMTL reports the same `abs_err` and `rel_err`. MTAN and
    Nash-MTL report the means over the batches of each batch's mean.

    Args:
        target: the target, of type `depth_map`.
        loss: `l1`: |d̂ − d|; `mse`: (d̂ − d)²; `huber`: ½(d̂ − d)² up to `delta`, then delta·(|d̂ − d| − ½delta);
            `log_l1`: |log d̂ − log d|.
        delta: error at which the Huber loss changes from squared to absolute, in the units of the target.

    References:
        Eigen, Puhrsch and Fergus, Depth map prediction from a single image using a multi-scale deep network, NIPS 2014,
            section 4 (the metrics).
    """

    accepts = ("depth_map",)
    directions: ClassVar[dict[str, Direction]] = {
        "loss": "min", **{name: DEPTH_METRICS[name].direction for name in DEFAULTS}
    }  # fmt: skip
    bounded: ClassVar[frozenset[str]] = frozenset({"delta1", "delta2", "delta3"})
    table = DEPTH_METRICS
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric for name, metric in DEPTH_METRICS.items() if name not in DEFAULTS
    }
    likelihood = "gaussian"
    primary = "abs_err"
    outputs = 1

    def __init__(
        self,
        target: TargetSpec,
        *,
        loss: Literal["l1", "mse", "huber", "log_l1"] = "l1",
        delta: PositiveFloat = 1.0,
    ) -> None:
        super().__init__(target)
        self.loss_name, self.delta = loss, delta

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return a relative error of 1 %, and the absolute errors that correspond to it.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error.
        """
        errors = {"rel_err": NEGLIGIBLE, "rmse_log": NEGLIGIBLE}
        if metrics.get("rel_err", 0.0) > 0 and "abs_err" in metrics:
            distance = metrics["abs_err"] / metrics["rel_err"]
            errors |= {"abs_err": NEGLIGIBLE * distance, "rmse": NEGLIGIBLE * distance}
        return {name: error for name, error in errors.items() if name in metrics}

    def output_layer(self) -> nn.Module | None:
        """Return the conversion of logarithms to distances; None if the head predicts distances."""
        return LogDepth(self.target.mean if self.target.mean > 0 else 1.0) if self.loss_name == "log_l1" else None

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean loss over the labelled pixels; see `TaskKind.loss`.

        Args:
            prediction: distances of any precision, [B, 1, H, W].
            target: distances, float32 [B, H, W].
            weight: weights of the images, float32 [B], or of their pixels, [B, H, W]; None for equal weights.

        Returns:
            The mean loss, float32, 0-d.
        """
        predicted = prediction.float().squeeze(1)
        if not self.target.missing and weight is None:
            return self._losses(predicted, target).mean()
        weight = pixel_weights(weight, target)
        mask = counted_pixels(target, weight)
        # the prediction of an unlabelled pixel, even if infinite, doesn't reach the gradient
        losses = self._losses(predicted.masked_fill(~mask, 1.0), target.masked_fill(~mask, 1.0))
        return pixel_mean(losses, mask, weight)

    def columns(self, prediction: Tensor, target: Tensor) -> DepthColumns:
        """Return the sums over the images of a batch from which metrics are computed."""
        return DepthColumns(prediction.squeeze(1), target)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the distances, float32 [B, H, W]; see `TaskKind.decode`."""
        return decode_number_map(outputs)

    def _losses(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each pixel, [B, H, W]."""
        match self.loss_name:
            case "l1":
                return (predicted - target).abs()
            case "mse":
                return (predicted - target).square()
            case "huber":
                return F.huber_loss(predicted, target, reduction="none", delta=self.delta)
            case "log_l1":
                return (predicted.log() - target.log()).abs()


class LogDepth(nn.Module):
    """Conversion of predicted logarithms z to distances, scale · exp(z).

    z is limited to ±20, so that distances and gradients are finite.

    Args:
        scale: distance of z = 0.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self._log_scale = math.log(scale)

    def forward(self, z: Tensor) -> Tensor:
        """Convert logarithms, [B, 1, H, W], to distances, float32 [B, 1, H, W]."""
        return torch.exp(z.float().clamp(-20.0, 20.0) + self._log_scale)
