from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mtlcli.specs import TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.kinds.normals import angles_between
from tests.oracles import dense as oracle
from tests.tasks.labels import kind
from tests.tasks.maps import IMAGES, SIDES, WEIGHTS, gradient, in_numpy, labelled, measure, ones, weight_of


def make(missing: bool = True) -> TaskKind:
    return kind("normals", TargetSpec("normal_map", 3, missing=missing))


def examples(missing: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Vectors of any length, normals, normals with missing ones, and the mask of the labelled pixels."""
    generator = torch.Generator().manual_seed(0)
    true = normalize(torch.randn(IMAGES, 3, *SIDES, generator=generator), dim=1)
    predicted = (true + 0.3 * torch.randn(true.shape, generator=generator)) * 5
    mask = labelled(missing)
    return predicted, true, true.masked_fill(~mask.unsqueeze(1), math.nan), mask


@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, "images", "pixels"])
def test_loss(missing: float, weights: str | None) -> None:
    predicted, true, target, mask = examples(missing)
    weight = weight_of(weights)
    losses = oracle.normal_losses(predicted.double().numpy(), true.double().numpy())
    got = make().loss(predicted, target, weight)
    assert got.item() == pytest.approx(oracle.mean(losses, mask.numpy(), in_numpy(weight)), rel=1e-5)


def test_loss_does_not_depend_on_the_length() -> None:
    predicted, true, _, _ = examples()
    torch.testing.assert_close(make(missing=False).loss(7 * predicted, true), make().loss(predicted, true))


def test_unlabelled_pixels_have_no_effect() -> None:
    predicted, _, target, mask = examples()
    extreme = predicted.masked_fill(~mask.unsqueeze(1), math.inf)
    extreme[1, 0] = math.nan
    got = gradient(make(), extreme, target)
    assert got.equal(gradient(make(), predicted, target)) and not got[(~mask).unsqueeze(1).expand_as(got)].any()
    assert measure(make(), extreme, target) == measure(make(), predicted, target)


def test_a_pixel_with_a_missing_component_is_missing() -> None:
    predicted, true, _, _ = examples(0.0)
    target = true.clone()
    target[0, 1, 2, 3] = math.nan
    whole = true.clone()
    whole[0, :, 2, 3] = math.nan
    assert make().loss(predicted, target).equal(make().loss(predicted, whole))
    assert measure(make(), predicted, target) == measure(make(), predicted, whole)


def test_a_prediction_of_length_0_has_a_finite_gradient() -> None:
    predicted, _, target, _ = examples()
    assert gradient(make(), predicted * 0, target).abs().max() <= 1e6  # of 1 / its smallest length


@pytest.mark.parametrize("weight", [None, WEIGHTS])
def test_metrics(weight: Tensor | None) -> None:
    predicted, true, target, mask = examples()
    predicted[0, :, 0, :2] = 0.0
    task = make()
    names = ["angle_mean", "within_11.25", "within_22.5", "within_30", "angle_rmse", "angle_median"]
    task.choose_metrics(names)
    pixels = ones() if weight is None else in_numpy(weight)
    assert pixels is not None
    expected = oracle.normals(predicted.double().numpy(), true.double().numpy(), mask.numpy(), pixels)
    got = measure(task, predicted, target, weight)
    assert got.pop("angle_median") == pytest.approx(expected.pop("angle_median"), abs=0.02)
    assert got == pytest.approx(expected, rel=1e-5)


def test_the_median_is_exact_to_the_width_of_a_bin() -> None:
    angles = np.random.default_rng(0).uniform(0, 180, 2001)
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 2001)
    rows = np.stack([np.sin(np.radians(angles)), 0 * angles, np.cos(np.radians(angles))])
    metrics = make().create_metrics(torch.device("cpu"))
    metrics.update(torch.from_numpy(rows).float().view(1, 3, 1, 2001), target)
    assert metrics.compute()["angle_median"] == pytest.approx(float(np.median(angles)), abs=0.02)


def test_small_angles_are_exact() -> None:
    """The arc cosine of float32 numbers is 0 for all of them."""
    angles = torch.tensor([1e-4, 1e-3, 1e-2])
    vectors = torch.stack([angles.deg2rad().sin(), 0 * angles, angles.deg2rad().cos()]).view(1, 3, 1, 3)
    axis = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    torch.testing.assert_close(angles_between(vectors, axis).flatten(), angles)


def test_decode_returns_unit_vectors() -> None:
    predicted = examples()[0]
    decoded = make().decode(predicted)
    assert isinstance(decoded.labels, Tensor) and decoded.columns == ("x", "y", "z")
    torch.testing.assert_close(decoded.labels, normalize(predicted, dim=1))
