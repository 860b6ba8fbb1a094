from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, cohen_kappa_score, log_loss, mean_absolute_error
from torch import Tensor

from mtlcli.specs import TargetSpec
from tests.oracles import task_losses as oracle
from tests.tasks.labels import MISSING_SHARES, as_indices, class_labels, kind, loss_and_gradient, measured, predictions

SIZES = ("low", "mid", "high", "top")


@pytest.mark.parametrize("missing", MISSING_SHARES)
@pytest.mark.parametrize("classes", [2, 5])
def test_loss_is_the_likelihood_of_the_conditional_probabilities(missing: float, classes: int) -> None:
    task = kind("ordinal", TargetSpec("classes", classes, missing=missing > 0))
    labels, logits = class_labels(classes, 30, missing), predictions(30, classes - 1)
    loss, gradient = loss_and_gradient(task, logits, as_indices(labels))
    expected = oracle.corn(logits.double().numpy(), labels)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-8)


def test_probabilities_and_predicted_class() -> None:
    task, logits = kind("ordinal", TargetSpec("classes", 4, SIZES)), predictions(50, 3)
    decoded = task.decode(logits)
    expected = oracle.corn(logits.double().numpy(), [None] * 50)[2]
    assert isinstance(decoded.probabilities, Tensor) and isinstance(decoded.indices, Tensor)
    np.testing.assert_allclose(decoded.probabilities, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(decoded.probabilities.sum(1), 1, rtol=1e-6)
    median = (np.cumsum(expected, 1) < 0.5).sum(1)
    assert decoded.indices.tolist() == median.tolist()
    assert decoded.labels == [SIZES[index] for index in median] and decoded.classes == SIZES


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics(weighted: bool) -> None:
    task = kind("ordinal", TargetSpec("classes", 5, missing=True))
    labels, logits = class_labels(5, 100, 0.3), predictions(100, 4)
    weight = torch.from_numpy(np.random.default_rng(0).choice([0.0, 1.0, 2.5], 100)).float() if weighted else None
    task.choose_metrics(["qwk", "accuracy", "mae", "log_loss"])
    metrics = task.create_metrics(torch.device("cpu"))
    for rows in (slice(0, 60), slice(60, 100)):
        metrics.update(logits[rows], as_indices(labels)[rows], *(() if weight is None else (weight[rows],)))

    kept = [row for row, label in enumerate(labels) if label is not None and (weight is None or weight[row] > 0)]
    y, p = np.array([labels[row] for row in kept]), oracle.corn(logits.double().numpy(), labels)[2][kept]
    w = None if weight is None else weight.double().numpy()[kept]
    guess = (np.cumsum(p, 1) < 0.5).sum(1)
    assert metrics.compute() == pytest.approx({
        "qwk": cohen_kappa_score(y, guess, weights="quadratic", sample_weight=w),
        "accuracy": accuracy_score(y, guess, sample_weight=w),
        "mae": mean_absolute_error(y, guess, sample_weight=w),
        "log_loss": log_loss(y, p, labels=range(5), sample_weight=w),
    }, rel=1e-6, abs=2e-7)  # fmt: skip


def test_order_can_differ_from_that_of_the_target() -> None:
    """Labels and predictions by name are the same, whatever the order in which the target lists its classes."""
    listed = ("high", "low", "mid")
    task = kind("ordinal", TargetSpec("classes", 3, listed, missing=True), order=["low", "mid", "high"])
    ordered = kind("ordinal", TargetSpec("classes", 3, ("low", "mid", "high"), missing=True))
    ranks, logits = class_labels(3, 40, 0.2), predictions(40, 2)
    labels = [None if rank is None else listed.index(("low", "mid", "high")[rank]) for rank in ranks]
    assert torch.equal(task.loss(logits, as_indices(labels)), ordered.loss(logits, as_indices(ranks)))
    assert measured(task, logits, as_indices(labels)) == measured(ordered, logits, as_indices(ranks))
    assert task.decode(logits).labels == ordered.decode(logits).labels
    assert task.decode(logits).classes == ("low", "mid", "high")


def test_order_of_numbers_and_truth_values() -> None:
    assert kind("ordinal", TargetSpec("classes", 2, ("1", "2")), order=[2.0, 1]).class_names == ("2", "1")
    assert kind("ordinal", TargetSpec("classes", 2, ("false", "true")), order=[True, False]).class_names[0] == "true"


@pytest.mark.parametrize(("order", "message"), [
    (["low", "mid", "hihg"], "`order`: the target has no class 'hihg'. Did you mean 'high'?"),
    (["low", "mid", "mid"], "`order` contains the class 'mid' twice"),
    (["low", "mid"], "`order` doesn't contain the class 'high'"),
])  # fmt: skip
def test_order_has_to_contain_every_class_once(order: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        kind("ordinal", TargetSpec("classes", 3, ("high", "low", "mid")), order=order)


def test_kappa_of_one_class_is_undefined() -> None:
    task = kind("ordinal", TargetSpec("classes", 3))
    assert math.isnan(measured(task, torch.full((10, 2), -5.0), torch.zeros(10, dtype=torch.long))["qwk"])
    perfect = torch.tensor([[-5.0, 0.0], [5.0, -5.0], [5.0, 5.0]])
    assert measured(task, perfect, torch.arange(3)) == {"qwk": 1.0, "accuracy": 1.0, "mae": 0.0}
