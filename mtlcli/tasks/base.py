"""Base class of the task kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mtlcli.specs import TargetSpec

Direction = Literal["max", "min"]
"""Whether larger or smaller values of a metric are better."""


class TargetTypeError(ValueError):
    """Raised if a kind of task doesn't support the type of a target."""


class Metrics(Protocol):
    """Metrics that accumulate on the device, batch by batch."""

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs].
            target: labels, as in `TaskKind.loss`.
        """

    def compute(self) -> dict[str, float]:
        """Return the values of all metrics in `TaskKind.directions` except `loss`, over all batches so far."""


class TaskKind(ABC):
    """Base class of the task kinds: the width of the prediction, the loss and the metrics of a task.

    The options of the configuration are the keyword-only arguments of the constructor.

    Args:
        target: the target of the task.

    Attributes:
        accepts: the supported types of targets.
        directions: metric → whether larger or smaller values are better; contains `loss`.
        bounded: metrics whose best value is 1, such as accuracy and r2. Their differences are reported in points
            (hundredths); differences of all other metrics, which are errors or have a unit, in percent.
        primary: metric that represents the task if the user names none; an option `primary` may override it.
        likelihood: likelihood that uncertainty weighting assumes for the loss: `gaussian` (regression) or
            `categorical`.
        probabilities: function that converts the prediction, which consists of logits, to probabilities; None if the
            prediction is the predicted value itself.
        outputs: width of the head's output.
        positive: name of the positive class, for a kind that distinguishes one; otherwise None.

    Raises:
        TargetTypeError: if the type of the target is not supported.
    """

    accepts: ClassVar[tuple[str, ...]]
    directions: ClassVar[dict[str, Direction]]
    bounded: ClassVar[frozenset[str]] = frozenset()
    primary: str
    likelihood: ClassVar[Literal["gaussian", "categorical"]] = "categorical"
    probabilities: ClassVar[Literal["softmax", "sigmoid"] | None] = None
    outputs: int
    positive: str | None = None

    def __init__(self, target: TargetSpec) -> None:
        if target.type not in self.accepts:
            accepted = " or ".join(self.accepts)
            raise TargetTypeError(f"needs a target of type {accepted}, and this one is {target.type!r}")
        self.target = target

    @classmethod
    def negligible_errors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the errors below which percentages are meaningless; they are used as smallest denominators.

        Args:
            metrics: metric → value of one model on one split.

        Returns:
            Metric → negligible error; 0 for a metric without an entry.
        """
        return {}

    def output_layer(self) -> nn.Module | None:
        """Return the module that follows the head, [B, outputs] → [B, outputs], as part of the model; None: none."""
        return None

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compute the mean loss over the labelled examples.

        A missing label contributes exactly nothing to the value and the gradient. The computation doesn't synchronize
        with the device.

        Args:
            prediction: predictions of any precision, [B, outputs].
            target: labels, as described by `TargetSpec`.

        Returns:
            The mean loss, float32, 0-d; 0 with a zero gradient if no example is labelled.
        """

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics, without `loss`; they ignore missing labels and are NaN if no example is labelled.

        Args:
            device: device of the predictions and labels.

        Returns:
            New metrics.
        """


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32 unless it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def masked_mean(values: Tensor, mask: Tensor, dim: int = 0) -> Tensor:
    """Compute the mean of the values in a mask along a dimension.

    A value outside the mask gets a gradient of exactly 0, provided that it is finite (0 × ∞ is NaN).

    Args:
        values: values, of any shape.
        mask: bool, of the same shape.
        dim: dimension to reduce.

    Returns:
        The mean, without `dim`; 0 with a zero gradient if the mask is empty.
    """
    return values.masked_fill(~mask, 0.0).sum(dim) / mask.sum(dim).clamp(min=1)
