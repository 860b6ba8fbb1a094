"""Metrics of several labels for each example, some of which may be missing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mtlcli.tasks.binary_metrics import MISSING_LABEL, average_precision, calibration_error, roc_auc
from mtlcli.tasks.class_metrics import macro
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.columns import Collected, calibrated_labels


def count_labels(collected: Collected) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the weights of the examples by label.

    Args:
        collected: the columns `labels` and `predicted`.

    Returns:
        The sums over the examples for which a label is predicted and right, predicted, and right, float64 [labels]
        each; missing labels don't count.
    """
    labels, predicted = collected["labels"], collected["predicted"] & (collected["labels"] != MISSING_LABEL)
    weight = torch.ones(len(labels), dtype=torch.float64) if collected.weight is None else collected.weight
    true = labels == 1
    return tuple(cells.double().T @ weight for cells in (predicted & true, predicted, true))  # type: ignore[return-value]


def precision_by_label(collected: Collected) -> Tensor:
    """Compute tp / (tp + fp) of each label, [labels]: 0 for one that isn't predicted, NaN without labelled entries."""
    correct, predicted, _ = count_labels(collected)
    return _of_labelled(collected, (correct / predicted).nan_to_num())


def recall_by_label(collected: Collected) -> Tensor:
    """Compute tp / (tp + fn) of each label, [labels]: 0 for one that doesn't occur, NaN without labelled entries."""
    correct, _, true = count_labels(collected)
    return _of_labelled(collected, (correct / true).nan_to_num())


def f1_by_label(collected: Collected) -> Tensor:
    """Compute 2 tp / (2 tp + fp + fn) of each label, [labels]: 0 for 0/0, NaN without labelled entries."""
    correct, predicted, true = count_labels(collected)
    return _of_labelled(collected, (2 * correct / (predicted + true)).nan_to_num())


def _of_labelled(collected: Collected, values: Tensor) -> Tensor:
    return values.masked_fill((collected["labels"] == MISSING_LABEL).all(0), torch.nan)


def subset_accuracy(collected: Collected) -> Tensor:
    """Compute the share of the examples of which all labels that aren't missing are predicted rightly."""
    labels, predicted = collected["labels"], collected["predicted"]
    return collected.mean(((labels == predicted) | (labels == MISSING_LABEL)).all(1))


def label_log_loss(collected: Collected) -> Tensor:
    """Compute the mean over the examples of the mean of −log p over their labels that aren't missing."""
    labels = collected["labels"]
    mask = labels != MISSING_LABEL
    signs = torch.where(labels == 1, 1.0, -1.0).double()
    losses = -torch.nn.functional.logsigmoid(signs * collected["logits"].double())
    return collected.mean(losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1))


def label_calibration_error(collected: Collected) -> Tensor:
    """Compute the calibration error of the probabilities of all labels together."""
    return torch.tensor(calibration_error(*calibrated_labels(collected)), dtype=torch.float64)


def average_precision_by_label(collected: Collected) -> Tensor:
    """Compute the average precision of each label, [labels]; NaN for one that doesn't occur."""
    return _by_label(average_precision, collected)


def roc_auc_by_label(collected: Collected) -> Tensor:
    """Compute the area under the ROC curve of each label, [labels]; NaN if undefined."""
    return _by_label(roc_auc, collected)


def _by_label(score: Callable[[Tensor, Tensor, Tensor | None], float], collected: Collected) -> Tensor:
    values = []
    for scores, labels in zip(collected["logits"].T, collected["labels"].T, strict=True):
        mask = labels != MISSING_LABEL
        weight = None if collected.weight is None else collected.weight[mask]
        values.append(score(scores[mask], labels[mask].long(), weight))
    return torch.tensor(values, dtype=torch.float64)


COUNTED = {"precision": precision_by_label, "recall": recall_by_label, "f1": f1_by_label}
RANKED = {"average_precision": average_precision_by_label, "auroc": roc_auc_by_label}
COUNTS, SCORES = ("labels", "predicted"), ("labels", "logits")

LABEL_METRICS: dict[str, CollectedMetric] = {
    **{name: CollectedMetric("max", COUNTS, macro(function)) for name, function in COUNTED.items()},
    **{name: CollectedMetric("max", SCORES, macro(function)) for name, function in RANKED.items()},
    "subset_accuracy": CollectedMetric("max", COUNTS, subset_accuracy),
    "log_loss": CollectedMetric("min", SCORES, label_log_loss),
    "calibration_error": CollectedMetric("min", SCORES, label_calibration_error),
    **{f"{name}_per_label": CollectedMetric("max", COUNTS, function) for name, function in COUNTED.items()},
    **{f"{name}_per_label": CollectedMetric("max", SCORES, function) for name, function in RANKED.items()},
}
"""Metrics of several labels for each example."""
