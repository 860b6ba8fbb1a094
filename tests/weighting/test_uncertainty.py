from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtlcli.weighting.base import WeightedTask
from mtlcli.weighting.methods.uncertainty import Uncertainty
from tests.oracles import loss_weightings as oracle

TASKS = [WeightedTask("depth", likelihood="gaussian"), WeightedTask("label"), WeightedTask("part")]
GAUSSIAN = [True, False, False]


@pytest.mark.parametrize("log_variances", [[0.0, 0.0, 0.0], [1.3, -0.7, 2.0]])
def test_objective_weights_and_derivatives_match_the_paper(log_variances: list[float]) -> None:
    weighting, losses = Uncertainty(TASKS), torch.tensor([0.4, 2.0, 1.1])
    for parameter, value in zip(weighting.log_variance, log_variances, strict=True):
        parameter.data = torch.tensor([value])
    objective, weights = weighting.objective(losses, [0, 1, 2])
    objective.backward()
    expected = oracle.uncertainty(losses.double().numpy(), np.array(log_variances), GAUSSIAN)
    np.testing.assert_allclose(objective.item(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(weights.numpy(), expected[1], rtol=1e-6)
    slopes = [parameter.grad.item() for parameter in weighting.parameters() if parameter.grad is not None]
    np.testing.assert_allclose(slopes, expected[2], rtol=1e-6)


def test_the_log_variances_are_trained_and_saved() -> None:
    """A common bug: an s that is not passed to the optimizer."""
    weighting = Uncertainty(TASKS)
    assert list(dict(weighting.named_parameters())) == list(weighting.state_dict())
    assert sum(parameter.numel() for parameter in weighting.parameters()) == 3
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    losses = torch.tensor([0.4, 2.0, 1.1])
    for _ in range(100):
        optimizer.zero_grad()
        weighting.objective(losses, [0, 1, 2])[0].backward()
        optimizer.step()
    # the minimum: σ² is the loss for a Gaussian, twice the loss for a softmax
    expected = [math.log(0.4), math.log(4.0), math.log(2.2)]
    np.testing.assert_allclose([s.item() for s in weighting.log_variance], expected, atol=1e-4)


def test_the_log_variance_of_an_absent_task_is_constant() -> None:
    """With momentum too, which moves parameters with zero gradients, but not those without."""
    weighting = Uncertainty(TASKS)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for present in ([0, 1, 2], [0, 2]):
        for _ in range(3):
            before = [s.item() for s in weighting.log_variance]
            optimizer.zero_grad()
            weighting.objective(torch.ones(len(present)) / 3, present)[0].backward()
            optimizer.step()
            moved = [s.item() != old for s, old in zip(weighting.log_variance, before, strict=True)]
            assert moved == [task in present for task in range(3)]


def test_initial_values() -> None:
    _, weights = Uncertainty(TASKS, init=math.log(4)).objective(torch.ones(3), [0, 1, 2])
    np.testing.assert_allclose(weights.numpy(), [0.125, 0.25, 0.25], rtol=1e-6)
