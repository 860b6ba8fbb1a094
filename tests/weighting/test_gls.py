from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import create, gradient, history, tasks


@pytest.mark.parametrize("count", [1, 2, 3, 40])
@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_objective_and_weights_match_the_paper(count: int, scale: float) -> None:
    losses = scale * history(1, count)[0]
    objective, weights = create("gls", tasks(count)).objective(losses, range(count))
    expected, expected_weights = oracle.gls(losses.double().numpy())
    np.testing.assert_allclose(objective.item(), expected, rtol=1e-5)
    np.testing.assert_allclose(weights.numpy(), expected_weights, rtol=1e-5)


def test_weights_are_the_gradient_of_the_objective() -> None:
    """A common bug: reporting 1, or the losses, as weights."""
    losses = torch.tensor([0.5, 2.0, 4.0], requires_grad=True)
    objective, weights = create("gls", tasks(3)).objective(losses, range(3))
    torch.testing.assert_close(gradient(objective, losses), weights)
    torch.testing.assert_close(weights * losses.detach(), torch.full((3,), objective.item() / 3))


@pytest.mark.parametrize("dead", [0.0, -1.0, 1e-20])
def test_a_loss_below_the_floor_has_no_gradient(dead: float) -> None:
    losses = torch.tensor([dead, 2.0], requires_grad=True)
    objective, weights = create("gls", tasks(2)).objective(losses, range(2))
    assert objective.item() == pytest.approx((1e-12 * 2.0) ** 0.5, rel=1e-4)
    assert weights[0] == 0 and weights[1] > 0
    torch.testing.assert_close(gradient(objective, losses), weights)


def test_is_not_linear() -> None:
    assert not create("gls", tasks(2)).linear
