"""Base classes of task kinds and their metrics, with exact counts of true and false positives and negatives."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol

import torch
from lightning_utilities.core import imports
from torch import Tensor, nn

from mtlcli.specs import TargetSpec
from mtlcli.tasks import sample_weights
from mtlcli.tasks.decoding import Decoded, decode_classes, decode_labels, decode_numbers, decode_positive

Direction = Literal["max", "min"]
"""Direction of a metric: larger (`max`) or smaller (`min`) values are better."""


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
        logits, names = at_least_float32(outputs), self.target.class_names
        if self.probabilities == "softmax":
            return decode_classes(logits.softmax(1), logits.argmax(1), names)
        return decode_labels(logits, names) if self.positive is None else decode_positive(logits, names, self.positive)


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


MISSING_LABEL = -1  # neither 0 nor 1: such an entry is not counted
UNUSED_PACKAGES = ("torchvision", "scipy", "matplotlib")  # by the metrics of this package


class LabelCounts:
    """Exact int64 counts per label, on the device, by torchmetrics' `MultilabelStatScores`; float64 sums of weights.

    The metrics of torchmetrics are float32 ratios (0.98760003 for 9876 of 10000), so only its counts are used. Classes
    are counted one-hot, which, unlike a confusion matrix, neither synchronizes with the device nor needs a
    non-deterministic kernel.

    Args:
        labels: number of labels L.
        device: device of the counts.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        import_torchmetrics()
        from torchmetrics.classification import MultilabelStatScores

        self._scores = MultilabelStatScores(labels, average=None, validate_args=False).to(device)
        self._weighted: Tensor | None = None

    def update(self, predicted: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            predicted: predicted labels, bool [B, L].
            target: labels, integers [B, L]: 1, 0 or MISSING_LABEL.
            weight: weights of the examples, [B], by which they are counted.
        """
        if weight is None:
            self._scores.update(predicted.to(target.dtype), target)
        else:
            counts = sample_weights.count(predicted, target, weight)
            self._weighted = counts if self._weighted is None else self._weighted + counts

    def read(self) -> Tensor:
        """Return the counts, float64 [4, L] on the CPU: true and false positives, true and false negatives."""
        state = self._scores.metric_state
        counts = torch.stack([torch.as_tensor(state[name]) for name in ("tp", "fp", "tn", "fn")])
        counts = counts.cpu().to(torch.float64)
        return counts if self._weighted is None else counts + self._weighted.cpu()


def predict_positive(logits: Tensor, labels: Tensor) -> Tensor:
    """Predict the labels whose logits are above 0; a NaN counts as the wrong prediction, whatever the label.

    Args:
        logits: logits, of any shape.
        labels: labels of the same shape: 1, 0 or MISSING_LABEL.

    Returns:
        The predicted labels, bool of the same shape.
    """
    return torch.where(logits.isnan(), labels == 0, logits > 0)


def f1_scores(counts: Tensor) -> Tensor:
    """Compute the F1 score of each label, 2 tp / (2 tp + fp + fn).

    Args:
        counts: counts, [4, L], as returned by `LabelCounts.read`.

    Returns:
        Scores, [L]; NaN for a label that neither occurs nor is predicted.
    """
    tp, fp, fn = counts[0], counts[1], counts[3]
    return 2 * tp / (2 * tp + fp + fn)


def import_torchmetrics() -> None:
    """Import torchmetrics without the optional packages that it would import; call this before importing from it.

    The first import of torchmetrics imports torchvision, scipy.signal and pyplot if they are installed, which takes 2
    of its 2.2 seconds and most of its memory, and which no metric here needs. During this import they appear to be
    missing, to torchmetrics only. A program that also needs its image metrics or plots imports torchmetrics first.
    """
    with _without_unused_packages():
        import torchmetrics  # noqa: F401


@contextmanager
def _without_unused_packages() -> Iterator[None]:
    """Replace the module by which torchmetrics checks for optional packages with one that doesn't find them."""

    class RequirementCache(imports.RequirementCache):
        def __bool__(self) -> bool:
            return self.requirement not in UNUSED_PACKAGES and super().__bool__()

    def package_available(name: str, *options: Any) -> bool:
        return name not in UNUSED_PACKAGES and imports.package_available(name, *options)

    stub = ModuleType(imports.__name__)
    vars(stub).update({**vars(imports), "RequirementCache": RequirementCache, "package_available": package_available})
    sys.modules[imports.__name__] = stub
    try:
        yield
    finally:
        sys.modules[imports.__name__] = imports
