"""Multi-label classification."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, masked_mean
from mtlcli.tasks.binary_metrics import MISSING_LABEL, LabelCounts, f1_scores, predict_positive
from mtlcli.tasks.collected_metrics import CollectedMetric, bounded_metrics
from mtlcli.tasks.columns import LabelColumns
from mtlcli.tasks.label_metrics import LABEL_METRICS
from mtlcli.tasks.sample_weights import weighted_mean


@kinds.register("multilabel")
class Multilabel(TaskKind):
    """Multi-label classification: sigmoid cross-entropy for each label. Metrics: f1, accuracy.

    Predictions are logits [B, labels]; targets are 0/1 [B, labels], NaN for a missing entry. A row is labelled if any
    of its entries is. The loss is the mean over the labelled rows of each row's mean over its labelled entries, so that
    the mean over an epoch gives every labelled row the same weight, independent of the batches.

    `f1` (the primary metric) and `accuracy` predict the labels whose logits are above 0, and are means (macro) over the
    labels that have labelled entries; the f1 of a label that neither occurs nor is predicted is 0, as in torchmetrics.

    Args:
        target: the target, of type `multilabel`.
    """

    accepts = ("multilabel",)
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "f1": "max", "accuracy": "max"}
    bounded: ClassVar[frozenset[str]] = bounded_metrics(LABEL_METRICS) | {"accuracy"}
    collected: ClassVar[Mapping[str, CollectedMetric]] = {k: v for k, v in LABEL_METRICS.items() if k != "f1"}
    probabilities = "sigmoid"
    primary = "f1"

    def __init__(self, target: TargetSpec) -> None:
        super().__init__(target)
        self.outputs = target.size

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of 2, since the loss is a mean over the labels; see `TaskKind.chance_loss`."""
        return math.log(2)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean over the labelled rows of their mean binary cross-entropy; see `TaskKind.loss`."""
        prediction = prediction.float()
        if not self.target.missing and weight is None:
            return F.binary_cross_entropy_with_logits(prediction, target.float())
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0).unsqueeze(1)
        # the prediction of an unlabelled entry, even if infinite, doesn't reach the gradient
        losses = F.binary_cross_entropy_with_logits(
            prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0.0).float(), reduction="none"
        )
        rows = masked_mean(losses, mask, dim=1)
        return masked_mean(rows, mask.any(1)) if weight is None else weighted_mean(rows, mask.any(1), weight)

    def metrics(self, device: torch.device) -> MultilabelMetrics:
        """Create the metrics macro F1 and accuracy."""
        return MultilabelMetrics(self.outputs, device)

    def columns(self, prediction: Tensor, target: Tensor) -> LabelColumns:
        """Return the numbers of a batch from which metrics are computed."""
        return LabelColumns(at_least_float32(prediction), target)


class MultilabelMetrics:
    """Macro F1 and accuracy from exact counts per label.

    Args:
        labels: number of labels.
        device: device of the predictions and labels.
    """

    def __init__(self, labels: int, device: torch.device) -> None:
        self._counts = LabelCounts(labels, device)

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: logits, [B, labels].
            target: labels, [B, labels].
            weight: weights of the examples, [B].
        """
        labels = target.nan_to_num(nan=MISSING_LABEL).to(torch.int8)
        self._counts.update(predict_positive(prediction, labels), labels, weight)

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no entry was labelled."""
        counts = self._counts.read()
        counts = counts[:, counts.sum(0) > 0]
        tp, _, tn, _ = counts
        return {
            "f1": f1_scores(counts).nan_to_num().mean().item(),
            "accuracy": ((tp + tn) / counts.sum(0)).mean().item(),
        }
