from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import UPGradWeighting
from torchjd.linalg import QuadprogProjector

from mtlcli.weighting.methods.upgrad import UPGrad
from tests.oracles import dual_cone as oracle
from tests.weighting.jacobians import (
    SCALES,
    conflicting,
    create,
    descend,
    every_kind,
    non_conflicting,
    random,
    solve,
    stationary,
)
from tests.weighting.methods import tasks

quick = settings(max_examples=15, deadline=None)


def test_weights_are_the_quadratic_programs() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, 1 + seed % 13)
        expected = oracle.upgrad((jacobian @ jacobian.T).numpy())
        np.testing.assert_allclose(solve(create("upgrad", count), jacobian).numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", SCALES)
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for name, jacobian in every_kind(count):
        expected = oracle.upgrad((scale * jacobian @ (scale * jacobian).T).numpy())
        weights = solve(create("upgrad", count), scale * jacobian).numpy()
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-8, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_torchjd(count: int, scale: float) -> None:
    """TorchJD's weights are the mean's, 1/T of the sum's."""
    theirs, ours = UPGradWeighting(), create("upgrad", count)
    for name, jacobian in every_kind(count):
        expected = count * theirs(scale * jacobian @ (scale * jacobian).T)  # type: ignore[arg-type]
        weights = solve(ours, scale * jacobian)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("norm_eps", [0.0, 1e-2, 1e3])
@pytest.mark.parametrize("reg_eps", [1e-6, 1e-2, 1.0])
def test_agrees_with_torchjd_with_other_options(norm_eps: float, reg_eps: float) -> None:
    theirs = UPGradWeighting(projector=QuadprogProjector(norm_eps=norm_eps, reg_eps=reg_eps))
    ours = create("upgrad", 6, norm_eps=norm_eps, reg_eps=reg_eps)
    for jacobian in (random(0, 6), conflicting(1, 6), stationary(2, 6)):
        expected = 6 * theirs(jacobian @ jacobian.T)  # type: ignore[arg-type]
        torch.testing.assert_close(solve(ours, jacobian), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_conflicts_with_no_task(count: int) -> None:
    """Up to reg_eps: the product with g_i is at least −reg_eps·tr(G)·w_i."""
    for name, jacobian in every_kind(count):
        update, weights = descend(create("upgrad", count), jacobian)
        gramian = jacobian @ jacobian.T
        allowed = 1e-4 * gramian.trace() * weights + 1e-10 * gramian.trace()
        assert (jacobian @ update >= -allowed).all(), name


@pytest.mark.parametrize("seed", range(5))
def test_two_conflicting_tasks_by_hand(seed: int) -> None:
    """The sum of each gradient minus its projection on the other, which is PCGrad's update for two tasks."""
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


@pytest.mark.parametrize("count", [1, 2, 40])
def test_without_conflict_it_is_the_sum(count: int) -> None:
    weights = solve(create("upgrad", count), non_conflicting(0, count))
    assert torch.equal(weights, torch.ones(count, dtype=torch.float64))


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    order = data.draw(st.permutations(range(count)))
    jacobian = random(data.draw(st.integers(0, 1000)), count, data.draw(st.integers(1, 12)))
    weights = solve(create("upgrad", count), jacobian)
    torch.testing.assert_close(solve(create("upgrad", count), jacobian[order]), weights[order])


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1e5, 1e15])
def test_the_scale_of_all_gradients_makes_no_difference(scale: float) -> None:
    jacobian, weighting = stationary(0, 7), create("upgrad", 7, norm_eps=0.0)
    torch.testing.assert_close(solve(weighting, scale * jacobian), solve(weighting, jacobian), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(count: int, scale: float) -> None:
    weighting = create("upgrad", count)
    for _, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        assert weighting.weights(gramian, torch.ones(count).double(), range(count)).isfinite().all()


def test_an_absent_task_has_left_the_problem() -> None:
    jacobian = conflicting(0, 3)
    weighting = UPGrad(tasks(5))
    weights = weighting.weights(jacobian @ jacobian.T, torch.ones(3).double(), [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("upgrad", 3), jacobian))


def test_a_task_without_gradient_changes_nothing_for_the_others() -> None:
    jacobian = conflicting(0, 4)
    with_zero = torch.cat([jacobian, torch.zeros(1, 20, dtype=torch.float64)])
    expected = solve(create("upgrad", 4), jacobian)
    torch.testing.assert_close(solve(create("upgrad", 5), with_zero)[:4], expected, rtol=1e-8, atol=1e-8)
