"""Regression of quantiles."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, Metrics, TaskKind, masked_mean
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.decoding import Decoded, decode_numbers
from mtlcli.tasks.kinds.regression import NEGLIGIBLE, Rescale, require_numbers
from mtlcli.tasks.number_metrics import QUANTILE_METRICS, NumberColumns, pinball
from mtlcli.tasks.sample_weights import weighted_mean

Level = Annotated[float, Field(gt=0, lt=1)]


@kinds.register("quantile")
class Quantile(TaskKind):
    """Regression of quantiles of a real number: pinball loss. Metrics: d2, pinball, coverage_error.

    Predictions are [B, quantiles], in the target's units and in increasing order; targets are numbers [B]. The loss is
    the mean over the levels τ of ρ_τ(y − q) with ρ_τ(e) = max(τ e, (τ − 1) e), for the standardized target.

    The quantiles of an example never cross: the model's output layer sorts the outputs of the head, the rearrangement
    of Chernozhukov et al. It never increases the loss of an example (by the rearrangement inequality, since the loss is
    Σ_τ max(q − y, 0) + τ (y − q)). The training, the metrics, the predictions and an exported model all have the sorted
    values. Deviation: the paper sorts the estimated quantiles, here the sorting is a part of the model that is trained.

    `d2` (the primary metric) is 1 − Σ_τ loss / Σ_τ loss of the labels' own quantiles as constants, for one level
    scikit-learn's `d2_pinball_score`; NaN if all labels are equal. `pinball` is the loss in the target's units.
    `coverage_error` is the mean over the levels of |share of labels at or below the prediction − τ|.

    With `uncertainty`, the coefficient of a Gaussian likelihood makes exp(s) the scale of an asymmetric Laplace
    distribution, whose negative log-likelihood the loss is.

    Predictions have a column for each quantile: `q0.1`, `q0.5`, ….

    References:
        Koenker and Bassett, Regression quantiles, Econometrica 1978.
        Chernozhukov, Fernández-Val and Galichon, Quantile and probability curves without crossing, Econometrica 2010.

    Args:
        target: the target, of type `real`, `binary`, or `classes` that are numbers.
        quantiles: levels τ of the quantiles, increasing, between 0 and 1.
        standardize: whether the loss is computed for the standardized target; if not, it is in the target's units.

    Raises:
        ValueError: if the levels are not increasing.
    """

    accepts = ("real", "binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "d2": "max", "pinball": "min", "coverage_error": "min"}
    bounded: ClassVar[frozenset[str]] = frozenset({"d2"})
    collected: ClassVar[Mapping[str, CollectedMetric]] = QUANTILE_METRICS
    primary = "d2"
    likelihood = "gaussian"

    def __init__(
        self,
        target: TargetSpec,
        *,
        quantiles: Annotated[list[Level], Field(min_length=1, max_length=1000)] = [0.1, 0.5, 0.9],  # noqa: B006 (never changed)
        standardize: bool = True,
    ) -> None:
        super().__init__(target)
        require_numbers(target)
        if any(high <= low for low, high in pairwise(quantiles)):
            raise ValueError(f"`quantiles` must be increasing, got {quantiles}")
        self.quantiles = tuple(quantiles)
        self.outputs = len(quantiles)
        scaled = standardize and target.std > 0
        self.mean, self.std = (target.mean, target.std) if scaled else (0.0, 1.0)

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return 1 % of the loss of the labels' own quantiles.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error.
        """
        if not {"d2", "pinball"} <= metrics.keys() or metrics["d2"] >= 1:
            return {}
        return {"pinball": NEGLIGIBLE * metrics["pinball"] / (1 - metrics["d2"])}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The levels of the quantiles, such as `0.1`, in the names of metrics."""
        return tuple(str(level) for level in self.quantiles)

    def output_layer(self) -> nn.Module:
        """Return the conversion to the target's units and the sorting."""
        return nn.Sequential(Rescale(self.mean, self.std), SortOutputs())

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean pinball loss over the labelled examples; see `TaskKind.loss`."""
        prediction = at_least_float32(prediction)
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # an unlabelled row contributes nothing to the gradient, even if its prediction is infinite or NaN
        prediction = prediction.masked_fill(~mask.unsqueeze(1), 0.0)
        error = at_least_float32(target.masked_fill(~mask, 0)).unsqueeze(1) - prediction
        levels = torch.tensor(self.quantiles, device=prediction.device)
        losses = pinball((error / self.std).float(), levels).mean(1)
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics D², pinball loss and error of the coverage."""
        return self.collect([name for name in self.directions if name != "loss"])

    def columns(self, prediction: Tensor, target: Tensor) -> NumberColumns:
        """Return the numbers of a batch from which metrics are computed."""
        return NumberColumns(at_least_float32(prediction), target)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the quantiles, with a column for each; see `TaskKind.decode`."""
        return decode_numbers(outputs, tuple(f"q{level}" for level in self.quantiles))


class SortOutputs(nn.Module):
    """Sorting of the outputs of each example in increasing order."""

    def forward(self, outputs: Tensor) -> Tensor:
        """Sort outputs, [B, outputs] → [B, outputs]."""
        return outputs.sort(1).values
