from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation

from mtlcli.weighting.solvers import bargaining
from tests.oracles import bargaining as oracle
from tests.weighting.jacobians import create, descend, every_kind, random, solve

SOLVABLE = {"random", "conflicting", "non-conflicting", "identical", "unequal norms"}  # no combination of them is 0
quick = settings(max_examples=15, deadline=None)


def test_solves_the_bargaining_equation() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, count + seed % 12)  # includes square ones, some nearly singular
        weights = solve(create("nash_mtl", count, max_norm=None), jacobian)
        assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy()) < 1e-6, seed
        assert float(weights.sum()) == pytest.approx(count) and float(weights.min()) > 0


def test_update_solves_the_bargaining_game() -> None:
    for seed in range(20):
        count = 2 + seed % 9
        jacobian = random(seed, count, 20)
        update = descend(create("nash_mtl", count), jacobian)[0].numpy()
        np.testing.assert_allclose(update, oracle.direction(jacobian.numpy()), rtol=0, atol=1e-4)


def test_two_tasks_in_closed_form() -> None:
    for seed in range(200):
        gramian = (random(seed, 2, 5) @ random(seed, 2, 5).T).numpy()
        weights = solve(create("nash_mtl", 2, max_norm=None), random(seed, 2, 5)).numpy()
        np.testing.assert_allclose(weights, 2 * oracle.two_tasks(gramian), rtol=1e-6)


def test_agrees_with_torchjd() -> None:
    """Compares the directions, as the scales differ, if the official solver that TorchJD copies (CCCP) converges."""
    compared = 0
    for seed in range(9):
        count = [2, 5, 10][seed % 3]
        jacobian = random(seed, count, 20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cvxpy warns about its solver ECOS
            theirs = aggregation.NashMTL(n_tasks=count, max_norm=0.0, optim_niter=200).weighting(jacobian).double()
        if oracle.residual((jacobian @ jacobian.T).numpy(), theirs.numpy()) < 1e-2:
            weights = solve(create("nash_mtl", count, max_norm=None), jacobian)
            torch.testing.assert_close(weights, theirs * (count / theirs.sum()), rtol=1e-4, atol=0)
            compared += 1
    assert compared >= 7


@quick
@given(data=st.data())
def test_direction_is_invariant_to_the_units_of_a_loss(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    exponents = data.draw(st.lists(st.floats(-6, 6), min_size=count, max_size=count))
    jacobian, factors = random(count, count), 10.0 ** torch.tensor(exponents, dtype=torch.float64)
    method = create("nash_mtl", count, max_norm=None)
    first, second = descend(method, jacobian)[0], descend(method, factors[:, None] * jacobian)[0]
    torch.testing.assert_close(second / second.norm(), first / first.norm(), rtol=1e-6, atol=1e-8)


@quick
@given(count=st.integers(1, 10), seed=st.integers(0, 10_000))
def test_every_task_gets_the_same_share(count: int, seed: int) -> None:
    """α_t g_t·d is equal for all tasks, so that none conflicts with d."""
    jacobian = random(seed, count)
    update, weights = descend(create("nash_mtl", count), jacobian)
    shares = weights * (jacobian @ update)
    torch.testing.assert_close(shares, shares.mean().expand(count), rtol=1e-6, atol=0)
    assert float(shares.mean()) > 0


@pytest.mark.parametrize("max_norm", [1.0, 0.01, 1e6, None])
def test_max_norm_limits_the_norm_of_the_update(max_norm: float | None) -> None:
    for seed in range(20):
        free = descend(create("nash_mtl", 4, max_norm=None), random(seed, 4))[0]
        update = descend(create("nash_mtl", 4, max_norm=max_norm), random(seed, 4))[0]
        limit = max_norm if max_norm is not None and float(free.norm()) > max_norm else float(free.norm())
        torch.testing.assert_close(update, free / free.norm() * limit)


def test_the_update_nearly_vanishes_at_a_stationary_point() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    update, weights = descend(create("nash_mtl", 3, max_norm=None), jacobian)
    assert float(update.norm()) < 1e-3
    torch.testing.assert_close(weights, torch.tensor([1.5, 0.75, 0.75]).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("fairness", [1.0, 2.0])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_torch_and_numpy_give_the_same_solution(count: int, fairness: float) -> None:
    """The torch version, for devices, differs from the NumPy version, for the CPU, in the early stop only."""
    for kind, jacobian in every_kind(count):
        if kind in SOLVABLE:
            gramian = jacobian @ jacobian.T
            on_device, on_cpu = (
                bargaining.solve_bargaining_with(torch, gramian, fairness),
                bargaining.solve_bargaining(gramian, fairness),
            )
            torch.testing.assert_close(on_device, on_cpu, rtol=1e-6, atol=0)
