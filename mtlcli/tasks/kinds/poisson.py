"""Regression of counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, Metrics, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.kinds.regression import NEGLIGIBLE, require_numbers
from mtlcli.tasks.number_metrics import COUNT_METRICS, NumberColumns, half_deviances
from mtlcli.tasks.sample_weights import weighted_mean


@kinds.register("poisson")
class Poisson(TaskKind):
    """Regression of counts: Poisson likelihood with a logarithmic link. Metrics: d2, deviance, mae.

    Predictions [B, 1] are expected counts μ > 0, float64: the output layer of the model is exp(z + log ȳ) for the
    output z of the head, with the mean ȳ of the training labels if the dataset provides it. Targets are numbers [B] of
    at least 0, usually integers.

    The loss is y log(y / μ) − y + μ, the negative log-likelihood of a Poisson distribution minus that of a perfect
    prediction. It has the gradient of the likelihood and, unlike it, is never negative, as weightings that take its
    logarithm need. Its mean is half the mean Poisson deviance. With `uncertainty`, its σ² is the dispersion of a
    quasi-Poisson model.

    `d2` (the primary metric) is 1 − deviance / deviance of the mean label, NaN if all labels are equal; `deviance` and
    `mae` are means over the examples.

    References:
        McCullagh and Nelder, Generalized linear models, 1989, chapters 2.3 and 6.

    Args:
        target: the target, of type `real`, `binary`, or `classes` that are numbers.
    """

    accepts = ("real", "binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "d2": "max", "deviance": "min", "mae": "min"}
    bounded: ClassVar[frozenset[str]] = frozenset({"d2", "spearman"})
    collected: ClassVar[Mapping[str, CollectedMetric]] = COUNT_METRICS
    primary = "d2"
    numeric = True
    outputs = 1

    def __init__(self, target: TargetSpec) -> None:
        super().__init__(target)
        require_numbers(target)
        self.log_mean = math.log(target.mean) if target.mean > 0 else 0.0

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return (1 %)² of the deviance of the mean label.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error.
        """
        if not {"d2", "deviance"} <= metrics.keys() or metrics["d2"] >= 1:
            return {}
        return {"deviance": NEGLIGIBLE**2 * metrics["deviance"] / (1 - metrics["d2"])}

    def wrong_label(self, labels: Tensor) -> str | None:
        """Describe a negative label; None if there is none."""
        negative = labels[labels < 0]
        return f"{negative[0].item():g}, expected a count of at least 0" if len(negative) else None

    def output_layer(self) -> nn.Module:
        """Return the conversion of logarithms to expected counts."""
        return Exponential(self.log_mean)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean of half the deviance over the labelled examples; see `TaskKind.loss`."""
        prediction = at_least_float32(prediction).squeeze(1)
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # an unlabelled row contributes nothing to the gradient, even if its prediction is infinite or NaN
        prediction = prediction.masked_fill(~mask, 1.0).clamp(min=torch.finfo(prediction.dtype).tiny)
        losses = half_deviances(prediction, at_least_float32(target.masked_fill(~mask, 0))).float()
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics D², mean deviance and mean absolute error."""
        return self.collect([name for name in self.directions if name != "loss"])

    def columns(self, prediction: Tensor, target: Tensor) -> NumberColumns:
        """Return the numbers of a batch from which metrics are computed."""
        return NumberColumns(at_least_float32(prediction).squeeze(1), target)


class Exponential(nn.Module):
    """Conversion of logarithms z to expected counts, exp(z + log_mean), in float64, where it doesn't underflow early.

    MPS has no float64 and uses float32.

    Args:
        log_mean: logarithm of the mean of the training labels.
    """

    def __init__(self, log_mean: float) -> None:
        super().__init__()
        self._log_mean = log_mean

    def forward(self, z: Tensor) -> Tensor:
        """Convert logarithms, [B, 1], to expected counts, float64 [B, 1]."""
        z = z.float() if z.device.type == "mps" else z.double()
        return (z + self._log_mean).exp()
