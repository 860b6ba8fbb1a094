"""Every weighting trains a toy with two targets on its full batch to a Pareto-stationary point, without a NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mtlcli.registry import weightings
from tests.training.toys import Toy, register

NAMES = weightings.names()
# Where the end is known less exactly, as a part of the longest gradient: random steps, and those of samples of the
# batch, keep moving about the Pareto set; learned weights and those of each epoch are still moving along it; a
# regularized projection has its own error. The objectives of gls and stch, sums of logarithms, are least where one loss
# is 0, and the weight of that task grows without bound on the way there.
REACHED = {"graddrop": 0.2, "rlw": 0.2, "sdmgrad": 0.1, "dwa": 0.1, "imtl_l": 0.1, "uncertainty": 0.3, "famo": 0.1,
           "gradnorm": 0.1, "dualproj": 1e-3, "upgrad": 1e-3, "gls": math.inf, "stch": math.inf}  # fmt: skip


@pytest.fixture(autouse=True)
def toy() -> None:
    register()


@pytest.mark.parametrize("name", NAMES)
def test_first_steps_reduce_the_shortest_combination(name: str) -> None:
    toy = Toy(name)
    before = toy.stationarity()[0]
    toy.train(60)
    assert toy.stationarity()[0] < 0.9 * before


@pytest.mark.parametrize(
    ("options", "precision", "reached"),
    [({}, "fp32", 1e-3), ({"gradients": "features"}, "fp32", 1e-3), ({"every": 3}, "fp32", 1e-2), ({}, "bf16", 0.5),
     ({}, "fp16", 0.1)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["mgda", "cagrad"])
def test_training_reaches_cancelling_gradients(
    name: str, options: dict[str, Any], precision: str, reached: float
) -> None:
    """With a Gramian of float32, mgda had NaN weights by step 151, and cagrad in every other run."""
    toy = Toy(name, options=options, precision=precision)
    toy.train(250)
    shortest, longest = toy.stationarity()
    assert shortest < reached * longest


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_two_thousand_steps_reach_rounding_error(name: str) -> None:
    """At a Pareto stationary point, the shortest convex combination of the gradients is their rounding error."""
    toy = Toy(name)
    toy.train(2000)
    shortest, longest = toy.stationarity()
    assert shortest < REACHED.get(name, 2e-4) * longest
