"""A class for each pixel of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from mtlcli.registry import kinds
from mtlcli.specs import IGNORE_INDEX, TargetSpec, at_least_float32, is_labelled
from mtlcli.tasks.base import Direction
from mtlcli.tasks.class_metrics import macro
from mtlcli.tasks.collected_metrics import CollectedMetric, bounded_metrics
from mtlcli.tasks.columns import Collected, in_float64
from mtlcli.tasks.decoding import Decoded, decode_class_map
from mtlcli.tasks.map_kind import MapKind
from mtlcli.tasks.pixels import count_codes, counted_pixels, pixel_mean, pixel_weights


class SegmentationColumns:
    """Numbers of each image from which the metrics of a class for each pixel are computed.

    Args:
        logits: logits, [B, classes, H, W].
        target: classes, int64 [B, H, W]; IGNORE_INDEX if missing.
    """

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        self._logits, self._target, self._mask = logits, target, is_labelled(target)

    def labelled(self) -> Tensor:
        """Return the mask of the images with a labelled pixel, bool [B]."""
        return self._mask.flatten(1).any(1)

    def confusion(self) -> Tensor:
        """Count the labelled pixels by class and predicted class, the last for none: int64 [B, classes, classes + 1].

        A pixel with a logit that is NaN has no predicted class.
        """
        classes = self._logits.shape[1]
        highest, predicted = self._logits.max(1)  # NaN if a logit is
        codes = self._target * (classes + 1) + predicted.masked_fill(highest.isnan(), classes)
        counts = count_codes(codes.flatten(1), self._mask.flatten(1), classes * (classes + 1))
        return counts.view(-1, classes, classes + 1)

    def log_loss(self) -> Tensor:
        """Return the sum of −log p of the labels' classes over the pixels of each image, float64 [B]."""
        losses = F.cross_entropy(self._logits.float(), self._target, ignore_index=IGNORE_INDEX, reduction="none")
        return in_float64(losses.flatten(1)).masked_fill(~self._mask.flatten(1), 0.0).sum(1)


def _count(sums: Collected) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of pixels of each class that are right, predicted, and labelled, float64 [classes] each."""
    confusion = sums["confusion"].double()
    return confusion.diagonal(), confusion.sum(0)[:-1], confusion.sum(1)


def _of_occurring(values: Tensor, occurs: Tensor) -> Tensor:
    """Replace 0/0 by 0 for a class that occurs among the labels or predictions, and otherwise return NaN."""
    return torch.where(occurs, values.nan_to_num(nan=0.0), torch.nan)


def iou_by_class(sums: Collected) -> Tensor:
    """Compute tp / (tp + fp + fn) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    right, predicted, labels = _count(sums)
    return right / (predicted + labels - right)


def precision_by_class(sums: Collected) -> Tensor:
    """Compute tp / (tp + fp) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    right, predicted, labels = _count(sums)
    return _of_occurring(right / predicted, predicted + labels > 0)


def recall_by_class(sums: Collected) -> Tensor:
    """Compute tp / (tp + fn) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    right, predicted, labels = _count(sums)
    return _of_occurring(right / labels, predicted + labels > 0)


def f1_by_class(sums: Collected) -> Tensor:
    """Compute 2 tp / (2 tp + fp + fn) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    right, predicted, labels = _count(sums)
    return 2 * right / (predicted + labels)


def balanced_accuracy(sums: Collected) -> Tensor:
    """Compute the mean recall of the classes that occur among the labels."""
    right, _, labels = _count(sums)
    return (right / labels)[labels > 0].mean()


def pixel_accuracy(sums: Collected) -> Tensor:
    """Compute the share of the labelled pixels whose class is predicted."""
    right, _, labels = _count(sums)
    return right.sum() / labels.sum()


def log_loss(sums: Collected) -> Tensor:
    """Compute the mean of −log p of the labels' classes over the labelled pixels."""
    return sums["log_loss"] / sums["confusion"].double().sum()


BY_CLASS = {"iou": iou_by_class, "precision": precision_by_class, "recall": recall_by_class, "f1": f1_by_class}
COUNTS = ("confusion",)
SEGMENTATION_METRICS: dict[str, CollectedMetric] = {
    "miou": CollectedMetric("max", COUNTS, macro(iou_by_class)),
    "pixel_accuracy": CollectedMetric("max", COUNTS, pixel_accuracy),
    "balanced_accuracy": CollectedMetric("max", COUNTS, balanced_accuracy),
    **{name: CollectedMetric("max", COUNTS, macro(function)) for name, function in BY_CLASS.items() if name != "iou"},
    "log_loss": CollectedMetric("min", ("confusion", "log_loss"), log_loss),
    **{f"{name}_per_class": CollectedMetric("max", COUNTS, function) for name, function in BY_CLASS.items()},
}


@kinds.register("segmentation")
class Segmentation(MapKind):
    """A class for each pixel of an image: softmax cross-entropy. Metrics: miou, pixel_accuracy.

    Predictions are logits [B, classes, H, W]; targets are classes, int64 [B, H, W]. The loss is the mean over all
    labelled pixels of a batch, so an image with more of them counts more. A step with gradient accumulation and an
    evaluation compute the mean over all their pixels.

    All metrics are computed from one confusion matrix of all labelled pixels of the split, not as means over batches or
    images. `miou` (the primary metric) is the mean of tp / (tp + fp + fn) of the classes that occur among the labels or
    the predictions of the split; the others are left out. `pixel_accuracy` is the share of the pixels whose class is
    predicted. LibMTL and Nash-MTL use one confusion matrix too; their mean IoU is NaN if a class neither occurs nor is
    predicted. MTAN computes both metrics for each image, and reports the means of the batches' means over images.

    Args:
        target: the target, of type `class_map`.
        classes: expected number of classes; null: any number.
        label_smoothing: share ε of the target's probability that is distributed equally among all classes.

    Raises:
        ValueError: if the target doesn't have `classes` classes.
    """

    accepts = ("class_map",)
    directions: ClassVar[dict[str, Direction]] = {"loss": "min", "miou": "max", "pixel_accuracy": "max"}
    bounded: ClassVar[frozenset[str]] = bounded_metrics(SEGMENTATION_METRICS)
    table = SEGMENTATION_METRICS
    collected: ClassVar[Mapping[str, CollectedMetric]] = {
        name: metric for name, metric in SEGMENTATION_METRICS.items() if name not in ("miou", "pixel_accuracy")
    }
    probabilities = "softmax"
    weighs_classes = True
    primary = "miou"

    def __init__(
        self,
        target: TargetSpec,
        *,
        classes: Annotated[int, Field(gt=0)] | None = None,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__(target)
        self.outputs = target.size
        if classes is not None and classes != self.outputs:
            raise ValueError(f"class count mismatch: `classes` is {classes}, and the target has {self.outputs}")
        self.label_smoothing = label_smoothing

    @property
    def chance_loss(self) -> float | None:
        """The logarithm of the number of classes; see `TaskKind.chance_loss`."""
        return math.log(self.outputs) if self.outputs > 1 else None

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean cross-entropy over the labelled pixels; see `TaskKind.loss`.

        Args:
            prediction: logits of any precision, [B, classes, H, W].
            target: classes, int64 [B, H, W].
            weight: weights of the images, float32 [B], or of their pixels, [B, H, W]; None for equal weights.

        Returns:
            The mean loss, float32, 0-d.
        """
        logits = prediction.float()
        if not self.target.missing and weight is None:
            return self._losses(logits, target).mean()
        weight = pixel_weights(weight, target)
        mask = counted_pixels(target, weight)
        # the prediction of an unlabelled pixel, even if infinite, doesn't reach the gradient
        return pixel_mean(self._losses(logits.masked_fill(~mask.unsqueeze(1), 0.0), target), mask, weight)

    def columns(self, prediction: Tensor, target: Tensor) -> SegmentationColumns:
        """Return the numbers of the images of a batch from which metrics are computed."""
        return SegmentationColumns(prediction, target)

    def decode(self, outputs: Tensor) -> Decoded:
        """Return the position of the class of each pixel, −1 where a logit is NaN; see `TaskKind.decode`."""
        return decode_class_map(at_least_float32(outputs).softmax(1), self.class_names)

    def _losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy of each pixel, [B, H, W]; the sum of torch is not deterministic on CUDA."""
        return F.cross_entropy(
            logits, target, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=self.label_smoothing
        )
