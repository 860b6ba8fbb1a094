from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtlcli.weighting.methods.imtl_l import IMTLL
from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import tasks

LOSSES = [0.4, 2.0, 1.1]


def train(weighting: IMTLL, losses: list[float]) -> list[float]:
    """Return the scales that gradient descent finds for constant losses."""
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        weighting.objective(torch.tensor(losses), range(len(losses)))[0].backward()
        optimizer.step()
    return [s.item() for s in weighting.scale]


@pytest.mark.parametrize("scales", [[0.0, 0.0, 0.0], [1.3, -0.7, 2.0]])
def test_objective_weights_and_derivatives_match_the_paper(scales: list[float]) -> None:
    weighting, losses = IMTLL(tasks(3)), torch.tensor(LOSSES)
    for parameter, value in zip(weighting.scale, scales, strict=True):
        parameter.data = torch.tensor([value])
    objective, weights = weighting.objective(losses, [0, 1, 2])
    objective.backward()
    expected = oracle.imtl_l(losses.double().numpy(), np.array(scales))
    np.testing.assert_allclose(objective.item(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(weights.numpy(), expected[1], rtol=1e-6)
    slopes = [parameter.grad.item() for parameter in weighting.parameters() if parameter.grad is not None]
    np.testing.assert_allclose(slopes, expected[2], rtol=1e-6, atol=1e-6)  # a difference of nearly equal numbers


def test_every_scaled_loss_converges_to_one() -> None:
    """The claim of the paper: impartial for all scales and likelihoods of the losses."""
    scales = train(IMTLL(tasks(3)), LOSSES)
    np.testing.assert_allclose(np.exp(scales) * LOSSES, 1.0, rtol=1e-4)


def test_the_scales_are_trained_and_saved() -> None:
    """A common bug: an s that is not passed to the optimizer."""
    weighting = IMTLL(tasks(3))
    assert list(dict(weighting.named_parameters())) == list(weighting.state_dict())
    assert [parameter.shape for parameter in weighting.parameters()] == [(1,)] * 3


def test_the_scale_of_an_absent_task_is_constant() -> None:
    """With momentum too, which moves parameters with zero gradients, but not those without."""
    weighting = IMTLL(tasks(3))
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for present in ([0, 1, 2], [0, 2]):
        for _ in range(3):
            before = [s.item() for s in weighting.scale]
            optimizer.zero_grad()
            weighting.objective(torch.ones(len(present)) / 3, present)[0].backward()
            optimizer.step()
            moved = [s.item() != old for s, old in zip(weighting.scale, before, strict=True)]
            assert moved == [task in present for task in range(3)]


def test_initial_values() -> None:
    _, weights = IMTLL(tasks(2), init=math.log(4)).objective(torch.ones(2), [0, 1])
    np.testing.assert_allclose(weights.numpy(), [4.0, 4.0], rtol=1e-6)
