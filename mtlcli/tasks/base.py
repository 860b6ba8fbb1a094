"""What every kind of task is: the width of its prediction, a loss, metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mtlcli.specs import TargetSpec

Direction = Literal["max", "min"]


class TargetTypeError(ValueError):
    """A kind of task can't be trained on a target of this type."""


class Metrics(Protocol):
    """Metrics that accumulate on the device, batch by batch.

    update takes what `TaskKind.loss` takes; compute gives the values over all batches so far, those of
    `TaskKind.directions` but `loss`.
    """

    def update(self, prediction: Tensor, target: Tensor) -> None: ...
    def compute(self) -> dict[str, float]: ...


class TaskKind(ABC):
    """Base of the task kinds.

    accepts: the types of target it can be trained on.
    outputs: width of the head's output.
    directions: metric → whether more or less of it is better; `loss` is always among them.
    bounded: the metrics whose best value is 1, such as accuracy and r2. Their differences are reported in points
        (hundredths); those of every other metric, an error or a quantity with a unit, in percent.
    primary: the metric a task is judged by when the user names none; an option `primary` may choose another.
    likelihood: what uncertainty weighting takes the loss for: `gaussian` (regression) or `categorical`.
    probabilities: the function that makes probabilities of the prediction, which is then logits; None where the
        prediction is the predicted value itself.
    positive: name of the class that counts as "yes", of a kind that distinguishes one; None of any other.
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
    def floors(cls, metrics: Mapping[str, float]) -> dict[str, float]:
        """Smallest denominators for percentages of errors, by metric; a metric without one has 0.

        Below its floor an error is negligible, and a percentage of it would be meaningless. metrics: values of one
        model on one split.
        """
        return {}

    def output_layer(self) -> nn.Module | None:
        """What follows the head, [B, outputs] → [B, outputs], part of the model; None: nothing does."""
        return None

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the labelled examples, 0-d, fp32; 0 with a zero gradient where none is labelled.

        prediction: [B, outputs], of any precision. target: as `TargetSpec` says. A missing label contributes exactly
        nothing to the value or the gradient. Nothing here waits for the device.
        """

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Fresh metrics, without `loss`, ignoring missing labels. NaN where no example was labelled."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor as float32, or as it is where it is float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def masked_mean(values: Tensor, mask: Tensor, dim: int = 0) -> Tensor:
    """Mean of the `values` in the `mask` along `dim`; 0 with a zero gradient where the mask is empty.

    A value outside the mask gets a gradient of exactly 0, but must be finite for that: 0 × ∞ is NaN.
    """
    return values.masked_fill(~mask, 0.0).sum(dim) / mask.sum(dim).clamp(min=1)
