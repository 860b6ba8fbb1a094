"""Metrics of scores and probabilities: average precision, area under the ROC curve and calibration error.

Without weights, they are those of torchmetrics, which has none with weights: those are computed here, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtlcli.tasks.label_counts import MISSING_LABEL, import_torchmetrics
from mtlcli.tasks.sample_weights import weighted_auroc

BINS = 15  # of the calibration error, as in torchmetrics and in the paper


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
    return auroc(scores, labels) if weight is None else weighted_auroc(scores, labels, weight)


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
