"""Properties that the projections onto the dual cone share: `upgrad` and `dualproj`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import DualProjWeighting, UPGradWeighting
from torchjd.linalg import QuadprogProjector

from mtlcli.weighting import DualProj, UPGrad
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


@dataclass(frozen=True)
class Method:
    """A method, its weights by a QP solver [T, T] → [T], and its weights by TorchJD."""

    weighting: Any
    oracle: Any
    torchjd: Any


METHODS = {
    "dualproj": Method(DualProj, oracle.dualproj, DualProjWeighting),
    "upgrad": Method(UPGrad, oracle.upgrad, UPGradWeighting),
}
each_method = pytest.mark.parametrize("name", METHODS)


@each_method
def test_weights_solve_the_quadratic_program(name: str) -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, 1 + seed % 13)
        expected = METHODS[name].oracle((jacobian @ jacobian.T).numpy())
        np.testing.assert_allclose(solve(create(name, count), jacobian).numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", SCALES)
@each_method
def test_every_kind_of_jacobian(name: str, count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        expected = METHODS[name].oracle((scale * jacobian @ (scale * jacobian).T).numpy())
        weights = solve(create(name, count), scale * jacobian).numpy()
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-8, err_msg=kind)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("scale", SCALES)
@each_method
def test_agrees_with_torchjd(name: str, count: int, scale: float) -> None:
    """TorchJD's weights are 1/T of these, for a mean instead of a sum."""
    theirs, ours = METHODS[name].torchjd(), create(name, count)
    for kind, jacobian in every_kind(count):
        expected = count * theirs(scale * jacobian @ (scale * jacobian).T)
        weights = solve(ours, scale * jacobian)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6, msg=lambda text, kind=kind: kind + text)


@pytest.mark.parametrize("norm_eps", [0.0, 1e-2, 1e3])
@pytest.mark.parametrize("reg_eps", [1e-6, 1e-2, 1.0])
@each_method
def test_agrees_with_torchjd_with_other_options(name: str, norm_eps: float, reg_eps: float) -> None:
    theirs = METHODS[name].torchjd(projector=QuadprogProjector(norm_eps=norm_eps, reg_eps=reg_eps))
    ours = create(name, 6, norm_eps=norm_eps, reg_eps=reg_eps)
    for jacobian in (random(0, 6), conflicting(1, 6), stationary(2, 6)):
        expected = 6 * theirs(jacobian @ jacobian.T)
        torch.testing.assert_close(solve(ours, jacobian), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@each_method
def test_conflicts_with_no_task(name: str, count: int) -> None:
    """The product with g_i is at least −reg_eps·tr(G)·w_i."""
    for kind, jacobian in every_kind(count):
        update, weights = descend(create(name, count), jacobian)
        gramian = jacobian @ jacobian.T
        allowed = 1e-4 * gramian.trace() * weights + 1e-10 * gramian.trace()
        assert (jacobian @ update >= -allowed).all(), kind


@pytest.mark.parametrize("count", [1, 2, 40])
@each_method
def test_without_conflict_the_update_is_the_sum(name: str, count: int) -> None:
    weights = solve(create(name, count), non_conflicting(0, count))
    assert torch.equal(weights, torch.ones(count, dtype=torch.float64))


@quick
@given(data=st.data())
@each_method
def test_permuting_the_tasks_permutes_the_weights(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    order = data.draw(st.permutations(range(count)))
    jacobian = random(data.draw(st.integers(0, 1000)), count, data.draw(st.integers(1, 12)))
    weights = solve(create(name, count), jacobian)
    torch.testing.assert_close(solve(create(name, count), jacobian[order]), weights[order])


@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1e5, 1e15])
@each_method
def test_invariant_to_the_scale_of_all_gradients(name: str, scale: float) -> None:
    jacobian, weighting = stationary(0, 7), create(name, 7, norm_eps=0.0)
    torch.testing.assert_close(solve(weighting, scale * jacobian), solve(weighting, jacobian), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
@each_method
def test_finite_for_tiny_and_huge_gramians(name: str, count: int, scale: float) -> None:
    weighting = create(name, count)
    for _, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        assert weighting.weights(gramian, torch.ones(count).double(), range(count)).isfinite().all()


@each_method
def test_absent_tasks_are_not_part_of_the_problem(name: str) -> None:
    jacobian = conflicting(0, 3)
    weighting = METHODS[name].weighting(tasks(5))
    weights = weighting.weights(jacobian @ jacobian.T, torch.ones(3).double(), [0, 2, 4])
    torch.testing.assert_close(weights, solve(create(name, 3), jacobian))


@each_method
def test_a_zero_gradient_does_not_affect_the_others(name: str) -> None:
    jacobian = conflicting(0, 4)
    with_zero = torch.cat([jacobian, torch.zeros(1, 20, dtype=torch.float64)])
    expected = solve(create(name, 4), jacobian)
    torch.testing.assert_close(solve(create(name, 5), with_zero)[:4], expected, rtol=1e-8, atol=1e-8)
