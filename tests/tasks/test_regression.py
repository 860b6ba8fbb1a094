from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from mtlcli.specs import TargetSpec
from mtlcli.tasks.kinds.regression import Regression
from tests.oracles import task_losses as oracle
from tests.tasks.labels import (
    MISSING_SHARES,
    as_floats,
    as_indices,
    class_labels,
    kind,
    loss_and_gradient,
    measured,
    predictions,
    real_labels,
)


@pytest.mark.parametrize("missing", MISSING_SHARES)
@pytest.mark.parametrize(("loss_name", "delta"), [("mse", 1.0), ("l1", 1.0), ("huber", 1.0), ("huber", 2.5)])
def test_loss_and_gradient(missing: float, loss_name: str, delta: float) -> None:
    task = kind("regression", TargetSpec("real", missing=missing > 0), loss=loss_name, delta=delta)
    labels, predicted = real_labels(30, missing), predictions(30, 1)
    loss, gradient = loss_and_gradient(task, predicted, as_floats(labels))
    expected = oracle.regression(predicted[:, 0].double().numpy(), labels, loss_name, delta)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], expected[1], rtol=1e-4, atol=1e-8)
    assert not gradient[[label is None for label in labels]].any()


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_classes_count_as_numbers(missing: float) -> None:
    task = kind("regression", TargetSpec("classes", 10, missing=missing > 0))
    labels, predicted = class_labels(10, 30, missing), predictions(30, 1)
    loss, gradient = loss_and_gradient(task, predicted, as_indices(labels))
    expected = oracle.regression(predicted[:, 0].double().numpy(), labels, "mse")
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], expected[1], rtol=1e-4)
    real = measured(kind("regression", TargetSpec("real", missing=True)), predicted, as_floats(labels))
    assert measured(task, predicted, as_indices(labels)) == real


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1e-4, 0.0), (1.0, 2000.0)])
def test_metrics(missing: float, scale: float, offset: float) -> None:
    """In small units and far from 0 too, where float32 sums, and torchmetrics' R², are wrong."""
    target, predicted = scale * as_floats(real_labels(100, missing)) + offset, scale * predictions(100, 1) + offset
    mask = target.isfinite()
    true, estimate = target[mask].double().numpy(), predicted[mask, 0].double().numpy()
    mse = mean_squared_error(true, estimate)
    assert measured(kind("regression", TargetSpec("real", missing=missing > 0)), predicted, target) == {
        "r2": pytest.approx(r2_score(true, estimate), rel=1e-7),
        "mse": pytest.approx(mse, rel=1e-9),
        "rmse": pytest.approx(math.sqrt(mse), rel=1e-9),
        "mae": pytest.approx(mean_absolute_error(true, estimate), rel=1e-9),
    }


@pytest.mark.parametrize("target", [torch.tensor([3.0]), torch.full((50,), 0.1), torch.zeros(5)])
def test_r2_needs_labels_that_differ(target: torch.Tensor) -> None:
    got = measured(kind("regression", TargetSpec("real")), torch.ones(len(target), 1), target)
    assert math.isnan(got["r2"]) and got["mse"] == pytest.approx(float((1 - target[0]) ** 2))


def test_an_error_is_negligible_below_one_percent_of_that_of_the_mean() -> None:
    target = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3 + 7
    got = measured(kind("regression", TargetSpec("real")), (target + 0.1).unsqueeze(1), target)
    floors = Regression.floors(got)
    error = 0.01 * target.double().std(correction=0).item()
    assert floors == {
        "mse": pytest.approx(error**2, rel=1e-5),
        "rmse": floors["mae"],
        "mae": pytest.approx(error, rel=1e-5),
    }
    assert set(Regression.floors({"r2": 1.0, "mse": 0.0}).values()) == {0.0}
    assert set(Regression.floors({"r2": math.nan, "mse": 2.0}).values()) == {0.0}
