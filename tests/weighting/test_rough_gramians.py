"""Every Gramian method on Gramians that rounding has made indefinite, of any size: finite weights, as promised.

A run's Gramian is exact to float64. A device without float64 has a rougher one, and so may a caller of the library.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mtlcli.weighting.base import GramianWeighting
from mtlcli.weighting.methods import imtl_g
from mtlcli.weighting.solvers import backend, dual_cone, gramian, min_norm
from tests.weighting.jacobians import create, every_kind, named, random
from tests.weighting.promises import PROMISES

NAMES = named(GramianWeighting)
SCALES = [1e-30, 1.0, 1e30]


def kinds(count: int) -> Iterator[tuple[str, Tensor]]:
    """Jacobians whose Gramian is singular, or nearly; and all zeros."""
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
    """Its Gramian with the errors of float32, by 1e-7 of each entry, and by 1e-7 of the largest."""
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
                assert PROMISES[name](weights.numpy()), (kind, error, scale, weights)
                done += 1
    return done


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
def test_finite_and_as_promised(name: str, count: int) -> None:
    assert check(name, count) >= 70


@pytest.mark.matrix
@pytest.mark.parametrize("count", [3, 10, 20, 40, 64])
@pytest.mark.parametrize("name", NAMES)
def test_finite_and_as_promised_for_many_tasks(name: str, count: int) -> None:
    check(name, count)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a device whose values aren't read, taken on the CPU."""
    for module in (backend, dual_cone, gramian, imtl_g, min_norm):
        monkeypatch.setattr(module, "is_on_host", lambda tensor: False)


@pytest.mark.parametrize("name", NAMES)
def test_finite_and_as_promised_where_values_are_not_read(name: str, elsewhere: None) -> None:
    check(name, 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_where_values_are_not_read(name: str, request: pytest.FixtureRequest) -> None:
    """Up to the rounding of other operations; of dependent gradients the update is the same, not the weights."""
    losses = torch.linspace(0.5, 1.5, 4, dtype=torch.float64)

    def updates() -> list[Tensor]:
        found = []
        for _, jacobian in kinds(4):
            weighting = create(name, 4)
            weighting.start_step()
            found.append(weighting.weights(jacobian @ jacobian.T, losses, range(4)) @ jacobian)
        return found

    here = updates()
    request.getfixturevalue("elsewhere")
    for (kind, jacobian), ours, theirs in zip(kinds(4), here, updates(), strict=True):
        error = float((ours - theirs).norm())
        assert error <= 1e-6 * max(float(ours.norm()), float(jacobian.norm())), (kind, error)
