"""One class out of several."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind
from mtlcli.tasks.metrics import MISSING, Counts, f1


@kinds.register("classification")
class Classification(TaskKind):
    """One class out of several: cross-entropy of a softmax. Metrics: accuracy, f1.

    prediction: logits [B, classes]. target: class indices [B], or 0/1 [B] of a `binary` target, taken as two classes.
    `accuracy` (the primary metric) is the share of the labelled examples whose largest logit is their class; `f1` is
    the mean over the classes (macro) of those that occur among the labels or the predictions.

    Options:
        classes: how many classes the target must have; checked, never needed.
        label_smoothing: share ε of the target's probability that is spread evenly over all classes.
    """

    accepts = ("classes", "binary")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"accuracy", "f1"})
    probabilities = "softmax"
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

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled examples."""
        target, prediction = self._class_indices(target), prediction.float()
        if not self.target.missing:
            return F.cross_entropy(prediction, target, label_smoothing=self.label_smoothing)
        mask = is_labelled(target)
        # Whatever an unlabelled row predicts, ∞ included, it doesn't reach the gradient.
        prediction = prediction.masked_fill(~mask.unsqueeze(1), 0.0)
        total = F.cross_entropy(
            prediction, target, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=self.label_smoothing
        )
        return total / mask.sum().clamp(min=1)

    def metrics(self, device: torch.device) -> ClassificationMetrics:
        """Accuracy and macro F1."""
        return ClassificationMetrics(self, device)

    def _class_indices(self, target: Tensor) -> Tensor:
        """Indices int64 [B], IGNORE_INDEX where missing, whichever type the target is of."""
        if self.target.type == "binary" and self.target.missing:
            target = target.nan_to_num(nan=IGNORE_INDEX)
        return target.long()


class ClassificationMetrics:
    """Accuracy and macro F1 from exact counts per class."""

    def __init__(self, kind: Classification, device: torch.device) -> None:
        self._class_indices = kind._class_indices
        self._classes = torch.arange(kind.outputs, device=device)
        self._counts = Counts(kind.outputs, device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: logits [B, classes]."""
        target = self._class_indices(target).unsqueeze(1)
        one_hot = (target == self._classes).to(torch.int8).masked_fill(~is_labelled(target), MISSING)
        predicted = prediction.argmax(1, keepdim=True) == self._classes
        # Where a logit is NaN, argmax takes it for the largest; no class is predicted then.
        self._counts.update(predicted & ~prediction.isnan().any(1, keepdim=True), one_hot)

    def compute(self) -> dict[str, float]:
        """float64 values; NaN where no example was labelled."""
        counts = self._counts.read()
        tp, _, _, fn = counts
        return {"accuracy": (tp.sum() / (tp + fn).sum()).item(), "f1": f1(counts).nanmean().item()}
