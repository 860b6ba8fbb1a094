"""Metrics that a task chooses, against scikit-learn: missing labels, weights, and an uneven last batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn import metrics as sk
from torch import Tensor

from mtlcli.registry import kinds
from mtlcli.specs import MAP_SIZES, TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.binary_maps import ONLY_MAPS
from tests.tasks.labels import (
    as_floats,
    as_indices,
    class_labels,
    kind,
    model_outputs,
    predictions,
    real_labels,
    target_labels,
)

Array = NDArray[Any]
ROWS, BATCH = 200, 37  # the last batch has 15 rows
weighted = pytest.mark.parametrize("weighted", [False, True])


def weights(seed: int = 3) -> Tensor:
    """Return weights, of which a few are 0."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.choice([0.0, 0.5, 1.0, 3.0], ROWS, p=[0.1, 0.3, 0.3, 0.3])).float()


def measure(
    task: TaskKind, names: list[str], prediction: Tensor, target: Tensor, weight: Tensor | None
) -> dict[str, float]:
    task.choose_metrics(names)
    computed = task.create_metrics(torch.device("cpu"))
    for start in range(0, ROWS, BATCH):
        rows = slice(start, start + BATCH)
        computed.update(prediction[rows], target[rows], *(() if weight is None else (weight[rows],)))
    return computed.compute()


def kept(labels: list[Any], weight: Tensor | None) -> Array:
    """Return the rows that count: labelled, and of a weight above 0."""
    rows = [label is not None and (weight is None or weight[row] > 0) for row, label in enumerate(labels)]
    return np.flatnonzero(rows)


@weighted
def test_metrics_of_classes(weighted: bool) -> None:
    names = ("ant", "bee", "cat", "dog", "eel")
    labels = [None if label is None else label % 4 for label in class_labels(5, ROWS, 0.3)]  # eel doesn't occur
    weight = weights() if weighted else None
    logits = predictions(ROWS, 5)
    task = kind("classification", TargetSpec("classes", 5, names, missing=True))
    chosen = ["accuracy", *(name for name in task.collected)]
    measured = measure(task, chosen, logits, as_indices(labels), weight)

    rows = kept(labels, weight)
    y = np.array([labels[row] for row in rows])
    w = None if weight is None else weight.numpy()[rows]
    p = logits.double().softmax(1).numpy()[rows]
    guess = p.argmax(1)
    every = {"labels": range(5), "zero_division": 0, "sample_weight": w}
    expected = {
        "accuracy": sk.accuracy_score(y, guess, sample_weight=w),
        "balanced_accuracy": balanced_accuracy(y, guess, w),
        "log_loss": sk.log_loss(y, p, labels=range(5), sample_weight=w),
        "calibration_error": calibration_error(p.max(1), guess == y, w),
    }
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        values = score(y, guess, average=None, **every)
        expected |= {f"{name}[{label}]": value for label, value in zip(names, values, strict=True)}
        if name != "f1":
            expected[name] = values.mean()
    for name, score in (("average_precision", sk.average_precision_score), ("auroc", sk.roc_auc_score)):
        values = [score(y == k, p[:, k], sample_weight=w) for k in range(4)]
        expected |= {f"{name}[{label}]": value for label, value in zip(names, [*values, np.nan], strict=True)}
        expected[name] = np.mean(values)
    assert set(measured) == set(expected)
    assert measured == pytest.approx(expected, rel=2e-6, abs=2e-7, nan_ok=True)


def balanced_accuracy(y: Array, guess: Array, w: Array | None) -> float:
    with warnings.catch_warnings(action="ignore"):
        return float(sk.balanced_accuracy_score(y, guess, sample_weight=w))


def calibration_error(confidence: Array, correct: Array, w: Array | None, bins: int = 15) -> float:
    """The definition of Guo et al. 2017, bin by bin."""
    w = np.ones(len(confidence)) if w is None else w
    error = 0.0
    for index in range(bins):
        rows = (confidence >= index / bins) & (confidence < (index + 1) / bins)
        if w[rows].sum():
            gap = np.average(correct[rows], weights=w[rows]) - np.average(confidence[rows], weights=w[rows])
            error += abs(gap) * w[rows].sum() / w.sum()
    return float(error)


@weighted
@pytest.mark.parametrize("positive", ["no", "yes"])
def test_metrics_of_two_classes(weighted: bool, positive: str) -> None:
    labels, weight, logits = class_labels(2, ROWS, 0.3), weights() if weighted else None, predictions(ROWS, 1)
    task = kind("binary", TargetSpec("classes", 2, ("no", "yes"), missing=True), positive=positive)
    collected = [name for name in task.collected if name not in ONLY_MAPS]
    measured = measure(task, ["f1", "auroc", *collected], logits, as_indices(labels), weight)

    rows = kept(labels, weight)
    index = ("no", "yes").index(positive)
    y = np.array([labels[row] for row in rows]) == index
    w = None if weight is None else weight.numpy()[rows]
    p = logits.double().sigmoid().squeeze(1).numpy()[rows]
    expected = {
        "f1": sk.f1_score(y, p > 0.5, sample_weight=w),
        "auroc": sk.roc_auc_score(y, p, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p > 0.5, sample_weight=w),
        "precision": sk.precision_score(y, p > 0.5, sample_weight=w),
        "recall": sk.recall_score(y, p > 0.5, sample_weight=w),
        "average_precision": sk.average_precision_score(y, p, sample_weight=w),
        "log_loss": sk.log_loss(y, p, sample_weight=w),
        "calibration_error": calibration_error(p, y, w),
    }
    other = ("no", "yes")[1 - index]
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        for label, truth, guess in ((positive, y, p > 0.5), (other, ~y, p <= 0.5)):
            expected[f"{name}[{label}]"] = score(truth, guess, sample_weight=w)
    for label, truth, scores in ((positive, y, p), (other, ~y, 1 - p)):
        expected[f"average_precision[{label}]"] = sk.average_precision_score(truth, scores, sample_weight=w)
    assert measured == pytest.approx(expected, rel=2e-6)


@weighted
def test_metrics_of_several_labels(weighted: bool) -> None:
    columns = [class_labels(2, ROWS, 0.3, seed) for seed in range(3)] + [[0] * ROWS]  # the last label never occurs
    target = torch.stack([as_floats(column) for column in columns], 1)
    weight, logits = weights() if weighted else None, predictions(ROWS, 4)
    task = kind("multilabel", TargetSpec("multilabel", 4, tuple("abcd"), missing=True))
    measured = measure(task, ["accuracy", *task.collected], logits, target, weight)

    expected: dict[str, float] = {}
    scores: dict[str, Callable[..., float]] = {
        "precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score,
        "average_precision": sk.average_precision_score, "auroc": sk.roc_auc_score,
    }  # fmt: skip
    p = logits.double().sigmoid().numpy()
    for name, score in scores.items():
        ranks = name in ("average_precision", "auroc")
        for label, column, column_p in zip("abcd", columns, p.T, strict=True):
            rows = kept(column, weight)
            y = np.array([column[row] for row in rows])
            options = {} if ranks else {"zero_division": 0}
            value = np.nan if ranks and not y.any() else score(
                y, column_p[rows] if ranks else column_p[rows] > 0.5,
                sample_weight=None if weight is None else weight.numpy()[rows], **options,
            )  # fmt: skip
            expected[f"{name}[{label}]"] = value
        if name != "f1":
            expected[name] = np.nanmean([expected[f"{name}[{label}]"] for label in "abcd"])
    y, mask = target.nan_to_num(0).numpy(), ~target.isnan().numpy()
    w = np.ones(ROWS) if weight is None else weight.double().numpy()
    right = ((p > 0.5) == y) | ~mask
    expected["subset_accuracy"] = np.average(right.all(1), weights=w)
    losses = -np.where(y == 1, np.log(p), np.log(1 - p))
    expected["log_loss"] = np.average((losses * mask).sum(1) / mask.sum(1), weights=w)
    expected["calibration_error"] = calibration_error(p[mask], y[mask] == 1, np.broadcast_to(w[:, None], p.shape)[mask])
    accuracies = [np.average(((p > 0.5) == y)[mask[:, k], k], weights=w[mask[:, k]]) for k in range(4)]
    expected["accuracy"] = np.mean(accuracies)
    assert measured == pytest.approx(expected, rel=2e-6, abs=2e-7, nan_ok=True)


@weighted
def test_metrics_of_numbers(weighted: bool) -> None:
    labels, weight, prediction = real_labels(ROWS, 0.3), weights() if weighted else None, predictions(ROWS, 1)
    task = kind("regression", TargetSpec("real", missing=True))
    names = ["mae", "mape", "spearman"]
    measured = measure(task, names, prediction, as_floats(labels), weight)
    rows = kept(labels, weight)
    y, guess = np.array([labels[row] for row in rows]), prediction.double().squeeze(1).numpy()[rows]
    w = None if weight is None else weight.numpy()[rows]
    expected = {
        "mae": sk.mean_absolute_error(y, guess, sample_weight=w),
        "mape": sk.mean_absolute_percentage_error(y, guess, sample_weight=w),
        "spearman": rank_correlation(y, guess, w),
    }
    assert measured == pytest.approx({name: expected[name] for name in names}, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in kinds.names() if name != "generation"])  # whose labels are tokens
def test_equal_weights_change_no_metric(name: str) -> None:
    accepted = kinds[name].target.accepts[0]  # type: ignore[attr-defined]
    size = 3 if accepted in ("classes", "multilabel", "tags", "class_map") else MAP_SIZES.get(accepted, 1)
    target = TargetSpec(accepted, size, missing=True)
    task = kind(name, target, **({"scale": [0, 1]} if name == "similarity" else {}))
    prediction = model_outputs(task, ROWS)
    labels = torch.ones(ROWS) if name == "contrastive" else target_labels(accepted, ROWS, target.size)
    names = [metric for metric, about in task.collected.items() if about.weighted and metric not in ONLY_MAPS]
    unweighted = measure(task, names, prediction, labels, None)
    assert unweighted == pytest.approx(
        measure(task, names, prediction, labels, torch.full((ROWS,), 2.0)), rel=2e-6, abs=2e-7, nan_ok=True
    )


def rank_correlation(y: Array, guess: Array, weights: Array | None) -> float:
    """Spearman's correlation of examples that are repeated by twice their weights, which are then integers."""
    repeats = 1 if weights is None else (2 * weights).astype(int)
    return float(spearmanr(np.repeat(y, repeats), np.repeat(guess, repeats)).statistic)
