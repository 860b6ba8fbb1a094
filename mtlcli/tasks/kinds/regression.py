"""A real number."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec
from mtlcli.tasks.kind import Direction, TaskKind
from mtlcli.tasks.labels import labelled, masked_mean
from mtlcli.tasks.lean_torchmetrics import import_torchmetrics

NEGLIGIBLE = 0.01  # of the standard deviation of the labels


@kinds.register("regression")
class Regression(TaskKind):
    """A real number: squared, absolute or Huber loss. Metrics: r2, mse, rmse, mae.

    prediction: [B, 1], in the target's own units. target: numbers [B]; classes count as their index.
    `r2` (the primary metric: it doesn't depend on the unit) is 1 − Σ(y − ŷ)² / Σ(y − ȳ)², NaN for fewer than two
    labelled examples or where all labels are the same.

    The loss is of the standardized target, so that it has the size of other tasks' losses whatever the unit: the head
    predicts (y − mean) / std of the training labels, where the dataset knows them, and the model's output layer
    brings that back to the target's units. Metrics are in the target's units.

    Options:
        loss: `mse` (y − ŷ)², `l1` |y − ŷ|, or `huber` (½(y − ŷ)² up to `delta`, then delta·(|y − ŷ| − ½delta)).
        delta: where the Huber loss goes from squared to absolute, in the loss's units.
        standardize: whether the loss is of the standardized target; if not, it is in the target's own units.
    """

    accepts = ("real", "binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "r2": "max", "mse": "min", "rmse": "min", "mae": "min"}
    bounded: ClassVar[frozenset[str]] = frozenset({"r2"})
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
        self.loss_name, self.delta = loss, delta
        scaled = standardize and target.std > 0
        self.mean, self.std = (target.mean, target.std) if scaled else (0.0, 1.0)

    @classmethod
    def floors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """1 % of what predicting the mean of the labels would have, as an RMSE; its square for the MSE."""
        variance = metrics["mse"] / (1 - metrics["r2"]) if metrics["r2"] < 1 else 0.0
        error = NEGLIGIBLE * sqrt(variance)
        return {"mse": error**2, "rmse": error, "mae": error}

    def output_layer(self) -> Rescale | None:
        return None if (self.mean, self.std) == (0.0, 1.0) else Rescale(self.mean, self.std)

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the labelled examples."""
        prediction = prediction.float().squeeze(1)
        if not self.target.missing:
            return self._losses(prediction, target.float()).mean()
        mask = labelled(target)
        # Whatever an unlabelled row predicts, ∞ included, it doesn't reach the gradient.
        return masked_mean(self._losses(prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0).float()), mask)

    def metrics(self, device: torch.device) -> RegressionMetrics:
        """R², mean squared and absolute error."""
        return RegressionMetrics(device, missing=self.target.missing)

    def _losses(self, prediction: Tensor, target: Tensor) -> Tensor:
        prediction, target = (prediction - self.mean) / self.std, (target - self.mean) / self.std
        match self.loss_name:
            case "mse":
                return F.mse_loss(prediction, target, reduction="none")
            case "l1":
                return F.l1_loss(prediction, target, reduction="none")
            case "huber":
                return F.huber_loss(prediction, target, reduction="none", delta=self.delta)


class Rescale(nn.Module):
    """z → z·std + mean: from the standardized target to its own units. Saved with the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([mean]))
        self.register_buffer("std", torch.tensor([std]))

    def forward(self, z: Tensor) -> Tensor:
        return z.float() * self.std + self.mean


class RegressionMetrics:
    """Sums in float64 by torchmetrics' `R2Score` and `MeanAbsoluteError`.

    R² itself is computed here: torchmetrics takes any sum of squares below 1e-4 for zero, so it calls every prediction
    of a target in small units perfect.
    """

    def __init__(self, device: torch.device, missing: bool) -> None:
        import_torchmetrics()
        from torchmetrics.regression import MeanAbsoluteError, R2Score

        self._missing = missing
        self._device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
        self._squares = R2Score().set_dtype(torch.float64).to(self._device)
        self._absolute = MeanAbsoluteError().set_dtype(torch.float64).to(self._device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: [B, 1]."""
        prediction = prediction.squeeze(1)
        if self._missing:
            mask = labelled(target)
            prediction, target = prediction[mask], target[mask]
        prediction, target = prediction.to(self._device).double(), target.to(self._device).double()
        self._squares.update(prediction, target)
        self._absolute.update(prediction, target)

    def compute(self) -> dict[str, float]:
        """float64 values; NaN where no example was labelled."""
        sums = {name: torch.as_tensor(value).item() for name, value in self._squares.metric_state.items()}
        count, residual, squares = sums["total"], sums["residual"], sums["sum_squared_error"]
        if not count:
            return dict.fromkeys(("r2", "mse", "rmse", "mae"), float("nan"))
        spread = squares - sums["sum_error"] ** 2 / count
        varies = spread > 1e-12 * squares  # else what is left is rounding
        mse = residual / count
        return {
            "r2": 1 - residual / spread if varies else float("nan"),
            "mse": mse,
            "rmse": sqrt(mse),
            "mae": float(self._absolute.compute()),
        }
