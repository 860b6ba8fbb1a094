"""Metrics of predicted classes, for kinds with one class for each example.

Counts and means are computed in float64: the ratios of torchmetrics are float32, without weights, and its balanced
accuracy has another definition than scikit-learn's (a class that is only predicted counts as a recall of 0).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtlcli.tasks.binary_metrics import average_precision, calibration_error, import_torchmetrics, roc_auc
from mtlcli.tasks.collected_metrics import CollectedMetric, varies
from mtlcli.tasks.columns import Collected


def count_classes(collected: Collected) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the weights of the examples by class.

    Args:
        collected: the columns `label` and `predicted`.

    Returns:
        The sums over the correct predictions, all predictions and all labels of each class, float64 [classes] each.
    """
    labels, predicted, weight = collected["label"], collected["predicted"], collected.weight

    def count(classes: Tensor, rows: Tensor) -> Tensor:
        weights = None if weight is None else weight[rows]
        return torch.bincount(classes[rows], weights, minlength=collected.size).double()

    return (
        count(labels, labels == predicted),
        count(predicted, predicted >= 0),
        count(labels, labels >= 0),
    )


def _ratio(numerator: Tensor, denominator: Tensor, occurs: Tensor) -> Tensor:
    """Divide; 0/0 is 0 for a class that occurs, as in scikit-learn, and otherwise NaN."""
    return torch.where(denominator > 0, numerator / denominator, torch.where(occurs, 0.0, torch.nan))


def precision_by_class(collected: Collected) -> Tensor:
    """Compute tp / (tp + fp) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    correct, predicted, labels = count_classes(collected)
    return _ratio(correct, predicted, labels > 0)


def recall_by_class(collected: Collected) -> Tensor:
    """Compute tp / (tp + fn) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    correct, predicted, labels = count_classes(collected)
    return _ratio(correct, labels, predicted > 0)


def f1_by_class(collected: Collected) -> Tensor:
    """Compute 2 tp / (2 tp + fp + fn) of each class, [classes]; NaN for one that neither occurs nor is predicted."""
    correct, predicted, labels = count_classes(collected)
    return 2 * correct / (predicted + labels)


def balanced_accuracy(collected: Collected) -> Tensor:
    """Compute the mean recall of the classes that occur among the labels."""
    correct, _, labels = count_classes(collected)
    return (correct / labels)[labels > 0].mean()


def accuracy(collected: Collected) -> Tensor:
    """Compute the share of the examples whose class is predicted."""
    return collected.mean(collected["label"] == collected["predicted"])


def log_loss(collected: Collected) -> Tensor:
    """Compute the mean of −log p of the label's class."""
    return -collected.mean(collected["log_probability"])


def expected_calibration_error(collected: Collected) -> Tensor:
    """Compute the calibration error of the positive class, or that of the most probable one."""
    return torch.tensor(
        calibration_error(collected["confidence"], collected["correct"], collected.weight), dtype=torch.float64
    )


def average_precision_by_class(collected: Collected) -> Tensor:
    """Compute the average precision of each class against the others, [classes]; NaN for one that doesn't occur."""
    return _by_class(average_precision, collected)


def roc_auc_by_class(collected: Collected) -> Tensor:
    """Compute the area under the ROC curve of each class against the others, [classes]; NaN if undefined."""
    return _by_class(roc_auc, collected)


def _by_class(score: Callable[[Tensor, Tensor, Tensor | None], float], collected: Collected) -> Tensor:
    scores, labels = collected["log_odds"], collected["label"]
    values = [score(scores[:, k], (labels == k).long(), collected.weight) for k in range(collected.size)]
    return torch.tensor(values, dtype=torch.float64)


def mean_absolute_rank_error(collected: Collected) -> Tensor:
    """Compute the mean distance of the predicted class from the label in ranks; NaN if a prediction is NaN."""
    distance = (collected["label"] - collected["predicted"]).abs().double()
    return collected.mean(distance.masked_fill(collected["predicted"] < 0, torch.nan))


def quadratic_kappa(collected: Collected) -> Tensor:
    """Compute Cohen's kappa with quadratic weights: 1 − Σ d²O / Σ d²E, with the expected counts E by chance.

    It is NaN if a prediction is NaN, or if all labels and predictions are the same class.

    References:
        Cohen, Weighted kappa: nominal scale agreement with provision for scaled disagreement or partial credit,
            Psychological Bulletin 1968.

    Args:
        collected: the columns `label` and `predicted`.

    Returns:
        The kappa, at most 1.
    """
    labels, predicted, weight = collected["label"], collected["predicted"], collected.weight
    if bool((predicted < 0).any()) or not varies(torch.cat([labels, predicted])):
        return torch.tensor(torch.nan)
    if weight is None:
        import_torchmetrics()
        from torchmetrics.functional.classification import multiclass_cohen_kappa

        return multiclass_cohen_kappa(predicted, labels, collected.size, weights="quadratic")
    _, expected, actual = count_classes(collected)
    ranks = torch.arange(collected.size, dtype=torch.float64)
    by_chance = (actual.outer(expected) * (ranks.unsqueeze(1) - ranks).square()).sum() / weight.sum()
    return 1 - ((labels - predicted).square() * weight).sum() / by_chance


def macro(by_class: Callable[[Collected], Tensor]) -> Callable[[Collected], Tensor]:
    """Make the mean of a metric over the classes for which it is defined."""
    return lambda collected: by_class(collected).nanmean()


def of_positive(by_class: Callable[[Collected], Tensor]) -> Callable[[Collected], Tensor]:
    """Make the metric of the positive class, which is 0 if that class neither occurs nor is predicted."""
    return lambda collected: by_class(collected)[collected.positive].nan_to_num()


COUNTED = {"precision": precision_by_class, "recall": recall_by_class, "f1": f1_by_class}
RANKED = {"average_precision": average_precision_by_class, "auroc": roc_auc_by_class}
COUNTS, SCORES = ("label", "predicted"), ("label", "log_odds")

PREDICTED_CLASS_METRICS: dict[str, CollectedMetric] = {
    "accuracy": CollectedMetric("max", COUNTS, accuracy),
    "balanced_accuracy": CollectedMetric("max", COUNTS, balanced_accuracy),
    **{name: CollectedMetric("max", COUNTS, macro(function)) for name, function in COUNTED.items()},
    "log_loss": CollectedMetric("min", ("log_probability",), log_loss),
    "calibration_error": CollectedMetric("min", ("confidence", "correct"), expected_calibration_error),
    **{f"{name}_per_class": CollectedMetric("max", COUNTS, function) for name, function in COUNTED.items()},
}
"""Metrics of one class for each example, without those that rank the examples."""

CLASS_METRICS: dict[str, CollectedMetric] = {
    **PREDICTED_CLASS_METRICS,
    **{name: CollectedMetric("max", SCORES, macro(function)) for name, function in RANKED.items()},
    **{f"{name}_per_class": CollectedMetric("max", SCORES, function) for name, function in RANKED.items()},
}
"""Metrics of one of several classes for each example."""

BINARY_METRICS: dict[str, CollectedMetric] = {
    **{name: metric for name, metric in CLASS_METRICS.items() if name != "auroc_per_class"},
    "precision": CollectedMetric("max", COUNTS, of_positive(precision_by_class)),
    "recall": CollectedMetric("max", COUNTS, of_positive(recall_by_class)),
    "average_precision": CollectedMetric("max", SCORES, lambda c: average_precision_by_class(c)[c.positive]),
}
"""Metrics of two classes, of which one is the positive one."""

RANK_METRICS: dict[str, CollectedMetric] = {
    "qwk": CollectedMetric("max", COUNTS, quadratic_kappa),
    "mae": CollectedMetric("min", COUNTS, mean_absolute_rank_error),
}
"""Metrics of ordered classes."""
