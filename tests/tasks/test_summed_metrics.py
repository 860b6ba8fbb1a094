"""Kinds that accept targets of pixels in addition to those of examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import dense as oracle
from tests.tasks.labels import kind
from tests.tasks.maps import IMAGES, SIDES, WEIGHTS, gradient, in_numpy, labelled, measure, ones, weight_of


def edges(missing: bool = True, **options: Any) -> TaskKind:
    return kind("binary", TargetSpec("binary_map", missing=missing), **options)


def heat(size: int = 1, missing: bool = True, **options: Any) -> TaskKind:
    return kind("regression", TargetSpec("real_map", size, missing=missing, mean=100.0, std=2.0), **options)


def binary_examples(missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits, multiples of a half; labels; labels with missing ones; the mask of the labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(IMAGES, *SIDES, generator=generator) < 0.3).float()
    logits = (torch.randn(labels.shape, generator=generator) * 2 + 2 * labels - 1).mul(2).round().div(2).unsqueeze(1)
    mask = labelled(missing)
    return logits + 1 / 1024, labels, labels.masked_fill(~mask, math.nan), mask


def number_examples(size: int, missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    true = 100 + 2 * torch.randn(IMAGES, size, *SIDES, generator=generator)
    predicted = true + torch.randn(true.shape, generator=generator)
    mask = labelled(missing)
    target = true.masked_fill(~mask.unsqueeze(1), math.nan)
    return predicted, true, target.squeeze(1) if size == 1 else target, mask


@pytest.mark.parametrize("weights", [None, "images", "pixels"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_binary_loss(missing: float, weights: str | None) -> None:
    logits, labels, target, mask = binary_examples(missing)
    weight = weight_of(weights)
    losses = oracle.binary_losses(logits[:, 0].double().numpy(), labels.double().numpy())
    expected = oracle.mean(losses, mask.numpy(), in_numpy(weight))
    assert edges().loss(logits, target, weight).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("weights", [None, "images", "pixels"])
def test_regression_loss(size: int, weights: str | None) -> None:
    predicted, true, target, mask = number_examples(size)
    weight = weight_of(weights)
    losses = np.square((predicted.double().numpy() - true.double().numpy()) / 2.0).mean(1)
    expected = oracle.mean(losses, mask.numpy(), in_numpy(weight))
    assert heat(size).loss(predicted, target, weight).item() == pytest.approx(expected, rel=1e-5)


def test_unlabelled_pixels_have_no_effect() -> None:
    examples = [(edges(), *binary_examples()), *((heat(size), *number_examples(size)) for size in (1, 2))]
    for task, predicted, _, target, mask in examples:
        extreme = predicted.masked_fill(~mask.unsqueeze(1), math.inf)
        extreme[1] = math.nan
        got = gradient(task, extreme, target)
        assert got.equal(gradient(task, predicted, target))
        assert not got[(~mask).unsqueeze(1).expand_as(got)].any()
        assert measure(task, extreme, target) == measure(task, predicted, target)


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_binary_metrics(weight: Tensor | None, positive: int) -> None:
    logits, labels, target, mask = binary_examples()
    task = edges(positive=positive)
    names = ["accuracy", "f1", "iou", "precision", "recall", "balanced_accuracy"]
    ranked = ["auroc", "average_precision", "max_f1"]
    task.choose_metrics([*names, *ranked, "log_loss"])
    got = measure(task, logits, target, weight)
    pixels = ones() if weight is None else in_numpy(weight)
    assert pixels is not None
    w, z, is_one = pixels[mask], logits[:, 0].double().numpy()[mask], labels.numpy()[mask] == positive
    tp, fp = (w * ((z > 0) & is_one)).sum(), (w * ((z > 0) & ~is_one)).sum()
    fn, tn = (w * (~(z > 0) & is_one)).sum(), (w * (~(z > 0) & ~is_one)).sum()
    expected = {
        "accuracy": (tp + tn) / w.sum(), "f1": 2 * tp / (2 * tp + fp + fn), "iou": tp / (tp + fp + fn),
        "precision": tp / (tp + fp), "recall": tp / (tp + fn),
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
        **dict(zip(ranked, oracle.ranks(z[w > 0], is_one[w > 0], w[w > 0]), strict=True)),
        "log_loss": (w * oracle.binary_losses(z, is_one.astype(float))).sum() / w.sum(),
    }  # fmt: skip
    assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_regression_metrics(weight: Tensor | None, size: int) -> None:
    predicted, true, target, mask = number_examples(size)
    pixels = ones() if weight is None else in_numpy(weight)
    assert pixels is not None
    expected = oracle.regression(predicted.double().numpy(), true.double().numpy(), mask.numpy(), pixels)
    assert measure(heat(size), predicted, target, weight) == pytest.approx(expected, rel=1e-9)


def test_equal_labels_have_no_r2() -> None:
    target = torch.full((2, *SIDES), 0.1)
    metrics = heat().create_metrics(torch.device("cpu"))
    metrics.update(target.unsqueeze(1) + 1, target)
    assert math.isnan(metrics.compute()["r2"])


def test_ranks_without_both_labels_are_undefined() -> None:
    logits = binary_examples()[0]
    task = edges()
    task.choose_metrics(["auroc", "average_precision", "max_f1", "iou"])
    got = measure(task, logits, torch.zeros(IMAGES, *SIDES))
    assert [math.isnan(got[name]) for name in ("auroc", "average_precision", "max_f1")] == [True] * 3
    assert got["iou"] == 0.0


def test_metrics_of_other_forms_are_rejected() -> None:
    with pytest.raises(ValueError, match="'spearman' does not apply to numbers for each pixel"):
        heat().choose_metrics(["mae", "spearman"])
    with pytest.raises(ValueError, match="'calibration_error' does not apply to a label for each pixel"):
        edges().choose_metrics(["calibration_error"])
    with pytest.raises(ValueError, match="'iou' applies only to targets with a label for each pixel"):
        kind("binary", TargetSpec("binary")).choose_metrics(["iou"])


def test_the_output_layer_converts_standardized_maps() -> None:
    layer = heat().output_layer()
    assert layer is not None
    converted = layer(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16))
    assert converted.dtype == torch.float32 and converted.unique().tolist() == [102.0]


@pytest.mark.parametrize("positive", [0, 1])
def test_decode_binary_maps(positive: int) -> None:
    logits = torch.tensor([3.0, -1.0, math.nan, 0.0]).view(1, 1, 2, 2)
    decoded = edges(positive=positive).decode(logits)
    assert decoded.indices is not None and decoded.probabilities is not None and decoded.classes == ("0", "1")
    assert decoded.indices.flatten().tolist() == [positive, 1 - positive, -1, 1 - positive]
    assert decoded.probabilities[0, positive, 0, 0].item() == pytest.approx(1 / (1 + math.exp(-3)))


def test_decode_numbers() -> None:
    assert heat().decode(torch.zeros(3, 1, *SIDES)).labels.shape == (3, *SIDES)  # type: ignore[union-attr]
    assert heat(2).decode(torch.zeros(3, 2, *SIDES)).labels.shape == (3, 2, *SIDES)  # type: ignore[union-attr]
