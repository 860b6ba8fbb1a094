from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

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
@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
@pytest.mark.parametrize("target_type", ["binary", "classes"])
def test_loss_and_gradient(missing: float, pos_weight: float, target_type: str) -> None:
    target = TargetSpec(target_type, 1 if target_type == "binary" else 2, missing=missing > 0)  # type: ignore[arg-type]
    task = kind("binary", target, pos_weight=pos_weight)
    labels, logits = class_labels(2, 30, missing), predictions(30, 1)
    given = as_floats(labels) if target_type == "binary" else as_indices(labels)
    loss, gradient = loss_and_gradient(task, logits, given)
    expected = oracle.binary(logits[:, 0].double().numpy(), labels, pos_weight)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], expected[1], rtol=1e-4, atol=1e-8)
    assert not gradient[[label is None for label in labels]].any()


@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("target_type", ["binary", "classes"])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_metrics(missing: float, target_type: str, shift: float) -> None:
    """This includes batches with all logits in [0, 1], which torchmetrics would interpret as probabilities."""
    target = TargetSpec(target_type, 1 if target_type == "binary" else 2, missing=missing > 0)  # type: ignore[arg-type]
    labels, logits = class_labels(2, 100, missing), predictions(100, 1)
    if shift:
        logits[:26] = logits[:26].sigmoid()
    pairs = [(y, float(x)) for y, x in zip(labels, logits[:, 0], strict=True) if y is not None]
    true, scores = zip(*pairs, strict=True)
    predicted = [score > 0 for score in scores]
    got = measured(kind("binary", target), logits, as_floats(labels) if target_type == "binary" else as_indices(labels))
    assert got == {
        "accuracy": accuracy_score(true, predicted),
        "f1": pytest.approx(f1_score(true, predicted), rel=1e-12),
        "auroc": pytest.approx(roc_auc_score(true, scores), abs=1e-12),
    }


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 20.0), (40.0, 1.0), (-200.0, 3.0), (0.0, 1e6), (0.0, 1e-9)])
@pytest.mark.parametrize("decimals", [None, 1])
def test_auroc_of_logits_whose_sigmoids_saturate(shift: float, scale: float, decimals: int | None) -> None:
    """The order of the logits counts, and ties count half, even if all sigmoids are 0 or 1 in float32."""
    labels = class_labels(2, 200, 0.2)
    logits = predictions(200, 1) + as_floats(labels).nan_to_num().unsqueeze(1)
    logits = shift + scale * (logits if decimals is None else logits.round(decimals=decimals))
    pairs = [(y, float(x)) for y, x in zip(labels, logits[:, 0], strict=True) if y is not None]
    got = measured(kind("binary", TargetSpec("binary", missing=True)), logits, as_floats(labels))
    assert got["auroc"] == pytest.approx(roc_auc_score(*zip(*pairs, strict=True)), abs=1e-12)


def test_auroc_of_infinite_and_undefined_logits() -> None:
    task, infinity = kind("binary", TargetSpec("binary", missing=True)), math.inf
    labels = torch.tensor([0.0, 0.0, 1.0, 1.0, math.nan])
    logits = torch.tensor([[-infinity], [infinity], [infinity], [3.0], [math.nan]])
    assert measured(task, logits, labels)["auroc"] == 0.625  # the four pairs count 1, ½, 1 and 0
    logits[3] = math.nan
    assert math.isnan(measured(task, logits, labels)["auroc"])


def test_auroc_needs_both_labels() -> None:
    got = measured(kind("binary", TargetSpec("binary")), torch.tensor([[1.0], [-1.0]]), torch.zeros(2))
    assert math.isnan(got["auroc"]) and got["accuracy"] == 0.5 and got["f1"] == 0.0


def test_f1_is_0_without_positive_examples() -> None:
    assert measured(kind("binary", TargetSpec("binary")), -torch.ones(2, 1), torch.zeros(2))["f1"] == 0.0


def test_wrong_number_of_classes_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"class count mismatch.* 2 .* 10"):
        kind("binary", TargetSpec("classes", 10))


NAMED = TargetSpec("classes", 2, ("fraud", "legit"), missing=True)


@pytest.mark.parametrize(
    ("target", "positive"),
    [(NAMED, "fraud"), (NAMED, "Fraud"), (TargetSpec("binary", missing=True), 0), (TargetSpec("binary"), "false"),
     (TargetSpec("classes", 2, ("False", "True")), False), (TargetSpec("classes", 2, ("0", "1")), False)],
)  # fmt: skip
def test_positive_selects_the_positive_class(target: TargetSpec, positive: str | int | bool) -> None:
    """Loss, weight and f1 are those of exchanged labels."""
    labels, logits = class_labels(2, 60, 0.3 if target.missing else 0.0), predictions(60, 1)
    exchanged = [None if label is None else 1 - label for label in labels]
    as_targets = as_floats if target.type == "binary" else as_indices
    chosen, other = kind("binary", target, positive=positive, pos_weight=5.0), kind("binary", target, pos_weight=5.0)
    (loss, gradient), expected = (
        loss_and_gradient(chosen, logits, as_targets(labels)),
        loss_and_gradient(other, logits, as_targets(exchanged)),
    )
    assert float(loss) == float(expected[0]) and np.array_equal(gradient, expected[1])
    assert measured(chosen, logits, as_targets(labels)) == measured(other, logits, as_targets(exchanged))
    assert (chosen.positive, other.positive) == (target.classes or ("0", "1"))


def test_unknown_positive_class_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"no class 'fruad'. Did you mean 'fraud'\? Its classes: fraud, legit"):
        kind("binary", NAMED, positive="fruad")
    with pytest.raises(ValueError, match=r"no class '2'.* Its classes: 0, 1"):
        kind("binary", TargetSpec("binary"), positive=2)
