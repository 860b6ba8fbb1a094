from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtlcli.weighting.base import WeightedTask
from mtlcli.weighting.methods.stch import STCH
from tests.oracles import loss_weightings as oracle
from tests.weighting.methods import gradient, history, tasks

NAN = float("nan")
EQUAL = [WeightedTask("a"), WeightedTask("b"), WeightedTask("c")]


def warmed_up(nadir: list[float], weighted: list[WeightedTask] | None = None, mu: float = 1.0) -> STCH:
    weighting = STCH(weighted or EQUAL[: len(nadir)], mu=mu, warmup_epochs=1)
    weighting.end_epoch(torch.tensor(nadir))
    return weighting


@pytest.mark.parametrize("mu", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_objective_and_weights_match_the_paper(count: int, mu: float) -> None:
    weighted, (nadir, losses) = tasks(count), history(2, count)
    lambdas = [task.weight for task in weighted]
    objective, weights = warmed_up(nadir.tolist(), weighted, mu).objective(losses, range(count))
    expected = oracle.stch(losses.double().numpy(), lambdas, nadir.double().numpy(), mu)
    np.testing.assert_allclose(objective.item(), expected[0], rtol=1e-5, atol=1e-5)
    # a small μ amplifies the float32 rounding of the logarithm
    np.testing.assert_allclose(weights.numpy(), expected[1], rtol=1e-5 / min(mu, 1.0))


def test_the_last_epoch_of_the_warm_up_is_the_nadir() -> None:
    weighted, past, losses = tasks(3), history(6, 3), history(1, 3, seed=1)[0]
    lambdas, exact = [task.weight for task in weighted], losses.double().numpy()
    weighting = STCH(weighted)
    for epoch in range(8):
        objective, weights = weighting.objective(losses, range(3))
        expected = (
            oracle.stch_warm_up(exact, lambdas)
            if epoch < 5
            else oracle.stch(exact, lambdas, past[4].double().numpy(), 1.0)
        )
        np.testing.assert_allclose(objective.item(), expected[0], rtol=1e-5)
        np.testing.assert_allclose(weights.numpy(), expected[1], rtol=1e-5)
        weighting.end_epoch(past[min(epoch, 5)])


@pytest.mark.parametrize("epochs", [0, 1])
def test_weighted_losses_sum_to_the_number_of_tasks(epochs: int) -> None:
    """The scale convention: learning rates carry over from losses around 1."""
    weighting = STCH(EQUAL, warmup_epochs=1)
    for _ in range(epochs):
        weighting.end_epoch(torch.tensor([1.0, 2.0, 3.0]))
    losses = torch.tensor([0.3, 2.0, 50.0])
    assert float((weighting.objective(losses, range(3))[1] * losses).sum()) == pytest.approx(3, rel=1e-5)


def test_small_mu_selects_the_worst_task_and_large_mu_all() -> None:
    losses, nadir = torch.tensor([0.5, 2.0, 3.0]), [1.0, 2.0, 6.0]  # the second task has improved least
    sharp = warmed_up(nadir, mu=1e-3).objective(losses, range(3))[1] * losses
    np.testing.assert_allclose(sharp.numpy(), [0, 3, 0], atol=1e-6)
    flat = warmed_up(nadir, mu=1e5).objective(losses, range(3))[1] * losses
    np.testing.assert_allclose(flat.numpy(), [1, 1, 1], rtol=1e-4)


def test_small_mu_neither_overflows_nor_underflows() -> None:
    """A common bug: computing the exponentials before the logarithm."""
    losses = torch.tensor([1e8, 1e-8, 1.0], requires_grad=True)
    objective, weights = warmed_up([1.0, 1.0, 1.0], mu=1e-4).objective(losses, range(3))
    assert objective.item() == pytest.approx(3 * math.log(1e8), rel=1e-5)
    torch.testing.assert_close(gradient(objective, losses), weights)


def test_invariant_to_the_units_of_a_loss() -> None:
    units, losses = torch.tensor([1.0, 1e-3, 1e4]), torch.tensor([0.4, 0.9, 0.2])
    _, weights = warmed_up([1.0, 1.0, 1.0]).objective(losses, range(3))
    _, scaled = warmed_up(units.tolist()).objective(units * losses, range(3))
    torch.testing.assert_close(scaled * units, weights)


def test_epochs_without_labels_do_not_count() -> None:
    weighting = STCH(EQUAL, warmup_epochs=2)
    for losses in ([1.0, 2.0, NAN], [0.5, NAN, NAN]):
        weighting.end_epoch(torch.tensor(losses))
    np.testing.assert_array_equal(weighting.nadir.numpy(), [0.5, 2.0, NAN])
    # a task without a nadir counts as being at it
    now = torch.tensor([0.4, 1.0, 7.0])
    objective, weights = weighting.objective(now.requires_grad_(), range(3))
    expected = oracle.stch(now.detach().double().numpy(), [1, 1, 1], np.array([0.5, 2.0, 7.0]), 1.0)
    np.testing.assert_allclose(objective.item(), expected[0], rtol=1e-5)
    np.testing.assert_allclose(weights.numpy(), expected[1], rtol=1e-5)
    torch.testing.assert_close(gradient(objective, now), weights)
    for losses in ([0.1, 0.1, 6.0], [0.1, 0.1, 0.1]):
        weighting.end_epoch(torch.tensor(losses))
    np.testing.assert_array_equal(weighting.nadir.numpy(), [0.5, 2.0, 6.0])


@pytest.mark.parametrize("dead", [0.0, -1.0, 1e-20])
@pytest.mark.parametrize("epochs", [0, 1])
def test_a_loss_below_the_floor_has_no_gradient(dead: float, epochs: int) -> None:
    weighting = STCH(EQUAL[:2], warmup_epochs=1)
    for _ in range(epochs):
        weighting.end_epoch(torch.tensor([dead, 3.0]))
    losses = torch.tensor([dead, 2.0], requires_grad=True)
    objective, weights = weighting.objective(losses, range(2))
    assert objective.isfinite() and weights[0] == 0 and weights[1] > 0
    torch.testing.assert_close(gradient(objective, losses), weights)


@pytest.mark.parametrize("epochs", [0, 1])
def test_task_weights_of_zero_cause_no_division_by_zero(epochs: int) -> None:
    weighting = STCH([WeightedTask("a", 0.0), WeightedTask("b", 0.0)], warmup_epochs=1)
    for _ in range(epochs):
        weighting.end_epoch(torch.ones(2))
    objective, weights = weighting.objective(torch.ones(2), range(2))
    assert objective.isfinite() and torch.equal(weights, torch.zeros(2))


def test_the_state_is_the_nadir_and_the_epoch() -> None:
    assert set(STCH(EQUAL).state_dict()) == {"nadir", "epoch"}
    assert not STCH.linear
