"""Binary classification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from mtlcli.errors import suggest
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction, Metrics, TaskKind, masked_mean
from mtlcli.tasks.binary_maps import BINARY_MAP_METRICS, ONLY_MAPS, BinaryMapColumns
from mtlcli.tasks.binary_metrics import MISSING_LABEL, LabelCounts, f1_scores, predict_positive, roc_auc
from mtlcli.tasks.class_metrics import BINARY_METRICS
from mtlcli.tasks.collected_metrics import CollectedMetric, bounded_metrics
from mtlcli.tasks.columns import ClassColumns, Columns, in_float64
from mtlcli.tasks.decoding import Decoded, decode_class_map
from mtlcli.tasks.pixels import flatten_maps
from mtlcli.tasks.sample_weights import weighted_mean
from mtlcli.tasks.summed_metrics import SummedMetrics, check_metrics

MAX_LISTED = 5  # classes that a message names


@kinds.register("binary")
class Binary(TaskKind):
    """Binary classification: sigmoid cross-entropy. Metrics: accuracy, auroc, f1.

    Predictions are logits [B, 1]; targets are 0/1 [B], or the indices [B] of a target with two classes. The positive
    class is 1, or the second of the target's classes in their order (`yes` of `no` and `yes`, `legit` of `fraud` and
    `legit`), unless `positive` names the other one. The metric tables, `mtl summary` and the log name the positive
    class.

    `accuracy` and `f1` predict the positive class for logits above 0; f1 is 0 if the positive class neither occurs nor
    is predicted. `auroc` is the exact area under the ROC curve, NaN unless both labels occur.

    A target that is a map has a label for each pixel (edges, saliency): predictions are logits [B, 1, H, W], and the
    loss is the mean over all labelled pixels of a batch. All metrics are over the labelled pixels of the split. `iou`
    (tp / (tp + fp + fn)) and `max_f1` (the largest F1 of any threshold) are metrics of maps only. Those of ranks,
    `auroc`, `average_precision` and `max_f1`, are computed from a histogram of the logits from −16 to 16 with bins of
    1/256, so that memory is bounded.

    Args:
        target: the target, of type `binary`, of two `classes`, or of type `binary_map`.
        positive: name of the positive class (0 or 1 for a 0/1 target), usually the rare one; `pos_weight` and `f1`
            refer to it.
        pos_weight: factor on the loss of positive examples; the mean still divides by the number of examples (with
            weights, by their sum, which doesn't contain it).
        primary: metric that represents the task if none is named; `auroc` or `f1` if one class is rare.

    Raises:
        ValueError: if the target doesn't have two classes, or has no class `positive`.
    """

    accepts = ("binary", "classes", "binary_map")
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "accuracy": "max", "auroc": "max", "f1": "max"}
    bounded: ClassVar[frozenset[str]] = bounded_metrics(BINARY_METRICS) | ONLY_MAPS.keys()
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric for name, metric in BINARY_METRICS.items() if name not in ("accuracy", "auroc", "f1")
    } | ONLY_MAPS
    probabilities = "sigmoid"
    weighs_classes = True
    outputs = 1

    def __init__(
        self,
        target: TargetSpec,
        *,
        positive: str | int | bool | None = None,
        pos_weight: PositiveFloat = 1.0,
        primary: Literal["accuracy", "auroc", "f1"] = "accuracy",
    ) -> None:
        super().__init__(target)
        self.primary = primary
        self.predicts = "map" if target.type == "binary_map" else "vector"
        if target.type == "classes" and target.size != 2:
            examples = [repr(name) for name in (target.classes or ())[:MAX_LISTED]] + ["…"] * (target.size > MAX_LISTED)
            shown = f" ({', '.join(examples)})" if target.classes else ""
            raise ValueError(
                f"class count mismatch: binary needs a target of 2 classes, got {target.size}{shown}; "
                "for more than 2 classes use the kind 'classification'"
            )
        self.pos_weight = pos_weight
        names = target.classes or ("0", "1")
        chosen = 1 if positive is None else _index(positive, names)
        self.positive, self._positive, self._inverted = names[chosen], chosen, chosen == 0

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of 2; see `TaskKind.chance_loss`."""
        return math.log(2)

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean binary cross-entropy over the labelled examples or pixels; see `TaskKind.loss`."""
        if self.predicts == "map":
            prediction, target, weight = flatten_maps(prediction, target, weight)
        prediction = prediction.float().squeeze(1)
        target = invert(target) if self._inverted else target
        if not self.target.missing and weight is None:
            return self._losses(prediction, target.float()).mean()
        mask = is_labelled(target) if weight is None else is_labelled(target) & (weight > 0)
        # the prediction of an unlabelled row, even if infinite, doesn't reach the gradient
        losses = self._losses(prediction.masked_fill(~mask, 0.0), target.masked_fill(~mask, 0).float())
        return masked_mean(losses, mask) if weight is None else weighted_mean(losses, mask, weight)

    def choose_metrics(self, names: Sequence[str]) -> None:
        """Set the metrics that the task reports; see `TaskKind.choose_metrics`.

        Args:
            names: the names.

        Raises:
            ValueError: a metric doesn't apply to the form of the target.
        """
        if self.predicts == "map":
            check_metrics(names, BINARY_MAP_METRICS, "a label for each pixel")
        elif only := [name for name in names if name in ONLY_MAPS]:
            raise ValueError(f"the metric {only[0]!r} applies only to targets with a label for each pixel")
        super().choose_metrics(names)

    def create_metrics(self, device: torch.device) -> Metrics:
        """Create the metrics that the task reports; see `TaskKind.create_metrics`."""
        if self.predicts == "map":
            return self.collect([name for name in self.reported if name != "loss"])
        return super().create_metrics(device)

    def metrics(self, device: torch.device) -> Metrics:
        """Create the metrics accuracy, area under the ROC curve and F1."""
        if self.predicts == "map":
            return self.collect([name for name in self.directions if name != "loss"])
        return BinaryMetrics(device, self._inverted)

    def collect(self, names: Sequence[str]) -> Metrics:
        """Create metrics that are computed from the examples or pixels; see `TaskKind.collect`."""
        if self.predicts == "map":
            return SummedMetrics(BINARY_MAP_METRICS, names, self.columns)
        return super().collect(names)

    def columns(self, prediction: Tensor, target: Tensor) -> Columns:
        """Return the numbers of a batch from which metrics are computed."""
        if self.predicts == "map":
            return BinaryMapColumns(prediction.squeeze(1), target, self._inverted)
        logits = in_float64(prediction)
        predicted = torch.where(logits.squeeze(1) > 0, self._positive, 1 - self._positive)
        both = [F.logsigmoid(-logits), F.logsigmoid(logits)]
        labels = target.masked_fill(~is_labelled(target), -1).long()
        return ClassColumns(
            torch.cat(both if self._positive == 1 else both[::-1], 1),
            predicted.masked_fill(logits.squeeze(1).isnan(), -1),
            labels,
            self._positive,
        )

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the predicted class of each example or pixel, and the probabilities; see `TaskKind.decode`."""
        if self.predicts != "map":
            return super().decode(outputs)
        logits = at_least_float32(outputs)
        both = torch.cat([(-logits).sigmoid(), logits.sigmoid()][:: 1 if self._positive == 1 else -1], 1)
        predicted = torch.where(logits.squeeze(1) > 0, self._positive, 1 - self._positive)
        return decode_class_map(both, self.class_names, predicted)

    def _losses(self, prediction: Tensor, target: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
        return losses if self.pos_weight == 1.0 else losses * (1.0 + (self.pos_weight - 1.0) * target)


def invert(target: Tensor) -> Tensor:
    """Exchange 0 and 1 in a target, and keep missing labels.

    Args:
        target: labels 0/1, [B].

    Returns:
        The exchanged labels, [B].
    """
    return torch.where(is_labelled(target), 1 - target, target)


def _index(positive: str | int | bool, names: tuple[str, ...]) -> int:
    """Return the index in `names` of the class that the option `positive` names."""
    aliases = {"true": "1", "false": "0"} if names == ("0", "1") else {}
    wanted = str(positive)
    for normalize in (str, str.lower):
        for index, name in enumerate(names):
            if normalize(name) in (normalize(wanted), aliases.get(wanted.lower())):
                return index
    hint = suggest(wanted, names)
    raise ValueError(f"`positive`: the target has no class {wanted!r}.{hint} Its classes: {', '.join(names)}")


class BinaryMetrics:
    """Accuracy and F1 from exact counts, and the area under the ROC curve from all logits, which are kept.

    Args:
        device: device of the predictions and labels.
        inverted: whether class 0 is the positive one.
    """

    def __init__(self, device: torch.device, inverted: bool = False) -> None:
        self._inverted = inverted
        self._counts = LabelCounts(1, device)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._weights: list[Tensor] = []

    def update(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            prediction: logits, [B, 1].
            target: labels, [B].
            weight: weights of the examples, [B], in all batches or in none.
        """
        logits, mask = at_least_float32(prediction).squeeze(1), is_labelled(target)
        target = invert(target) if self._inverted else target
        labels = target.masked_fill(~mask, 0).to(torch.int8).masked_fill(~mask, MISSING_LABEL)
        self._counts.update(predict_positive(logits, labels).unsqueeze(1), labels.unsqueeze(1), weight)
        if weight is not None:
            self._weights.append(weight)
        self._logits.append(logits)
        self._labels.append(labels)

    def compute(self) -> dict[str, float]:
        """Return metric → value over all batches; NaN if no example was labelled."""
        counts = self._counts.read()
        tp, fp, tn, fn = counts[:, 0].tolist()
        total = tp + fp + tn + fn
        return {
            "accuracy": (tp + tn) / total if total else float("nan"),
            "auroc": self._auroc() if total else float("nan"),
            "f1": f1_scores(counts).nan_to_num().item() if total else float("nan"),
        }

    def _auroc(self) -> float:
        logits, labels = torch.cat(self._logits), torch.cat(self._labels)
        return roc_auc(logits, labels, torch.cat(self._weights) if self._weights else None)
