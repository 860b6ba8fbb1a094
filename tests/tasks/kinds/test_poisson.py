from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import d2_tweedie_score, mean_absolute_error, mean_poisson_deviance, root_mean_squared_error

from mtlcli.specs import TargetSpec
from tests.oracles import task_losses as oracle
from tests.tasks.labels import MISSING_SHARES, as_floats, kind, loss_and_gradient, measured, predictions


def counts(rows: int, missing: float, seed: int = 0) -> list[float | None]:
    """Return counts with a mean of 2, of which some are 0."""
    rng = np.random.default_rng(seed)
    return [None if rng.random() < missing else float(rng.poisson(2.0)) for _ in range(rows)]


@pytest.mark.parametrize("missing", MISSING_SHARES)
def test_loss_and_gradient(missing: float) -> None:
    task = kind("poisson", TargetSpec("real", missing=missing > 0))
    labels, rates = counts(30, missing), predictions(30, 1).double().exp()
    loss, gradient = loss_and_gradient(task, rates, as_floats(labels))
    expected = oracle.poisson(rates[:, 0].numpy(), labels)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gradient[:, 0], expected[1], rtol=1e-6, atol=1e-9)


def test_gradient_by_the_head_is_the_error() -> None:
    """With the logarithmic link, the gradient by z is (μ − y) / n, for zero counts and tiny rates too."""
    task = kind("poisson", TargetSpec("real", mean=2.0))
    layer = task.output_layer()
    assert layer is not None
    z = torch.tensor([[-60.0], [-1.0], [0.0], [3.0]], requires_grad=True)
    labels = torch.tensor([5.0, 0.0, 2.0, 1.0])
    task.loss(layer(z), labels).backward()
    assert z.grad is not None
    rates = 2.0 * np.exp([-60.0, -1.0, 0.0, 3.0])
    np.testing.assert_allclose(z.grad[:, 0], (rates - labels.numpy()) / 4, rtol=1e-6, atol=1e-7)


def test_first_prediction_is_the_mean_of_the_training_labels() -> None:
    layer = kind("poisson", TargetSpec("real", mean=3.5, std=2.0)).output_layer()
    assert layer is not None
    assert layer(torch.zeros(2, 1)).tolist() == [[pytest.approx(3.5)], [pytest.approx(3.5)]]
    unknown = kind("poisson", TargetSpec("real")).output_layer()
    assert unknown is not None and unknown(torch.zeros(1, 1)).item() == 1.0


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics(weighted: bool) -> None:
    task = kind("poisson", TargetSpec("real", missing=True))
    labels, rates = counts(100, 0.3), predictions(100, 1).double().exp()
    weight = torch.from_numpy(np.random.default_rng(0).choice([0.0, 1.0, 2.5], 100)).float() if weighted else None
    task.choose_metrics(["d2", "deviance", "mae", "rmse", "nll"])
    metrics = task.create_metrics(torch.device("cpu"))
    for rows in (slice(0, 60), slice(60, 100)):
        metrics.update(rates[rows], as_floats(labels)[rows], *(() if weight is None else (weight[rows],)))

    kept = [row for row, label in enumerate(labels) if label is not None and (weight is None or weight[row] > 0)]
    y, mu = np.array([labels[row] for row in kept]), rates[:, 0].numpy()[kept]
    w = None if weight is None else weight.double().numpy()[kept]
    nll = [rate - label * math.log(rate) + math.lgamma(label + 1) for label, rate in zip(y, mu, strict=True)]
    assert metrics.compute() == pytest.approx({
        "d2": d2_tweedie_score(y, mu, power=1, sample_weight=w),
        "deviance": mean_poisson_deviance(y, mu, sample_weight=w),
        "mae": mean_absolute_error(y, mu, sample_weight=w),
        "rmse": root_mean_squared_error(y, mu, sample_weight=w),
        "nll": np.average(nll, weights=w),
    }, rel=1e-9)  # fmt: skip


def test_default_metrics() -> None:
    got = measured(kind("poisson", TargetSpec("real")), predictions(50, 1).exp(), as_floats(counts(50, 0.0)))
    assert list(got) == ["d2", "deviance", "mae"]


def test_negative_labels_are_described() -> None:
    task = kind("poisson", TargetSpec("real"))
    assert task.wrong_label(torch.tensor([0.0, 2.0])) is None
    assert task.wrong_label(torch.tensor([1.0, -2.0])) == "-2, expected a count of at least 0"


def test_negligible_errors_are_a_share_of_the_deviance_of_the_mean() -> None:
    task = type(kind("poisson", TargetSpec("real")))
    assert task.negligible_errors({"d2": 0.5, "deviance": 3.0}) == {"deviance": pytest.approx(6e-4)}
    assert task.negligible_errors({"mae": 3.0}) == {}
