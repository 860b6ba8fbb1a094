from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from mtlcli.specs import TargetSpec
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
)


@pytest.mark.parametrize("missing", MISSING_SHARES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient(missing: float, smoothing: float) -> None:
    task = kind("classification", TargetSpec("classes", 5, missing=missing > 0), label_smoothing=smoothing)
    labels, logits = class_labels(5, 30, missing), predictions(30, 5)
    loss, gradient = loss_and_gradient(task, logits, as_indices(labels))
    expected = oracle.cross_entropy(logits.double().numpy(), labels, smoothing)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-8)
    assert not gradient[[label is None for label in labels]].any()


@pytest.mark.parametrize("missing", MISSING_SHARES)
def test_binary_target_is_processed_as_two_classes(missing: float) -> None:
    task = kind("classification", TargetSpec("binary", missing=missing > 0))
    labels, logits = class_labels(2, 30, missing), predictions(30, 2)
    assert task.outputs == 2
    loss, gradient = loss_and_gradient(task, logits, as_floats(labels))
    expected = oracle.cross_entropy(logits.double().numpy(), labels)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-4, atol=1e-8)
    same = measured(kind("classification", TargetSpec("classes", 2, missing=True)), logits, as_indices(labels))
    np.testing.assert_equal(measured(task, logits, as_floats(labels)), same)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_metrics(missing: float) -> None:
    task = kind("classification", TargetSpec("classes", 7, missing=missing > 0))
    labels, logits = class_labels(6, 100, missing), predictions(100, 7)  # class 6 is predicted but never occurs
    pairs = [
        (label, int(np.argmax(row))) for label, row in zip(labels, logits.numpy(), strict=True) if label is not None
    ]
    true, predicted = zip(*pairs, strict=True)
    assert measured(task, logits, as_indices(labels)) == {
        "accuracy": sum(a == b for a, b in pairs) / len(pairs),  # exact
        "f1": pytest.approx(f1_score(true, predicted, average="macro"), rel=1e-12),
    }


def test_accuracy_is_exact() -> None:
    target = torch.zeros(10_000, dtype=torch.int64)
    logits = torch.nn.functional.one_hot((torch.arange(10_000) >= 9876).long(), 2).float()
    accuracy = measured(kind("classification", TargetSpec("classes", 2)), logits, target, batch=1000)["accuracy"]
    assert accuracy == 0.9876 and repr(accuracy) == "0.9876"


def test_macro_f1_ignores_classes_that_do_not_occur() -> None:
    logits, target = torch.eye(4)[[0, 1, 1]], torch.tensor([0, 1, 0])
    f1 = measured(kind("classification", TargetSpec("classes", 4)), logits, target)["f1"]
    assert f1 == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_wrong_number_of_classes_is_rejected() -> None:
    kind("classification", TargetSpec("classes", 10), classes=10)
    with pytest.raises(ValueError, match=r"class count mismatch.* 12.* 10"):
        kind("classification", TargetSpec("classes", 10), classes=12)


def test_loss_of_a_uniform_prediction_is_log_classes() -> None:
    loss = kind("classification", TargetSpec("classes", 10)).loss(torch.zeros(4, 10), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(10))
