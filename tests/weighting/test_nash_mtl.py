from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd import aggregation

from mtlcli.weighting.methods.nash_mtl import NashMTL
from mtlcli.weighting.solvers import bargaining
from tests.oracles import bargaining as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, random, solve
from tests.weighting.methods import tasks

SOLVABLE = {"random", "conflicting", "non-conflicting", "identical", "unequal norms"}  # no combination of them is 0
quick = settings(max_examples=15, deadline=None)


def test_solves_the_bargaining_equation() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, count + seed % 12)  # square ones too, some of them nearly singular
        weights = solve(create("nash_mtl", count, max_norm=None), jacobian)
        assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy()) < 1e-6, seed
        assert float(weights.sum()) == pytest.approx(count) and float(weights.min()) > 0


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        weights = solve(create("nash_mtl", count, max_norm=None), scale * jacobian)
        assert weights.isfinite().all() and float(weights.sum()) == pytest.approx(count), kind
        if kind in SOLVABLE and count < len(jacobian.T):
            assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy()) < 1e-6, kind


def test_the_game_s_solution() -> None:
    for seed in range(20):
        count = 2 + seed % 9
        jacobian = random(seed, count, 20)
        update = descend(create("nash_mtl", count), jacobian)[0].numpy()
        np.testing.assert_allclose(update, oracle.direction(jacobian.numpy()), rtol=0, atol=1e-4)


def test_two_tasks_are_the_closed_form() -> None:
    for seed in range(200):
        gramian = (random(seed, 2, 5) @ random(seed, 2, 5).T).numpy()
        weights = solve(create("nash_mtl", 2, max_norm=None), random(seed, 2, 5)).numpy()
        np.testing.assert_allclose(weights, 2 * oracle.two_tasks(gramian), rtol=1e-6)


def test_agrees_with_torchjd() -> None:
    """In direction, its scale being another one, where the official solver it copies (CCCP) ends at a solution."""
    compared = 0
    for seed in range(9):
        count = [2, 5, 10][seed % 3]
        jacobian = random(seed, count, 20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of cvxpy, about its solver ECOS
            theirs = aggregation.NashMTL(n_tasks=count, max_norm=0.0, optim_niter=200).weighting(jacobian).double()
        if oracle.residual((jacobian @ jacobian.T).numpy(), theirs.numpy()) < 1e-2:
            weights = solve(create("nash_mtl", count, max_norm=None), jacobian)
            torch.testing.assert_close(weights, theirs * (count / theirs.sum()), rtol=1e-4, atol=0)
            compared += 1
    assert compared >= 7


@quick
@given(data=st.data())
def test_the_units_of_a_loss_change_no_direction(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 8))
    exponents = data.draw(st.lists(st.floats(-6, 6), min_size=count, max_size=count))
    jacobian, factors = random(count, count), 10.0 ** torch.tensor(exponents, dtype=torch.float64)
    method = create("nash_mtl", count, max_norm=None)
    first, second = descend(method, jacobian)[0], descend(method, factors[:, None] * jacobian)[0]
    torch.testing.assert_close(second / second.norm(), first / first.norm(), rtol=1e-6, atol=1e-8)


@quick
@given(count=st.integers(1, 10), seed=st.integers(0, 10_000))
def test_every_task_gets_the_same_share(count: int, seed: int) -> None:
    """α_t g_t·d is the same for all; so none is in conflict with d."""
    jacobian = random(seed, count)
    update, weights = descend(create("nash_mtl", count), jacobian)
    shares = weights * (jacobian @ update)
    torch.testing.assert_close(shares, shares.mean().expand(count), rtol=1e-6, atol=0)
    assert float(shares.mean()) > 0


@pytest.mark.parametrize("max_norm", [1.0, 0.01, 1e6, None])
def test_max_norm_is_the_most_the_update_s_norm_can_be(max_norm: float | None) -> None:
    for seed in range(20):
        free = descend(create("nash_mtl", 4, max_norm=None), random(seed, 4))[0]
        update = descend(create("nash_mtl", 4, max_norm=max_norm), random(seed, 4))[0]
        limit = max_norm if max_norm is not None and float(free.norm()) > max_norm else float(free.norm())
        torch.testing.assert_close(update, free / free.norm() * limit)


def test_a_stationary_point_gets_nearly_no_update() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    update, weights = descend(create("nash_mtl", 3, max_norm=None), jacobian)
    assert float(update.norm()) < 1e-3
    torch.testing.assert_close(weights, torch.tensor([1.5, 0.75, 0.75]).double(), rtol=1e-3, atol=0)


def test_a_task_with_zero_gradient_has_no_part_in_the_game() -> None:
    """The known trap: its α is without bound, and in weights with a given sum nothing is left for the others."""
    jacobian = random(0, 4)
    jacobian[2] = 0.0
    weights = solve(create("nash_mtl", 4, max_norm=None), jacobian)
    expected = solve(create("nash_mtl", 3, max_norm=None), jacobian[[0, 1, 3]])
    torch.testing.assert_close(weights[[0, 1, 3]], expected)
    assert float(weights[2]) == 1
    none = torch.zeros(4, 8).double()
    assert torch.equal(solve(create("nash_mtl", 4), none), torch.ones(4).double())


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_tasks_alike_have_weight_one(count: int) -> None:
    method = create("nash_mtl", count, max_norm=None)
    ones = torch.ones(count).double()
    torch.testing.assert_close(solve(method, random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(method, 3 * torch.eye(count).double()), ones)


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 20))
    order = data.draw(st.permutations(range(count)))
    jacobian, method = random(data.draw(st.integers(0, 1000)), count, size), create("nash_mtl", count)
    torch.testing.assert_close(solve(method, jacobian[order]), solve(method, jacobian)[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        assert create("nash_mtl", count).weights(gramian, torch.ones(count).double(), range(count)).isfinite().all(), (
            kind
        )


def test_single_precision_gramians() -> None:
    """Where the device has no float64."""
    for count in (1, 2, 10):
        for kind, jacobian in every_kind(count):
            gramian = (jacobian @ jacobian.T).float()
            weights = create("nash_mtl", count, max_norm=None).weights(gramian, torch.ones(count), range(count))
            assert weights.dtype == torch.float32 and weights.isfinite().all(), kind
            if kind == "random":
                expected = solve(create("nash_mtl", count, max_norm=None), jacobian)
                torch.testing.assert_close(weights.double(), expected, rtol=1e-3, atol=0)


def test_an_absent_task_has_left_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = NashMTL(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("nash_mtl", 3), jacobian))


@pytest.mark.parametrize("fairness", [1.0, 2.0])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_torch_and_numpy_find_the_same(count: int, fairness: float) -> None:
    """Where both have it: what torch computes on a device is what NumPy does on the CPU, but for the early end."""
    for kind, jacobian in every_kind(count):
        if kind in SOLVABLE:
            gramian = jacobian @ jacobian.T
            on_device, on_cpu = (
                bargaining.solve_bargaining_with(torch, gramian, fairness),
                bargaining.solve_bargaining(gramian, fairness),
            )
            torch.testing.assert_close(on_device, on_cpu, rtol=1e-6, atol=0)
