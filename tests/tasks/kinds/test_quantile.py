from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import d2_pinball_score, mean_pinball_loss
from torch import Tensor

from mtlcli.specs import TargetSpec
from tests.oracles import task_losses as oracle
from tests.tasks.labels import MISSING_SHARES, as_floats, kind, loss_and_gradient, measured, predictions, real_labels

LEVELS = [0.1, 0.5, 0.9]


@pytest.mark.parametrize("missing", MISSING_SHARES)
def test_loss_and_gradient(missing: float) -> None:
    task = kind("quantile", TargetSpec("real", missing=missing > 0), quantiles=LEVELS)
    labels, predicted = real_labels(30, missing), predictions(30, 3)
    loss, gradient = loss_and_gradient(task, predicted, as_floats(labels))
    expected = oracle.pinball(predicted.double().numpy(), labels, LEVELS)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-9)


def test_loss_is_that_of_the_standardized_target() -> None:
    task = kind("quantile", TargetSpec("real", mean=7.0, std=4.0), quantiles=LEVELS)
    plain = kind("quantile", TargetSpec("real"), quantiles=LEVELS)
    labels, predicted = as_floats(real_labels(30, 0.0)), predictions(30, 3)
    loss = task.loss(4 * predicted + 7, 4 * labels + 7)
    torch.testing.assert_close(loss, plain.loss(predicted, labels))


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics(weighted: bool) -> None:
    task = kind("quantile", TargetSpec("real", missing=True), quantiles=LEVELS)
    labels = real_labels(100, 0.3)
    layer = task.output_layer()
    assert layer is not None
    predicted = layer(predictions(100, 3))
    weight = torch.from_numpy(np.random.default_rng(0).choice([0.0, 1.0, 2.5], 100)).float() if weighted else None
    metrics = task.metrics(torch.device("cpu"))
    for rows in (slice(0, 60), slice(60, 100)):
        metrics.update(predicted[rows], as_floats(labels)[rows], None if weight is None else weight[rows])

    rows = [row for row, label in enumerate(labels) if label is not None and (weight is None or weight[row] > 0)]
    y, q = np.array([labels[row] for row in rows]), predicted.double().numpy()[rows]
    w = None if weight is None else weight.double().numpy()[rows]
    losses = [mean_pinball_loss(y, q[:, k], alpha=level, sample_weight=w) for k, level in enumerate(LEVELS)]
    scores = [d2_pinball_score(y, q[:, k], alpha=level, sample_weight=w) for k, level in enumerate(LEVELS)]
    constants = [loss / (1 - score) for loss, score in zip(losses, scores, strict=True)]
    below = [np.average(y <= q[:, k], weights=w) for k in range(3)]
    assert metrics.compute() == pytest.approx({
        "d2": 1 - np.sum(losses) / np.sum(constants),
        "pinball": np.mean(losses),
        "coverage_error": np.mean(np.abs(np.subtract(below, LEVELS))),
    }, rel=1e-9)  # fmt: skip


def test_d2_of_one_level_is_that_of_scikit_learn() -> None:
    task = kind("quantile", TargetSpec("real"), quantiles=[0.3])
    labels, predicted = as_floats(real_labels(99, 0.0)), predictions(99, 1)
    task.choose_metrics(["d2", "pinball[0.3]"])
    metrics = task.create_metrics(torch.device("cpu"))
    metrics.update(predicted, labels)
    expected = d2_pinball_score(labels.double(), predicted.double().squeeze(1), alpha=0.3)
    loss = mean_pinball_loss(labels.double(), predicted.double().squeeze(1), alpha=0.3)
    assert metrics.compute() == pytest.approx({"d2": expected, "pinball[0.3]": loss}, rel=1e-9)


def test_d2_of_equal_labels_is_undefined() -> None:
    task = kind("quantile", TargetSpec("real"), quantiles=LEVELS)
    assert np.isnan(measured(task, predictions(20, 3), torch.ones(20))["d2"])


def test_output_layer_sorts_which_never_increases_the_loss() -> None:
    task = kind("quantile", TargetSpec("real"), quantiles=LEVELS)
    layer, raw, labels = task.output_layer(), predictions(500, 3), as_floats(real_labels(500, 0.0))
    assert layer is not None
    ordered = layer(raw)
    assert (ordered.diff(dim=1) >= 0).all() and (raw.diff(dim=1) < 0).any()
    for row in range(500):
        one = slice(row, row + 1)
        assert task.loss(ordered[one], labels[one]) <= task.loss(raw[one], labels[one]) + 1e-6


def test_constant_prediction_learns_the_quantiles_of_the_labels() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.randn(1001, generator=rng)
    task = kind("quantile", TargetSpec("real"), quantiles=LEVELS)
    constant = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([constant], lr=0.05)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        optimizer.zero_grad()
        task.loss(constant.expand(1001, 3), labels).backward()
        optimizer.step()
    np.testing.assert_allclose(constant.detach(), np.quantile(labels, LEVELS), atol=0.03)


def test_predictions_have_a_column_for_each_quantile() -> None:
    decoded = kind("quantile", TargetSpec("real"), quantiles=[0.05, 0.5]).decode(torch.tensor([[1.0, 2.0]]))
    assert isinstance(decoded.labels, Tensor) and decoded.labels.tolist() == [[1.0, 2.0]]
    assert decoded.columns == ("q0.05", "q0.5")


def test_negligible_errors_are_a_share_of_the_loss_of_the_labels_own_quantiles() -> None:
    task = type(kind("quantile", TargetSpec("real")))
    assert task.negligible_errors({"d2": 0.75, "pinball": 2.0}) == {"pinball": pytest.approx(0.01 * 8.0)}
    assert task.negligible_errors({"pinball": 2.0}) == {}


def test_levels_have_to_increase() -> None:
    with pytest.raises(ValueError, match=r"`quantiles` must be increasing, got \[0.5, 0.5\]"):
        kind("quantile", TargetSpec("real"), quantiles=[0.5, 0.5])
