from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.specs import IGNORE_INDEX, TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.binary_metrics import import_torchmetrics
from tests.oracles import dense as oracle
from tests.tasks.labels import kind
from tests.tasks.maps import IMAGES, SIDES, WEIGHTS, gradient, in_numpy, labelled, measure, ones, weight_of

CLASSES = ("floor", "wall", "ball", "sky", "sea")  # the last two neither occur nor are predicted


def make(missing: bool = True, **options: Any) -> TaskKind:
    return kind("segmentation", TargetSpec("class_map", len(CLASSES), CLASSES, missing=missing), **options)


def examples(missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that are often right, classes, and the mask of the labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (IMAGES, *SIDES), generator=generator)
    logits = torch.randn(IMAGES, len(CLASSES), *SIDES, generator=generator)
    logits += 2 * torch.nn.functional.one_hot(target, len(CLASSES)).movedim(3, 1)
    logits[:, 3:] -= 20
    mask = labelled(missing)
    return logits, target.masked_fill(~mask, IGNORE_INDEX), mask


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, "images", "pixels"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss(missing: float, weights: str | None, smoothing: float) -> None:
    logits, target, mask = examples(missing)
    weight = weight_of(weights)
    loss = make(label_smoothing=smoothing).loss(logits, target, weight)
    losses = oracle.cross_entropies(logits.double().numpy(), target.numpy(), mask.numpy(), smoothing)
    assert loss.item() == pytest.approx(oracle.mean(losses, mask.numpy(), in_numpy(weight)), rel=1e-5)
    assert loss.dtype == torch.float32


def test_loss_without_missing_pixels() -> None:
    logits, target, _ = examples(0.0)
    torch.testing.assert_close(make(missing=False).loss(logits, target), make().loss(logits, target))


def test_unlabelled_pixels_have_no_effect() -> None:
    logits, target, mask = examples()
    extreme = logits.masked_fill(~mask.unsqueeze(1), math.inf)
    extreme[1] = math.nan
    got = gradient(make(), extreme, target)
    assert got.equal(gradient(make(), logits, target)) and not got[(~mask).unsqueeze(1).expand_as(got)].any()
    assert measure(make(), extreme, target) == measure(make(), logits, target)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_metrics(weight: Tensor | None) -> None:
    logits, target, mask = examples()
    task = make()
    task.choose_metrics(["miou", "pixel_accuracy", "balanced_accuracy", "f1", "iou_per_class"])
    got = measure(task, logits, target, weight)
    expected = oracle.segmentation(
        logits.double().numpy(), target.numpy(), mask.numpy(), ones() if weight is None else in_numpy(weight)
    )
    named = {f"iou[{CLASSES[int(name[4])]}]" if name[:3] == "iou" else name: value for name, value in expected.items()}
    got.pop("loss", None)
    assert got == pytest.approx(named, rel=1e-12, nan_ok=True)
    assert math.isnan(got["iou[sky]"])


@pytest.mark.matrix
def test_mean_iou_is_that_of_torchmetrics() -> None:
    """It leaves out the classes that neither occur nor are predicted, as we do."""
    import_torchmetrics()
    from torchmetrics.classification import MulticlassJaccardIndex

    logits, target, _ = examples()
    index = MulticlassJaccardIndex(len(CLASSES), ignore_index=IGNORE_INDEX)
    for rows in (slice(0, 2), slice(2, IMAGES)):
        index.update(logits[rows], target[rows])
    assert measure(make(), logits, target)["miou"] == pytest.approx(float(index.compute()), rel=1e-6)


def test_nan_logits_predict_no_class() -> None:
    logits, target, mask = examples()
    logits[0, 4, 0] = math.nan
    matrix = oracle.confusion(logits.double().numpy(), target.numpy(), mask.numpy(), ones())
    assert measure(make(), logits, target)["pixel_accuracy"] == pytest.approx(matrix.diagonal().sum() / matrix.sum())


def test_log_loss_is_the_loss() -> None:
    logits, target, _ = examples()
    task = make()
    task.choose_metrics(["log_loss"])
    assert measure(task, logits, target)["log_loss"] == pytest.approx(task.loss(logits, target).item(), rel=1e-6)


def test_decode() -> None:
    logits = examples()[0]
    logits[0, 0, 0, 0] = math.nan
    decoded = make().decode(logits)
    assert decoded.indices is not None and decoded.probabilities is not None and decoded.classes == CLASSES
    expected = logits.numpy().argmax(1)
    expected[0, 0, 0] = -1
    assert np.array_equal(decoded.indices.numpy(), expected) and decoded.labels is decoded.indices
    assert decoded.probabilities.shape == logits.shape
    torch.testing.assert_close(decoded.probabilities.sum(1)[1:], torch.ones(IMAGES - 1, *SIDES))


def test_loss_of_equal_probabilities() -> None:
    logits, target, _ = examples()
    assert make().loss(0 * logits, target).item() == pytest.approx(make().chance_loss, rel=1e-6)


def test_another_number_of_classes_is_an_error() -> None:
    with pytest.raises(ValueError, match="`classes` is 13, and the target has 5"):
        make(classes=13)
