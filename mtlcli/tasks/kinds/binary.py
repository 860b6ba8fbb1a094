"""Yes or no."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec
from mtlcli.tasks.counts import MISSING, Counts, f1
from mtlcli.tasks.kind import Direction, TaskKind
from mtlcli.tasks.labels import labelled, masked_mean
from mtlcli.tasks.lean_torchmetrics import import_torchmetrics


@kinds.register("binary")
class Binary(TaskKind):
    """Yes or no: cross-entropy of one sigmoid. Metrics: accuracy, auroc, f1.

    prediction: logits [B, 1]. target: 0/1 [B], or the indices [B] of a target with two classes, of which the second
    is "yes". `accuracy` and `f1` take a logit above 0 for "yes"; f1 is 0 where "yes" neither occurs nor is predicted.
    `auroc` is the exact area under the ROC curve, NaN unless both labels occur.

    Options:
        pos_weight: factor on the loss of the examples labelled "yes"; the mean still divides by the number of examples.
        primary: the metric that the task is judged by where none is named; `auroc` or `f1` where one answer is rare.
    """

    accepts = ("binary", "classes")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "auroc": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = frozenset({"accuracy", "auroc", "f1"})
    outputs = 1

    def __init__(
        self,
        target: TargetSpec,
        *,
        pos_weight: PositiveFloat = 1.0,
        primary: Literal["accuracy", "auroc", "f1"] = "accuracy",
    ) -> None:
        super().__init__(target)
        self.primary = primary
        if target.type == "classes" and target.size != 2:
            raise ValueError(
                f"class count mismatch: binary takes a target of 2 classes, and this one has {target.size}; "
                "for more than 2 there is the kind 'classification'"
            )
        self.pos_weight = pos_weight

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean binary cross-entropy over the labelled examples."""
        prediction = prediction.float().squeeze(1)
        if not self.target.missing:
            return self._losses(prediction, target.float()).mean()
        mask = labelled(target)
        # Whatever an unlabelled row predicts, ∞ included, it doesn't reach the gradient.
        losses = self._losses(prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0).float())
        return masked_mean(losses, mask)

    def metrics(self, device: torch.device) -> BinaryMetrics:
        """Accuracy, area under the ROC curve, F1."""
        return BinaryMetrics(device)

    def _losses(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        return losses if self.pos_weight == 1.0 else losses * (1.0 + (self.pos_weight - 1.0) * target)


class BinaryMetrics:
    """Accuracy and F1 from exact counts; the area under the ROC curve from all predictions, which it keeps."""

    def __init__(self, device: torch.device) -> None:
        import_torchmetrics()
        from torchmetrics.classification import BinaryAUROC

        self._counts = Counts(1, device)
        self._auroc = BinaryAUROC(ignore_index=MISSING, validate_args=False).to(device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """prediction: logits [B, 1]."""
        prediction, mask = prediction.float(), labelled(target)
        target = target.masked_fill(~mask, 0).to(torch.int8).masked_fill(~mask, MISSING)
        self._counts.update(prediction > 0, target.unsqueeze(1))
        # As probabilities: torchmetrics takes logits for probabilities wherever a batch's are all in [0, 1].
        self._auroc.update(prediction.squeeze(1).sigmoid(), target)

    def compute(self) -> dict[str, float]:
        """float64 values (auroc to 7 digits, being computed in float32); NaN where no example was labelled."""
        counts = self._counts.read()
        tp, fp, tn, fn = counts[:, 0].tolist()
        total, both = tp + fp + tn + fn, tp + fn > 0 and tn + fp > 0
        return {
            "accuracy": (tp + tn) / total if total else float("nan"),
            "auroc": round(self._auroc.compute().item(), 7) if both else float("nan"),
            "f1": f1(counts).nan_to_num().item() if total else float("nan"),
        }
