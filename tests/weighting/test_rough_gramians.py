"""Gramian methods on Gramians of any size that rounding has made indefinite: finite, with the documented properties.

The Gramian of a run is exact to float64. Devices without float64, or callers of the library, may have rougher ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.methods import imtl_g
from mtlcli.weighting.solvers import backend, dual_cone, gramian, min_norm
from tests.weighting.documented_properties import PROPERTIES
from tests.weighting.jacobians import create, every_kind, named, random

NAMES = named(GramianWeighting)
SCALES = [1e-30, 1.0, 1e30]


def kinds(count: int) -> Iterator[tuple[str, Tensor]]:
    """Yield Jacobians with a singular or nearly singular Gramian, and zeros."""
    yield from every_kind(count)
    yield "zero", torch.zeros(count, 20).double()
    yield "of rank 3", random(11, count, 3)
    if count > 1:
        near, opposed, half = random(12, count), random(13, count), random(14, count)
        near[1] = near[0] * (1 + 1e-7)
        opposed[1] = -0.99 * opposed[0]
        half[count // 2 :] = 0
        yield from (("near duplicates", near), ("an opposed pair", opposed), ("half zero", half))
        centred = random(15, count)
        yield "rows that sum to 0", centred - centred.mean(0)


def roughened(jacobian: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the Gramian with float32 errors: 1e-7 of each entry, and 1e-7 of the largest."""
    exact = jacobian @ jacobian.T
    noise = 1e-7 * random(16, len(exact), len(exact))
    noise = (noise + noise.T) / 2
    yield "float32 product", (jacobian.float() @ jacobian.float().T).double()
    yield "relative", exact * (1 + noise)
    yield "absolute", exact + noise * exact.abs().max()


def check(name: str, count: int) -> int:
    done = 0
    losses = torch.linspace(0.5, 1.5, count, dtype=torch.float64)
    for kind, jacobian in kinds(count):
        for error, rough in roughened(jacobian):
            for scale in SCALES:
                weighting = create(name, count)
                weighting.start_step()
                weights = weighting.weights(scale * rough, losses, range(count))
                assert weights.isfinite().all(), (kind, error, scale)
                assert PROPERTIES[name](weights.numpy()), (kind, error, scale, weights)
                done += 1
    return done


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_finite_with_the_documented_properties(name: str, count: int) -> None:
    assert check(name, count) >= 70


@pytest.mark.matrix
@pytest.mark.parametrize("count", [3, 10, 20, 40, 64])
@pytest.mark.parametrize("name", NAMES)
def test_finite_with_the_documented_properties_for_many_tasks(name: str, count: int) -> None:
    check(name, count)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the code for devices on the CPU: no values are read."""
    for module in (backend, dual_cone, gramian, imtl_g, min_norm):
        monkeypatch.setattr(module, "is_on_host", lambda tensor: False)


@pytest.mark.parametrize("name", NAMES)
def test_finite_with_the_documented_properties_on_devices(name: str, elsewhere: None) -> None:
    check(name, 3)


@pytest.mark.parametrize("name", NAMES)
def test_devices_give_the_same_update(name: str, request: pytest.FixtureRequest) -> None:
    """Up to rounding; for dependent gradients the weights may differ, the update does not."""
    losses = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)

    def updates() -> list[Tensor]:
        results = []
        for _, jacobian in kinds(4):
            weighting = create(name, 4)
            weighting.start_step()
            results.append(weighting.weights(jacobian @ jacobian.T, losses, range(4)) @ jacobian)
        return results

    here = updates()
    request.getfixturevalue("elsewhere")
    for (kind, jacobian), ours, theirs in zip(kinds(4), here, updates(), strict=True):
        error = float((ours - theirs).norm())
        assert error <= 1e-6 * max(float(ours.norm()), float(jacobian.norm())), (kind, error)
