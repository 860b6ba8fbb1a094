"""Regression of a real number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import MAP_TYPES, TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, Metrics, TargetTypeError, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Columns
from mtlcli.tasks.decoding import Decoded, decode_number_map
from mtlcli.tasks.number_maps import NUMBER_MAP_METRICS, NumberMapColumns
from mtlcli.tasks.number_metrics import NUMBER_METRICS, NumberColumns
from mtlcli.tasks.pixels import RescaleMaps, flatten_maps
from mtlcli.tasks.sample_weights import weighted_mean
from mtlcli.tasks.summed_metrics import SummedMetrics, check_metrics

NEGLIGIBLE = 0.01  # share of the standard deviation of the labels


@kinds.register("regression")
class Regression(TaskKind):
    """Regression of a real number: squared, absolute or Huber loss. Metrics: r2, mse, rmse, mae.

    Predictions [B, 1] are in the target's units, float64 after the model's output layer; targets are numbers [B],
    float32 or float64, or the indices [B] of classes that are the numbers 0, 1, … themselves. `r2` (the primary metric,
    since it doesn't depend on the unit) is 1 − Σ(y − ŷ)² / Σ(y − ȳ)², NaN for fewer than two labelled examples or if
    all labels are equal.

    The loss is computed for the standardized target, so that its magnitude is that of other tasks' losses for any unit:
    the head predicts (y − mean) / std with the statistics of the training labels, if the dataset provides them, and the
    model's output layer converts the prediction to the target's units. Metrics are in the target's units.

    A target that is a map has a number for each pixel, or `size` of them (heat maps): predictions are float32
    [B, size, H, W], and the loss is the mean over all labelled pixels of a batch of the mean over their channels. All
    metrics are over the labelled pixels of the split. `r2` uses the mean ȳ of each channel; `spearman` doesn't apply.

    Args:
        target: the target, of type `real`, `binary`, or `classes` that are numbers, or of type `real_map` or
            `depth_map`.
        loss: `mse`: (y − ŷ)²; `l1`: |y − ŷ|; `huber`: ½(y − ŷ)² up to `delta`, then delta·(|y − ŷ| − ½delta).
        delta: error at which the Huber loss changes from squared to absolute, in the units of the loss.
        standardize: whether the loss is computed for the standardized target; if not, it is in the target's units.

    Raises:
        TargetTypeError: if the classes of the target are not numbers.
    """

    accepts = ("real", "binary", "classes", "real_map", "depth_map")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "r2": "max", "mse": "min", "rmse": "min", "mae": "min"}
    bounded: ClassVar[frozenset[str]] = frozenset({"r2", "spearman"})
    collected: ClassVar[Mapping[str, CollectedMetric]] = NUMBER_METRICS
    primary = "r2"
    likelihood = "gaussian"
    outputs = 1

    def __init__(
        self,
        target: TargetSpec,
        *,
        loss: Literal["mse", "l1", "huber"] = "mse",
        delta: PositiveFloat = 1.0,
        standardize: bool = True,
    ) -> None:
        super().__init__(target)
        require_numbers(target)
        if target.type in MAP_TYPES:
            self.predicts, self.outputs = "map", target.size
        self.loss_name, self.delta = loss, delta
        scaled = standardize and target.std > 0
        self.mean, self.std = (target.mean, target.std) if scaled else (0.0, 1.0)

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return 1 % of the RMSE of predicting the mean of the labels, and its square for the MSE.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error.
        """
        if not {"mse", "r2"} <= metrics.keys():
            return {}
        variance = metrics["mse"] / (1 - metrics["r2"]) if metrics["r2"] < 1 else 0.0
        error = NEGLIGIBLE * sqrt(variance)
        return {"mse": error**2, "rmse": error, "mae": error}

    def output_layer(self) -> nn.Module | None:
        """Return the conversion to the target's units; None if there is nothing to convert."""
        if self.predicts == "map" and (self.mean, self.std) != (0.0, 1.0):
            return RescaleMaps(self.mean, self.std)
        return None if (self.mean, self.std) == (0.0, 1.0) else Rescale(self.mean, self.std)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean loss over the labelled examples or pixels; see `TaskKind.loss`."""
        if self.predicts == "map":
            prediction, target, weight = flatten_maps(prediction, target, weight)
        prediction = prediction.squeeze(1)
        if not self.target.missing and weight is None:
            return self._losses(prediction, target).mean()
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # an unlabelled row contributes nothing to the gradient, even if its prediction is infinite or NaN
        losses = self._losses(prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0))
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def choose_metrics(self, names: Sequence[str]) -> None:
        """Set the metrics that the task reports; see `TaskKind.choose_metrics`."""
        if self.predicts == "map":
            check_metrics(names, NUMBER_MAP_METRICS, "numbers for each pixel")
        super().choose_metrics(names)

    def create_metrics(self, device: torch.device) -> Metrics:
        """Create the metrics that the task reports; see `TaskKind.create_metrics`."""
        if self.predicts == "map":
            return self.collect([name for name in self.reported if name != "loss"])
        return super().create_metrics(device)

    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics R², mean squared, root mean squared and mean absolute error."""
        if self.predicts == "map":
            return self.collect([name for name in self.directions if name != "loss"])
        return RegressionMetrics(device)

    def collect(self, names: Sequence[str]) -> Metrics:
        """Create metrics that are computed from the examples or pixels; see `TaskKind.collect`."""
        if self.predicts == "map":
            return SummedMetrics(NUMBER_MAP_METRICS, names, self.columns)
        return super().collect(names)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the predicted numbers; see `TaskKind.decode`."""
        return decode_number_map(outputs) if self.predicts == "map" else super().decode(outputs)

    def columns(self, prediction: Tensor, target: Tensor) -> Columns:
        """Return the numbers of a batch from which metrics are computed."""
        if self.predicts == "map":
            return NumberMapColumns(prediction, target, self.target.mean)
        return NumberColumns(at_least_float32(prediction).squeeze(1), target)

    def _losses(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the loss of each example, float32 [B], of predictions and numbers in the target's units, [B]."""
        error = ((at_least_float32(prediction) - at_least_float32(target)) / self.std).float()
        match self.loss_name:
            case "mse":
                return error.square()
            case "l1":
                return error.abs()
            case "huber":
                return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)


def require_numbers(target: TargetSpec) -> None:
    """Raise TargetTypeError if a target has classes that are not the numbers from 0."""
    if target.type == "classes" and target.classes not in (None, tuple(map(str, range(target.size)))):
        raise TargetTypeError("needs a target of numbers, and this one has classes")


class Rescale(nn.Module):
    """Conversion of the standardized prediction z to the target's units: z·std + mean, in float64.

    In float32, a prediction in Unix seconds would have a resolution of 64 s. MPS has no float64 and uses float32. The
    buffers save the scale with the model's parameters; the computation uses the exact numbers of the target's spec.

    Args:
        mean: mean of the training labels.
        std: standard deviation of the training labels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([mean]))
        self.register_buffer("std", torch.tensor([std]))
        self._mean, self._std = mean, std

    def forward(self, z: Tensor) -> Tensor:
        """Convert standardized predictions, [B, 1], to the target's units, float64 [B, 1]."""
        z = z.float() if z.device.type == "mps" else z.double()
        return z * self._std + self._mean


class RegressionMetrics:
    """Sums of errors, and Σ(y − ȳ)² by shifted data and the pairwise update of Chan et al., in float64 on the device.

    Labels are shifted by the first one, so that they keep their digits with a large mean, and labels that are all equal
    have a sum of squares of exactly 0. Nothing synchronizes with the device before `compute`, except on MPS, which has
    no float64: there the sums are on the CPU.

    References:
        Chan, Golub and LeVeque, Algorithms for computing the sample variance: analysis and recommendations, The
            American Statistician 1983.

    Args:
        device: device of the predictions and labels.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cpu") if device.type == "mps" else device
        zero = torch.zeros((), dtype=torch.float64, device=self._device)
        self._count = self._squared = self._absolute = zero
        self._shift = self._mean = self._spread = zero

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, 1].
            target: labels, [B].
            weight: weights of the examples, [B], by which all sums are weighted.
        """
        prediction = prediction.squeeze(1).to(self._device).double()
        target = target.to(self._device)
        mask, target = is_labelled(target), target.double()
        if weight is not None:
            weight = weight.to(self._device).double()
            mask = mask & (weight > 0)
            weight = weight.masked_fill(~mask, 0.0)
        error = (prediction - target).masked_fill(~mask, 0.0)
        self._squared = self._squared + _total(error.square(), weight)
        self._absolute = self._absolute + _total(error.abs(), weight)

        first = target.take(mask.to(torch.int8).argmax())
        self._shift = torch.where((self._count == 0) & mask.any(), first, self._shift)
        count = mask.sum() if weight is None else weight.sum()
        shifted = (target - self._shift).masked_fill(~mask, 0.0)
        divisor = torch.where(count > 0, count, 1)
        mean = _total(shifted, weight) / divisor
        deviation = (shifted - mean).masked_fill(~mask, 0.0)
        # minus the effect of the rounding error of `mean`
        spread = _total(deviation.square(), weight) - _total(deviation, weight).square() / divisor
        total = self._count + count
        share = count / torch.where(total > 0, total, 1)
        step = mean - self._mean
        self._spread = self._spread + spread + step.square() * self._count * share
        self._mean = self._mean + step * share
        self._count = total

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no example was labelled."""
        sums = torch.stack([self._count, self._squared, self._absolute, self._spread])
        count, squared, absolute, spread = sums.tolist()
        if not count:
            return dict.fromkeys(("r2", "mse", "rmse", "mae"), float("nan"))
        mse = squared / count
        return {
            "r2": 1 - squared / spread if spread > 0 else float("nan"),
            "mse": mse,
            "rmse": sqrt(mse),
            "mae": absolute / count,
        }


def _total(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the sum of the values, [B], weighted if there are weights."""
    return values.sum() if weight is None else (values * weight).sum()
