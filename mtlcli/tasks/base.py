"""Base classes of task kinds and their metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from mtlcli.metric_names import Direction as Direction
from mtlcli.metric_names import family_of, metric_directions
from mtlcli.specs import TargetSpec, at_least_float32
from mtlcli.tasks.collected_metrics import ChosenMetrics, CollectedMetric, CollectedMetrics
from mtlcli.tasks.columns import Columns
from mtlcli.tasks.decoding import Decoded, decode_classes, decode_labels, decode_numbers, decode_positive


class TargetTypeError(ValueError):
    """Raised if a kind of task doesn't support the type of a target."""


class Metrics(Protocol):
    """Metrics that accumulate on the device, batch by batch."""

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: predictions, [B, outputs].
            target: labels, as in `TaskKind.loss`.
            weight: weights of the examples, [B], as in `TaskKind.loss`.
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
        directions: metric → whether larger or smaller values are better; contains `loss`. A task reports these metrics
            unless it chooses others.
        collected: metrics that a task can choose in addition, computed from the `columns` of the examples.
        bounded: metrics whose best value is 1, such as accuracy and r2. Their differences are reported in points
            (hundredths); differences of all other metrics, which are errors or have a unit, in percent.
        primary: metric that represents the task if the user names none; an option `primary` may override it.
        likelihood: likelihood that uncertainty weighting assumes for the loss: `gaussian` (regression) or
            `categorical`.
        probabilities: function that converts the prediction, which consists of logits, to probabilities; None if the
            prediction is the predicted value itself. `conditional_sigmoid`: the sigmoid of logit k is the probability
            that the class is above rank k, given that it is not below rank k.
        weighs_classes: whether each label is one of the target's classes, so that a task of this kind may have
            `class_weights`.
        predicts: form of the prediction: `vector` [B, outputs], `sequence` [B, L, outputs] or `map` [B, outputs, H, W],
            with a prediction for each pixel. It may depend on the target.
        pairs: whether a prediction compares two texts that are encoded separately. The inputs of the output layer are
            the vectors of the first and the second text of each pair in turn, [2B, outputs].
        generates: whether predictions are texts, which a language model generates for a prompt.
        weighs_labels: whether the weight of an example in the loss depends on its label, see `label_weights`.
        outputs: width of the head's output; 0 if the task has no head, so that its prediction is the representation.
        positive: name of the positive class, for a kind that distinguishes one; otherwise None.
        numeric: whether the labels are numbers even if the target has classes; a `gaussian` likelihood implies it.

    Raises:
        TargetTypeError: if the type of the target is not supported.
    """

    accepts: ClassVar[tuple[str, ...]]
    directions: ClassVar[dict[str, Direction]]
    collected: ClassVar[Mapping[str, CollectedMetric]] = MappingProxyType({})
    bounded: ClassVar[frozenset[str]] = frozenset()
    primary: str
    likelihood: ClassVar[Literal["gaussian", "categorical"]] = "categorical"
    probabilities: ClassVar[Literal["softmax", "sigmoid", "conditional_sigmoid"] | None] = None
    weighs_classes: ClassVar[bool] = False
    predicts: Literal["vector", "sequence", "map"] = "vector"
    pairs: ClassVar[bool] = False
    generates: ClassVar[bool] = False
    weighs_labels: bool = False
    outputs: int
    positive: str | None = None
    numeric: ClassVar[bool] = False
    _chosen: dict[str, Direction] | None = None

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

    @property
    def chance_loss(self) -> float | None:
        """Loss of a prediction that gives all classes the same probability, such as log K; None for other kinds."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities and in the names of metrics."""
        return self.target.class_names

    @property
    def reported(self) -> Mapping[str, Direction]:
        """The metrics that the task reports and their directions: those that it chooses, or `directions`."""
        return self.directions if self._chosen is None else self._chosen

    def choose_metrics(self, names: Sequence[str]) -> None:
        """Set the metrics that the task reports.

        Args:
            names: the names, valid for the kind (see `metric_names.check_names`). A class in a name that the target
                doesn't have raises ValueError.
        """
        self._chosen = metric_directions(self, names, self.class_names)

    def create_metrics(self, device: torch.device) -> Metrics:
        """Create the metrics that the task reports, without `loss`.

        Args:
            device: device of the predictions and labels.

        Returns:
            New metrics.
        """
        if self._chosen is None:
            return self.metrics(device)
        names = [name for name in self._chosen if name != "loss"]
        collected = [name for name in names if name in self.collected or family_of(name, self.collected)]
        defaults = [self.metrics(device)] if len(collected) < len(names) else []
        return ChosenMetrics(names, [*defaults, self.collect(collected)])

    def collect(self, names: Sequence[str]) -> Metrics:
        """Create metrics that are computed from the `columns` of the examples.

        Args:
            names: the names of the metrics.

        Returns:
            New metrics.
        """
        return CollectedMetrics(self.collected, names, self.columns, self.class_names, self.positive)

    def columns(self, prediction: Tensor, target: Tensor) -> Columns:
        """Return the numbers of a batch from which the metrics in `collected` are computed, on the device.

        Args:
            prediction: predictions of any precision, [B, outputs].
            target: labels, as described by `TargetSpec`.

        Returns:
            An object with a method for each column.
        """
        raise NotImplementedError(f"{type(self).__name__} has no columns")

    def wrong_label(self, labels: Tensor) -> str | None:
        """Find a label that this kind can't learn.

        Args:
            labels: labels that are not missing, as described by `TargetSpec`.

        Returns:
            The label and what was expected, such as "-1, expected a count of at least 0"; None if all are valid.
        """
        return None

    def label_weights(self, target: Tensor) -> Tensor:
        """Return the weights of examples in the loss that follow from their labels, if `weighs_labels`.

        Args:
            target: labels, as described by `TargetSpec`.

        Returns:
            float32 [N], by which the weights of the examples are multiplied.
        """
        raise NotImplementedError(f"{type(self).__name__} weighs all labels equally")

    def output_layer(self) -> nn.Module | None:
        """Return the module that follows the head, [B, outputs] → [B, outputs], as part of the model; None: none."""
        return None

    @abstractmethod
    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean loss over the labelled examples, Σwℓ / Σw with weights w.

        A missing label and an example of weight 0 contribute exactly nothing to the value and the gradient. The
        computation doesn't synchronize with the device. `weight` is passed only for tasks with weights, so a kind
        without this parameter works for all others.

        Args:
            prediction: predictions of any precision, [B, outputs].
            target: labels, as described by `TargetSpec`.
            weight: weights of the examples, finite and at least 0, float32 [B]; None for equal weights.

        Returns:
            The mean loss, float32, 0-d; 0 with a zero gradient if no example is labelled and has a weight above 0.
        """

    @abstractmethod
    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics, without `loss`; they ignore missing labels and are NaN if no example is labelled.

        Args:
            device: device of the predictions and labels.

        Returns:
            New metrics.
        """

    def decode(self, outputs: Tensor) -> Decoded:
        """Convert raw outputs of the model to predictions in the terms of the task.

        A kind whose outputs are not those that `probabilities` and `positive` describe overrides this method.

        Args:
            outputs: outputs of the model, [B, outputs].

        Returns:
            The predicted classes, labels or numbers, and the probabilities if the kind has them.
        """
        if self.probabilities is None:
            return decode_numbers(outputs)
        logits, names = at_least_float32(outputs), self.class_names
        if self.probabilities == "softmax":
            return decode_classes(logits.softmax(1), logits.argmax(1), names)
        return decode_labels(logits, names) if self.positive is None else decode_positive(logits, names, self.positive)


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
