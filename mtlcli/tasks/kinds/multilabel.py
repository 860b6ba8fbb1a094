"""Several labels, each yes or no."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.base import Direction, TaskKind, masked_mean
from mtlcli.tasks.metrics import MISSING, Counts, f1, is_yes


@kinds.register("multilabel")
class Multilabel(TaskKind):
    """Several labels, each yes or no: cross-entropy of one sigmoid per label. Metrics: f1, accuracy.

    prediction: logits [B, labels]. target: 0/1 [B, labels], NaN where an entry is missing. A row counts as labelled
    if any of its entries is; the loss is the mean over the labelled rows of each row's mean over its labelled entries,
    so that the mean over an epoch weighs every labelled row alike however the rows fell into batches.
    `f1` (the primary metric) and `accuracy` take a logit above 0 for "yes" and are means over the labels (macro) that
    have labelled entries; the f1 of a label that neither occurs nor is predicted is 0, as in torchmetrics.
    """

    accepts = ("multilabel",)
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "f1": "max", "accuracy": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"f1", "accuracy"})
    probabilities = "sigmoid"
    primary = "f1"

    def __init__(self, target: TargetSpec) -> None:
        super().__init__(target)
        self.outputs = target.size

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over the labelled rows of the mean binary cross-entropy over their labelled entries."""
        prediction = prediction.float()
        if not self.target.missing:
            return F.binary_cross_entropy_with_logits(prediction, target.float())
        mask = is_labelled(target)
        # Whatever an unlabelled entry predicts, ∞ included, it doesn't reach the gradient.
        losses = F.binary_cross_entropy_with_logits(
            prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0.0).float(), reduction="none"
        )
        return masked_mean(masked_mean(losses, mask, dim=1), mask.any(dim=1))

    def metrics(self, device: torch.device) -> MultilabelMetrics:
        """Macro F1 and accuracy."""
        return MultilabelMetrics(self.outputs, device)


class MultilabelMetrics:
    """Macro F1 and accuracy from exact counts per label."""

    def __init__(self, labels: int, device: torch.device) -> None:
        self._counts = Counts(labels, device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: logits [B, labels]."""
        labels = target.nan_to_num(nan=MISSING).to(torch.int8)
        self._counts.update(is_yes(prediction, labels), labels)

    def compute(self) -> dict[str, float]:
        """float64 values; NaN where no entry was labelled."""
        counts = self._counts.read()
        counts = counts[:, counts.sum(0) > 0]
        tp, _, tn, _ = counts
        return {"f1": f1(counts).nan_to_num().mean().item(), "accuracy": ((tp + tn) / counts.sum(0)).mean().item()}
