"""Losses and metrics with weights, against scikit-learn and against repeated examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.tasks.labels import as_floats, as_indices, class_labels, kind, predictions, real_labels

ROWS = 60


def classification(missing: float) -> tuple[TaskKind, Tensor, Tensor]:
    target = TargetSpec("classes", 4, missing=missing > 0)
    task = kind("classification", target, label_smoothing=0.1)
    return task, predictions(ROWS, 4), as_indices(class_labels(4, ROWS, missing))


def binary(missing: float) -> tuple[TaskKind, Tensor, Tensor]:
    task = kind("binary", TargetSpec("binary", missing=missing > 0), pos_weight=3.0)
    return task, predictions(ROWS, 1).round(decimals=1), as_floats(class_labels(2, ROWS, missing))


def regression(missing: float) -> tuple[TaskKind, Tensor, Tensor]:
    task = kind("regression", TargetSpec("real", missing=missing > 0, mean=1.0, std=3.0), loss="huber")
    return task, predictions(ROWS, 1), as_floats(real_labels(ROWS, missing))


def multilabel(missing: float) -> tuple[TaskKind, Tensor, Tensor]:
    target = torch.stack([as_floats(class_labels(2, ROWS, missing, seed)) for seed in range(3)], 1)
    return kind("multilabel", TargetSpec("multilabel", 3, missing=missing > 0)), predictions(ROWS, 3), target


KINDS = [classification, binary, regression, multilabel]


def weights(seed: int = 0) -> Tensor:
    """Weights in quarters, so that their sums are exact, with zeros."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 9, ROWS).astype(np.float32)) / 4


def measured(task: TaskKind, prediction: Tensor, target: Tensor, weight: Tensor) -> dict[str, float]:
    """Compute the metrics over several batches, the last one smaller."""
    metrics = task.metrics(torch.device("cpu"))
    for start in range(0, len(target), 13):
        rows = slice(start, start + 13)
        metrics.update(prediction[rows], target[rows], weight[rows])
    return metrics.compute()


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_a_weight_counts_as_equal_examples(make, missing: float) -> None:  # type: ignore[no-untyped-def]
    """The loss, its gradient and all metrics are those of the examples repeated 4w times."""
    task, prediction, target = make(missing)
    weight = weights()
    rows = torch.arange(ROWS).repeat_interleave((4 * weight).long())
    values, gradients = [], []
    for index, given in ((torch.arange(ROWS), (weight,)), (rows, ())):
        leaf = prediction.clone().requires_grad_()
        loss = task.loss(leaf[index], target[index], *given)
        assert loss.shape == () and loss.dtype == torch.float32
        loss.backward()
        assert leaf.grad is not None
        values.append(loss.item())
        gradients.append(leaf.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
    repeated = task.metrics(torch.device("cpu"))
    repeated.update(prediction[rows], target[rows])
    assert measured(task, prediction, target, weight) == pytest.approx(repeated.compute(), rel=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_weights_of_one_change_nothing(make) -> None:  # type: ignore[no-untyped-def]
    task, prediction, target = make(0.4)
    ones = torch.ones(ROWS)
    assert task.loss(prediction, target, ones).item() == pytest.approx(task.loss(prediction, target).item(), rel=1e-6)
    plain = task.metrics(torch.device("cpu"))
    plain.update(prediction, target)
    assert measured(task, prediction, target, ones) == pytest.approx(plain.compute(), rel=1e-12)


@pytest.mark.parametrize("make", KINDS)
def test_an_example_of_weight_0_has_no_effect(make) -> None:  # type: ignore[no-untyped-def]
    """Not even if its prediction is infinite; a batch of such examples has the loss 0."""
    task, prediction, target = make(0.0)
    weight = weights()
    prediction[weight == 0] = math.inf
    prediction.requires_grad_()
    loss = task.loss(prediction, target, weight)
    loss.backward()
    assert loss.isfinite() and prediction.grad is not None
    assert prediction.grad.isfinite().all() and not prediction.grad[weight == 0].any()
    assert all(math.isfinite(value) for value in measured(task, prediction.detach(), target, weight).values())
    assert task.loss(prediction.detach(), target, torch.zeros(ROWS)).item() == 0
    assert all(math.isnan(x) for x in measured(task, prediction.detach(), target, torch.zeros(ROWS)).values())


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_classification_metrics(missing: float) -> None:
    task, prediction, target = classification(missing)
    weight = weights() + 0.25
    rows = target != IGNORE_INDEX
    true, predicted, w = target[rows], prediction.argmax(1)[rows], weight[rows]
    assert measured(task, prediction, target, weight) == pytest.approx(
        {
            "accuracy": accuracy_score(true, predicted, sample_weight=w),
            "f1": f1_score(true, predicted, average="macro", sample_weight=w),
        },
        rel=1e-12,
    )


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_binary_metrics(missing: float) -> None:
    task, prediction, target = binary(missing)
    weight = weights() + 0.1
    rows = ~target.isnan()
    true, logits, w = target[rows], prediction[rows, 0], weight[rows].double()
    assert measured(task, prediction, target, weight) == pytest.approx(
        {
            "accuracy": accuracy_score(true, logits > 0, sample_weight=w),
            "f1": f1_score(true, logits > 0, sample_weight=w),
            "auroc": roc_auc_score(true, logits, sample_weight=w),
        },
        rel=1e-12,
    )


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_regression_metrics(missing: float) -> None:
    """Weights below 1, whose sum may be below 1 too."""
    task, prediction, target = regression(missing)
    weight = (weights() + 0.25) / 500
    rows = ~target.isnan()
    true, predicted, w = (x[rows].double().numpy() for x in (target, prediction[:, 0], weight))
    mse = mean_squared_error(true, predicted, sample_weight=w)
    assert measured(task, prediction, target, weight) == pytest.approx(
        {
            "r2": r2_score(true, predicted, sample_weight=w),
            "mse": mse,
            "rmse": math.sqrt(mse),
            "mae": mean_absolute_error(true, predicted, sample_weight=w),
        },
        rel=1e-12,
    )
