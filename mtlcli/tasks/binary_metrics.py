"""Metrics of 0/1 labels: exact counts, average precision, area under the ROC curve and calibration error.

Metrics without weights are those of torchmetrics, which has none with weights: those are computed here, in float64.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from lightning_utilities.core import imports
from torch import Tensor

from mtlcli.tasks import sample_weights

BINS = 15  # of the calibration error, as in torchmetrics and in the paper
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


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Compute the area under the ROC curve: the share of pairs (1, 0) in which the 1 scores higher; ties count half.

    The area depends only on the order of the scores, so logits are ranked directly: their sigmoids are all 1 in float32
    from 17 on, and torchmetrics counts them as ties. The pairs are counted in integers.

    Args:
        scores: scores, [N].
        labels: labels, integers [N]: 1, 0, or MISSING_LABEL for examples to ignore.

    Returns:
        The area; NaN unless both labels occur, or if a labelled score is NaN.
    """
    mask = labels != MISSING_LABEL
    scores, order = scores[mask].sort()
    positive = labels[mask][order].long()
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives or bool(scores.isnan().any()):
        return float("nan")
    _, sizes = torch.unique_consecutive(scores, return_counts=True)
    last = sizes.cumsum(0) - 1  # of each group of equal scores
    zero = torch.zeros(1, dtype=torch.long, device=scores.device)
    ones = torch.cat([zero, positive.cumsum(0)[last]]).diff()
    zeros = sizes - ones
    below = zeros.cumsum(0) - zeros
    halves = int((ones * (2 * below + zeros)).sum())
    return halves / (2 * positives * negatives)


def average_precision(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> float:
    """Compute the average precision Σ_n (R_n − R_{n−1}) P_n over the distinct scores, which summarizes the PR curve.

    It depends only on the order of the scores, so their ranks are used, which have no ties that the scores don't have.

    Args:
        scores: scores, [N]; larger ones are more likely to be labelled 1.
        labels: labels, integers [N]: 1 or 0.
        weight: weights of the examples, float64 [N]; None for equal weights.

    Returns:
        The average precision; NaN if no label is 1, or if a score is NaN.
    """
    if not bool((labels == 1).any()) or bool(scores.isnan().any()):
        return float("nan")
    distinct, ranks = torch.unique(scores, return_inverse=True)
    if weight is None:
        import_torchmetrics()
        from torchmetrics.functional.classification import binary_average_precision

        # numbers in [0, 1], which torchmetrics takes as they are
        return float(binary_average_precision(ranks.double() / len(distinct), labels.long()))
    zero = torch.zeros(len(distinct), dtype=torch.float64)
    ones = zero.index_add(0, ranks, weight * (labels == 1)).flip(0)
    all_of_them = zero.index_add(0, ranks, weight).flip(0)
    precision = ones.cumsum(0) / all_of_them.cumsum(0)
    return float((ones * precision).sum() / ones.sum())


def roc_auc(scores: Tensor, labels: Tensor, weight: Tensor | None = None) -> float:
    """Compute the area under the ROC curve.

    Args:
        scores: scores, [N].
        labels: labels, integers [N]: 1 or 0.
        weight: weights of the examples, float64 [N]; None for equal weights.

    Returns:
        The area; NaN unless both labels occur, or if a score is NaN.
    """
    return auroc(scores, labels) if weight is None else sample_weights.weighted_auroc(scores, labels, weight)


def calibration_bins(confidence: Tensor, correct: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum weights, confidences and correct predictions in bins of the confidence, of equal width and open on the right.

    As in torchmetrics, the confidence 1 has a bin of its own.

    Args:
        confidence: predicted probabilities, [N].
        correct: whether what they predict is true, bool [N].
        weight: weights of the examples, float64 [N]; None for equal weights.

    Returns:
        The sums of weights, of weighted confidences and of the weights of correct predictions, float64
        [3, BINS + 1].
    """
    confidence = confidence.double()
    weight = torch.ones_like(confidence) if weight is None else weight
    bins = torch.bucketize(confidence, torch.linspace(0, 1, BINS + 1, dtype=torch.float64), right=True) - 1
    values = torch.stack([weight, weight * confidence, weight * correct])
    return torch.zeros(3, BINS + 1, dtype=torch.float64).index_add(1, bins, values)


def calibration_error(confidence: Tensor, correct: Tensor, weight: Tensor | None = None) -> float:
    """Compute the expected calibration error (ECE): the mean over the bins of |share of correct ones − confidence|.

    References:
        Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, ICML 2017, eq. 5.

    Args:
        confidence: predicted probabilities, [N].
        correct: whether what they predict is true, bool [N].
        weight: weights of the examples, float64 [N]; None for equal weights.

    Returns:
        The error; NaN if a confidence is NaN.
    """
    if bool(confidence.isnan().any()):
        return float("nan")
    if weight is None:
        import_torchmetrics()
        from torchmetrics.functional.classification import binary_calibration_error

        return float(binary_calibration_error(confidence.double(), correct.long(), n_bins=BINS))
    total, confident, right = calibration_bins(confidence, correct, weight)
    return float((right - confident).abs().sum() / total.sum())


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
