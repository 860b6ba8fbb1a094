"""DualProj; `test_dual_cone_methods` covers the properties that it shares with UPGrad."""

from __future__ import annotations

import pytest
import torch

from tests.weighting.jacobians import create, descend, random, solve


@pytest.mark.parametrize("seed", range(5))
def test_two_conflicting_tasks_in_closed_form(seed: int) -> None:
    """If the sum conflicts with a gradient, the update is the component of the sum orthogonal to that gradient."""
    jacobian = random(seed, 2)
    jacobian[1] -= 3 * jacobian[0]
    first, second = jacobian
    total = first + second
    assert total @ first < 0 < total @ second
    update = descend(create("dualproj", 2, reg_eps=1e-8), jacobian)[0]
    # reg_eps = 1e-8 of the squared lengths, about 40 here, moves the solution by up to 1e-6
    torch.testing.assert_close(update, total - (total @ first) / (first @ first) * first, rtol=1e-5, atol=1e-5)


def test_conflicting_tasks_are_summed_if_their_sum_conflicts_with_none() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)
    assert torch.equal(solve(create("dualproj", 2), jacobian), torch.ones(2, dtype=torch.float64))
