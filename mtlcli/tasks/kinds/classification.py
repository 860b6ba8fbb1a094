"""Classification into several classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind
from mtlcli.tasks.binary_metrics import MISSING_LABEL, LabelCounts, f1_scores
from mtlcli.tasks.class_metrics import CLASS_METRICS
from mtlcli.tasks.collected_metrics import CollectedMetric, bounded_metrics
from mtlcli.tasks.columns import ClassColumns, in_float64
from mtlcli.tasks.sample_weights import weighted_mean


@kinds.register("classification")
class Classification(TaskKind):
    """Classification into several classes: softmax cross-entropy. Metrics: accuracy, f1.

    Predictions are logits [B, classes]; targets are class indices [B], or 0/1 [B] of a `binary` target, which is
    processed as two classes. `accuracy` (the primary metric) is the share of the labelled examples whose largest logit
    is that of their class; `f1` is the mean F1 score (macro) of the classes that occur among the labels or the
    predictions.

    Args:
        target: the target, of type `classes` or `binary`.
        classes: expected number of classes; null: any number.
        label_smoothing: share ε of the target's probability that is distributed equally among all classes.

    Raises:
        ValueError: if the target doesn't have `classes` classes.
    """

    accepts = ("classes", "binary")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = bounded_metrics(CLASS_METRICS)
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric for name, metric in CLASS_METRICS.items() if name not in ("accuracy", "f1")
    }
    probabilities = "softmax"
    weighs_classes = True
    primary = "accuracy"

    def __init__(
        self,
        target: TargetSpec,
        *,
        classes: PositiveInt | None = None,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(target)
        self.outputs = 2 if target.type == "binary" else target.size
        if classes is not None and classes != self.outputs:
            raise ValueError(f"class count mismatch: `classes` is {classes}, and the target has {self.outputs}")
        self.label_smoothing = label_smoothing

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of the number of classes; see `TaskKind.chance_loss`."""
        return math.log(self.outputs) if self.outputs > 1 else None

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy over the labelled examples; see `TaskKind.loss`."""
        target, prediction = self._class_indices(target), prediction.float()
        if not self.target.missing and weight is None:
            return F.cross_entropy(prediction, target, label_smoothing=self.label_smoothing)
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # the prediction of an unlabelled row, even if infinite, doesn't reach the gradient
        prediction = prediction.masked_fill(~mask.unsqueeze(1), 0.0)
        if weight is not None:
            losses = F.cross_entropy(
                prediction, target, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=self.label_smoothing
            )
            return weighted_mean(losses, mask, weight)
        total = F.cross_entropy(
            prediction, target, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / mask.sum().clamp(min=1)

    def metrics(self, device: torch.device) -> ClassificationMetrics:
        """Create the metrics accuracy and macro F1."""
        return ClassificationMetrics(self, device)

    def columns(self, prediction: Tensor, target: Tensor) -> ClassColumns:
        """Return the numbers of a batch from which metrics are computed."""
        logits, labels = in_float64(prediction), self._class_indices(target)
        predicted = logits.argmax(1).masked_fill(logits.isnan().any(1), -1)
        return ClassColumns(logits.log_softmax(1), predicted, labels, None)

    def _class_indices(self, target: Tensor) -> Tensor:
        """Convert targets of any accepted type to indices, int64 [B], IGNORE_INDEX if missing."""
        if self.target.type == "binary" and self.target.missing:
            target = target.nan_to_num(nan=IGNORE_INDEX)
        return target.long()


class ClassificationMetrics:
    """Accuracy and macro F1 from exact counts per class.

    Args:
        kind: the task kind.
        device: device of the predictions and labels.
    """

    def __init__(self, kind: Classification, device: torch.device) -> None:
        self._class_indices = kind._class_indices
        self._classes = torch.arange(kind.outputs, device=device)
        self._counts = LabelCounts(kind.outputs, device)

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: logits, [B, classes].
            target: labels, [B].
            weight: weights of the examples, [B].
        """
        target = self._class_indices(target).unsqueeze(1)
        one_hot = (target == self._classes).to(torch.int8).masked_fill(~is_labelled(target), MISSING_LABEL)
        predicted = prediction.argmax(1, keepdim=True) == self._classes
        # argmax returns the index of a NaN logit; no class is predicted then
        self._counts.update(predicted & ~prediction.isnan().any(1, keepdim=True), one_hot, weight)

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no example was labelled."""
        counts = self._counts.read()
        tp, _, _, fn = counts
        return {"accuracy": (tp.sum() / (tp + fn).sum()).item(), "f1": f1_scores(counts).nanmean().item()}
