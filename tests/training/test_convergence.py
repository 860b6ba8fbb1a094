"""Every weighting trains a toy with two targets on its full batch to a Pareto-stationary point, without a NaN."""

from __future__ import annotations

import math

import pytest

from mtlcli.registry import weightings
from tests.training.toys import Toy, register

NAMES = weightings.names()
# Where the end is known less exactly, as a part of the longest gradient: random steps, and those of samples of the
# batch, keep moving about the Pareto set; learned weights and those of each epoch are still moving along it; a
# regularized projection has its own error. The objectives of gls and stch, sums of logarithms, are least where one loss
# is 0, and the weight of that task grows without bound on the way there.
REACHED = {"graddrop": 0.2, "rlw": 0.2, "sdmgrad": 0.1, "dwa": 0.1, "imtl_l": 0.1, "uncertainty": 0.1, "famo": 0.1,
           "gradnorm": 0.1, "dualproj": 1e-3, "upgrad": 1e-3, "gls": math.inf, "stch": math.inf}  # fmt: skip


@pytest.fixture(autouse=True)
def toy(plugins_forgotten: None) -> None:
    register()


@pytest.mark.parametrize("name", NAMES)
def test_the_first_steps(name: str) -> None:
    toy = Toy(name)
    before = toy.stationarity()[0]
    toy.train(60)
    assert toy.stationarity()[0] < 0.9 * before


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_two_thousand_steps(name: str) -> None:
    """Where no common descent direction is left, the shortest convex combination of the gradients is their rounding."""
    toy = Toy(name)
    toy.train(2000)
    shortest, longest = toy.stationarity()
    assert shortest < REACHED.get(name, 2e-4) * longest
