"""UPGrad; `test_dual_cone_methods` covers the properties that it shares with DualProj."""

from __future__ import annotations

import pytest
import torch

from tests.weighting.jacobians import create, descend, random


@pytest.mark.parametrize("seed", range(5))
def test_two_conflicting_tasks_in_closed_form(seed: int) -> None:
    """The sum of each gradient minus its projection onto the other, which is PCGrad's update for two tasks."""
    jacobian = random(seed, 2)
    jacobian[1] -= 2 * jacobian[0]
    first, second = jacobian
    assert first @ second < 0
    expected = (
        first - (first @ second) / (second @ second) * second + second - (first @ second) / (first @ first) * first
    )
    update = descend(create("upgrad", 2, reg_eps=1e-8), jacobian)[0]
    # reg_eps = 1e-8 of the squared lengths, about 40 here, moves the solution by up to 1e-6
    torch.testing.assert_close(update, expected, rtol=1e-5, atol=1e-5)
