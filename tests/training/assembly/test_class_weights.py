"""Class weights: scikit-learn's definition, their effect on the loss only, and their place in the checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from mtlcli.data.examples import Examples
from mtlcli.data.loader import evaluation_batches
from mtlcli.data.placement import Placement
from mtlcli.errors import ConfigError
from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.build import build, rebuild
from mtlcli.training.assembly.class_weights import (
    check_class_weights,
    explicit_weights,
    find_class,
    fit_class_weights,
    restore_class_weights,
)
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.evaluate import measure
from mtlcli.training.trainer import Trainer
from tests.tasks.labels import kind
from tests.training.experiments import digits, training

CLASSES = kind("classification", TargetSpec("classes", 4, ("a", "b", "c", "d"), missing=True))
BINARY = kind("binary", TargetSpec("binary", missing=True))


def fit(given: Any, kind: TaskKind, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    train = Examples(torch.zeros(len(labels), 1), {"y": labels}, weights=weights)
    return fit_class_weights(given, kind, train, "y", "t")


@pytest.mark.parametrize("weighted", [False, True])
def test_balanced_is_scikit_learns(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])
    weights = rng.integers(0, 4, 200) if weighted else np.ones(200, int)
    given = torch.from_numpy(np.concatenate([labels, [IGNORE_INDEX] * 9]))
    padded = torch.from_numpy(np.concatenate([weights, [5] * 9]).astype(np.float32))
    fitted = fit("balanced", CLASSES, given, padded if weighted else None)
    repeated = labels.repeat(weights)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=repeated)
    np.testing.assert_allclose(fitted, expected, rtol=1e-14)


def test_balanced_for_0_and_1_with_missing_labels() -> None:
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0, torch.nan])
    assert fit("balanced", BINARY, labels).tolist() == [4 / 6, 2.0]


def test_a_class_without_training_examples(caplog: pytest.LogCaptureFixture) -> None:
    """K is the number of classes that occur, as in scikit-learn."""
    fitted = fit("balanced", CLASSES, torch.tensor([0, 0, 0, 2]))
    assert fitted.tolist() == [4 / 6, 1.0, 2.0, 1.0]
    assert "tasks.t.class_weights: no training example of b, d, whose weight in evaluations is 1" in caplog.text


def test_balanced_without_labels() -> None:
    with pytest.raises(ConfigError, match="needs labelled training examples"):
        fit("balanced", CLASSES, torch.tensor([IGNORE_INDEX]))


def test_explicit_weights() -> None:
    assert explicit_weights({"b": 2.5, "d": 0.0}, CLASSES).tolist() == [1, 2.5, 1, 0]
    assert explicit_weights({"true": 3.0}, BINARY).tolist() == [1, 3]
    assert [find_class(name, ("0", "1")) for name in (0, True, 1.0, "False")] == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("given", "of", "message"),
    [
        ({"bb": 1.0}, CLASSES, r"no class 'bb'\. Did you mean 'b'\? Its classes: a, b, c, d"),
        ({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}, CLASSES, "all classes have the weight 0"),
        ("balanced", kind("regression", TargetSpec("real")), "needs a kind with classes"),
        ("balanced", kind("multilabel", TargetSpec("multilabel", 2)), "needs a kind with classes"),
    ],
)
def test_wrong_class_weights(given: Any, of: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_class_weights(given, of)


@pytest.mark.parametrize("saved", [[1.0], {"x": [1.0]}, {"t": [1.0]}, {"t": [1.0, -1.0]}, {"t": [1.0, float("nan")]}])
def test_damaged_class_weights_in_a_checkpoint(saved: Any) -> None:
    with pytest.raises(ConfigError, match="the class weights in the checkpoint are invalid"):
        restore_class_weights(saved, {"t": BINARY})


def test_the_loss_is_weighted_and_the_metrics_are_not(tmp_path: Path) -> None:
    """Against scikit-learn, in a run, in its checkpoint, and after its evaluation from the checkpoint."""
    weights = {"3": 4.0, "5": 0.0}
    tasks = {"digit": {"dataset": "digits", "kind": "classification", "class_weights": weights},
             "parity": {"dataset": "digits", "target": "parity", "kind": "binary",
                        "class_weights": "balanced"}}  # fmt: skip
    experiment = digits(tasks=tasks, training=training(epochs=1))
    run = build(experiment)
    summary = Trainer(run, tmp_path / "run", plots=False).fit()
    assert run.class_weights["digit"].tolist() == [1, 1, 1, 4, 1, 0, 1, 1, 1, 1]
    payload = load_checkpoint(tmp_path / "run/checkpoints/best.pt")
    again = rebuild(experiment, payload)
    assert again.class_weights["parity"].tolist() == run.class_weights["parity"].tolist()
    collected: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {"digit": [], "parity": []}
    values = measure(again, "test", receive=lambda task, p, y, w: collected[task].append((p, y))).metrics
    assert json.dumps(values) == json.dumps(summary.metrics["test"])
    logits, labels = (torch.cat(x) for x in zip(*collected["digit"], strict=True))
    weights = run.class_weights["digit"][labels]
    probabilities = logits.double().softmax(1)
    assert values["digit"]["loss"] == pytest.approx(
        log_loss(labels, probabilities, labels=range(10), sample_weight=weights), rel=1e-5
    )
    assert values["digit"]["accuracy"] == accuracy_score(labels, logits.argmax(1))
    logits, labels = (torch.cat(x) for x in zip(*collected["parity"], strict=True))
    weights = run.class_weights["parity"][labels.long()]
    expected = log_loss(labels, logits.double().sigmoid(), sample_weight=weights)
    assert values["parity"]["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_a_class_of_weight_0_counts_in_the_metrics() -> None:
    run = build(digits(tasks={"digit": {"dataset": "digits", "kind": "classification", "class_weights": {"5": 0}}}))
    examples = run.examples("test")
    rows = examples["digits"].rows
    assert rows is not None
    fives = examples["digits"].labels("digit") == 5
    run._examples["digits", "test"] = type(examples["digits"])(
        examples["digits"].inputs, examples["digits"].targets, rows[fives]
    )
    evaluation = measure(run, "test")
    assert evaluation.examples["digit"] == int(fives.sum())
    assert np.isnan(evaluation.metrics["digit"]["loss"]) and np.isfinite(evaluation.metrics["digit"]["accuracy"])
    batch = next(evaluation_batches(run.examples("test"), run.sources, Placement(run.device), 8, run.class_weights))
    assert batch.counts == {"digit": 0.0}
