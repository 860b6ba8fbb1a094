from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from tests.oracles import dense as oracle
from tests.tasks.labels import kind
from tests.tasks.maps import IMAGES, SIDES, WEIGHTS, gradient, in_numpy, labelled, measure, ones, weight_of


def make(missing: bool = True, mean: float = 0.0, **options: Any) -> TaskKind:
    return kind("depth", TargetSpec("depth_map", missing=missing, mean=mean), **options)


def examples(missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions, distances, distances with missing ones, and the mask of the labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    true = 0.5 + 9 * torch.rand(IMAGES, *SIDES, generator=generator)
    predicted = (true * torch.exp(0.4 * torch.randn(true.shape, generator=generator))).unsqueeze(1)
    mask = labelled(missing)
    return predicted, true, true.masked_fill(~mask, math.nan), mask


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, "images", "pixels"])
@pytest.mark.parametrize("loss", ["l1", "mse", "huber", "log_l1"])
def test_loss(missing: float, weights: str | None, loss: str) -> None:
    predicted, true, target, mask = examples(missing)
    weight = weight_of(weights)
    losses = oracle.depth_losses(predicted[:, 0].double().numpy(), true.double().numpy(), loss, 0.8)
    got = make(loss=loss, delta=0.8).loss(predicted, target, weight)
    assert got.item() == pytest.approx(oracle.mean(losses, mask.numpy(), in_numpy(weight)), rel=1e-5)


@pytest.mark.parametrize("loss", ["l1", "mse", "huber", "log_l1"])
def test_unlabelled_pixels_have_no_effect(loss: str) -> None:
    predicted, _, target, mask = examples()
    extreme = predicted.masked_fill(~mask.unsqueeze(1), math.nan)
    extreme[1] = -math.inf
    got = gradient(make(loss=loss), extreme, target)
    assert got.equal(gradient(make(loss=loss), predicted, target)) and not got[~mask.unsqueeze(1)].any()
    assert measure(make(), extreme, target) == measure(make(), predicted, target)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_metrics(weight: Tensor | None) -> None:
    predicted, true, target, mask = examples()
    predicted[3, 0, :2] = torch.tensor([[-1.0], [0.0]])  # no distances
    task = make()
    task.choose_metrics(["abs_err", "rel_err", "rmse", "sq_rel", "rmse_log", "delta1", "delta2", "delta3"])
    pixels = ones() if weight is None else in_numpy(weight)
    assert pixels is not None
    expected = oracle.depth(predicted[:, 0].double().numpy(), true.double().numpy(), mask.numpy(), pixels)
    assert measure(task, predicted, target, weight) == pytest.approx(expected, rel=1e-12)


def test_errors_are_means_over_pixels_not_over_images() -> None:
    target = torch.full((2, 1, 4), math.nan)
    target[0, 0, 0], target[1, 0] = 1.0, 2.0
    predicted = torch.tensor([3.0, 2.5]).view(2, 1, 1, 1).expand(2, 1, 1, 4)
    metrics = make().create_metrics(torch.device("cpu"))
    for row in range(2):
        metrics.update(predicted[row : row + 1], target[row : row + 1])
    assert metrics.compute()["abs_err"] == pytest.approx((2.0 + 4 * 0.5) / 5)


def test_the_output_layer_of_logarithms() -> None:
    layer = make(loss="log_l1", mean=3.0).output_layer()
    assert layer is not None and make().output_layer() is None
    z = torch.tensor([0.0, math.log(2), 1e9, -1e9]).view(1, 1, 1, 4)
    distances = layer(z).flatten()
    assert distances[:2].tolist() == pytest.approx([3.0, 6.0]) and bool((distances.isfinite() & (distances > 0)).all())


def test_negligible_errors_are_those_of_a_hundredth_of_the_distance() -> None:
    errors = make().negligible_errors({"abs_err": 0.6, "rel_err": 0.2, "rmse": 1.0})
    assert errors == pytest.approx({"abs_err": 0.03, "rel_err": 0.01, "rmse": 0.03})


def test_decode() -> None:
    predicted = examples()[0]
    decoded = make().decode(predicted)
    assert isinstance(decoded.labels, Tensor) and decoded.labels.equal(predicted[:, 0]) and decoded.classes is None
