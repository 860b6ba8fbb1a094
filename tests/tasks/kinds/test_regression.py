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
def test_classes_that_are_numbers_can_be_regressed(missing: float) -> None:
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
    """This includes small units and labels far from 0, for which float32 sums and torchmetrics' R² are wrong."""
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


def near(mean: float, std: float, rows: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw float64 labels with this mean and standard deviation, and predictions with an r2 of about 0.8."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(mean + std * rng.normal(size=rows))
    return labels, (labels + 0.45 * std * torch.from_numpy(rng.normal(size=rows))).unsqueeze(1)


def expected_metrics(target: torch.Tensor, predicted: torch.Tensor) -> dict[str, float]:
    """Compute the metrics by scikit-learn in float64."""
    mask = target.isfinite()
    true, estimate = target[mask].double().numpy(), predicted[mask, 0].double().numpy()
    mse = mean_squared_error(true, estimate)
    return {
        "r2": r2_score(true, estimate),
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": mean_absolute_error(true, estimate),
    }


FAR = [(4e6, 1.0), (1.7e9, 290.0), (5.2e6, 3.0), (-1e12, 0.5), (1e15, 3.0), (3e-9, 1e-12), (0.0, 1e30)]


@pytest.mark.parametrize("batch", [1, 13, 200])
@pytest.mark.parametrize(("mean", "std"), FAR)
def test_metrics_far_from_0(mean: float, std: float, batch: int) -> None:
    """The spread of the labels is small compared to their mean: sums of their squares lose all its digits."""
    target, predicted = near(mean, std)
    task = kind("regression", TargetSpec("real", mean=mean, std=std))
    # float64 sums of 200 terms; the rounding error of scikit-learn's mean adds its square to the variance
    tolerance = 200 * 2.2e-16 + (2.2e-16 * mean / std) ** 2
    got = measured(task, predicted, target, batch)
    assert got == pytest.approx(expected_metrics(target, predicted), rel=max(10 * tolerance, 1e-12))
    assert 0.7 < got["r2"] < 0.9


def test_r2_of_float32_labels_around_four_million() -> None:
    """Sums of their squares would not have the precision of a tolerance of 1e-12 in float64."""
    target = 4e6 + torch.tensor([-1.0, 0.0, 1.0]).repeat(40)
    predicted = (target + 0.5 * torch.tensor([1.0, -1.0]).repeat(60)).unsqueeze(1)
    got = measured(kind("regression", TargetSpec("real")), predicted, target)
    assert got == pytest.approx(expected_metrics(target, predicted), rel=1e-12)


def test_labels_that_differ_by_one_rounding_are_distinguished() -> None:
    low, high = 1e9, np.nextafter(1e9, np.inf)
    target = torch.tensor([low, high, high, low, high] * 9, dtype=torch.float64)
    predicted = torch.full((45, 1), low, dtype=torch.float64)
    true = target.numpy() - low
    expected = 1 - (true**2).sum() / ((true - true.mean()) ** 2).sum()
    assert measured(kind("regression", TargetSpec("real")), predicted, target)["r2"] == pytest.approx(expected)


@pytest.mark.parametrize("first", ["missing", "outlier"])
def test_metrics_are_independent_of_the_first_batch(first: str) -> None:
    target, predicted = near(1.7e9, 290.0)
    target[:13] = float("nan")
    if first == "outlier":
        target[0] = 1e6
    got = measured(kind("regression", TargetSpec("real", missing=True)), predicted, target)
    assert got == pytest.approx(expected_metrics(target, predicted), rel=1e-9)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("loss_name", ["mse", "l1", "huber"])
def test_the_loss_far_from_0(missing: bool, loss_name: str) -> None:
    """Converting the head's z to the target's units and back loses no digit of a float32."""
    spec = TargetSpec("real", mean=1.7e9, std=290.0, missing=missing)
    task = kind("regression", spec, loss=loss_name)
    z, standardized = predictions(30, 1).requires_grad_(), real_labels(30, 0.3 * missing)
    labels = [None if label is None else 1.7e9 + 290.0 * label for label in standardized]
    layer = task.output_layer()
    assert layer is not None
    target = torch.tensor([math.nan if label is None else label for label in labels], dtype=torch.float64)
    loss = task.loss(layer(z), target)
    loss.backward()
    expected = oracle.regression(z[:, 0].detach().double().numpy(), standardized, loss_name)
    assert loss.dtype == torch.float32 and z.grad is not None
    np.testing.assert_allclose(loss.item(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(z.grad[:, 0].double().numpy(), expected[1], rtol=1e-5, atol=1e-7)


EQUAL = [
    torch.tensor([3.0]), torch.full((50,), 0.1), torch.zeros(5), torch.full((50,), 1 / 3, dtype=torch.float64),
    torch.full((40,), 1.7e9 + 0.1, dtype=torch.float64), torch.tensor([math.nan, 0.1, 0.1, math.nan]),
]  # fmt: skip


@pytest.mark.parametrize("target", EQUAL)
def test_r2_of_equal_labels_is_nan(target: torch.Tensor) -> None:
    labels = target[target.isfinite()]
    got = measured(kind("regression", TargetSpec("real", missing=True)), torch.ones(len(target), 1), target)
    assert math.isnan(got["r2"]) and got["mse"] == pytest.approx(float((1 - labels[0].double()) ** 2))


def test_negligible_error_is_one_percent_of_that_of_the_mean() -> None:
    target = torch.randn(500, generator=torch.Generator().manual_seed(0)) * 3 + 7
    got = measured(kind("regression", TargetSpec("real")), (target + 0.1).unsqueeze(1), target)
    floors = Regression.negligible_errors(got)
    error = 0.01 * target.double().std(correction=0).item()
    assert floors == {
        "mse": pytest.approx(error**2, rel=1e-5),
        "rmse": floors["mae"],
        "mae": pytest.approx(error, rel=1e-5),
    }
    assert set(Regression.negligible_errors({"r2": 1.0, "mse": 0.0}).values()) == {0.0}
    assert set(Regression.negligible_errors({"r2": math.nan, "mse": 2.0}).values()) == {0.0}
