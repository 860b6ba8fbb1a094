from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import FairGradWeighting

from mtlcli.weighting.methods.fairgrad import FairGrad
from tests.oracles import bargaining as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, random, solve
from tests.weighting.methods import tasks

ALPHAS = [0.5, 1.0, 2.0, 5.0]
SOLVABLE = {"random", "conflicting", "non-conflicting", "identical"}  # no combination of them is 0
quick = settings(max_examples=15, deadline=None)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_solves_the_fairness_equation(alpha: float) -> None:
    """504 Gramians in all."""
    for seed in range(126):
        count = 2 + seed % 9
        jacobian = random(seed, count, count + 1 + seed % 12)
        weights = solve(create("fairgrad", count, alpha=alpha), jacobian)
        assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy(), alpha) < 1e-6, seed
        assert float(weights.sum()) == pytest.approx(count) and float(weights.min()) > 0


@pytest.mark.parametrize("alpha", [0.1, 0.2, 10.0, 20.0])
def test_solves_the_fairness_equation_for_unusual_alphas(alpha: float) -> None:
    for seed in range(50):
        count = 2 + seed % 9
        jacobian = random(seed, count)
        weights = solve(create("fairgrad", count, alpha=alpha), jacobian)
        assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy(), alpha) < 1e-5, seed


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
def test_every_kind_of_jacobian(count: int, scale: float, alpha: float) -> None:
    for kind, jacobian in every_kind(count):
        weights = solve(create("fairgrad", count, alpha=alpha), scale * jacobian)
        assert weights.isfinite().all() and float(weights.sum()) == pytest.approx(count), kind
        if kind in SOLVABLE and count < len(jacobian.T):
            assert oracle.residual((jacobian @ jacobian.T).numpy(), weights.numpy(), alpha) < 1e-6, kind


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_greatest_utility(alpha: float) -> None:
    for seed in range(10):
        count = 2 + seed % 9
        jacobian = random(seed, count, 20)
        update = descend(create("fairgrad", count, alpha=alpha), jacobian)[0].numpy()
        expected = oracle.direction(jacobian.numpy(), alpha)
        np.testing.assert_allclose(update / np.linalg.norm(update), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_agrees_with_torchjd(alpha: float) -> None:
    """In direction, its scale being another one."""
    for seed in range(9):
        count = [2, 5, 10][seed % 3]
        jacobian = random(seed, count, 20)
        theirs = FairGradWeighting(alpha=alpha)(jacobian @ jacobian.T)  # type: ignore[arg-type]
        weights = solve(create("fairgrad", count, alpha=alpha), jacobian)
        torch.testing.assert_close(weights, theirs * (count / theirs.sum()), rtol=1e-4, atol=0)


def test_alpha_one_is_nash() -> None:
    for seed in range(20):
        jacobian = random(seed, 5)
        nash = solve(create("nash_mtl", 5, max_norm=None), jacobian)
        torch.testing.assert_close(solve(create("fairgrad", 5, alpha=1.0), jacobian), nash)
        near = solve(create("fairgrad", 5, alpha=1.0 + 1e-9), jacobian)  # by the other branch of the solver
        torch.testing.assert_close(near, nash, rtol=1e-6, atol=0)


def test_a_small_alpha_is_the_sum_and_a_large_one_the_worst_off() -> None:
    jacobian = random(0, 5)
    ones = solve(create("fairgrad", 5, alpha=0.01), jacobian)
    torch.testing.assert_close(ones, torch.ones(5).double(), rtol=0.1, atol=0)
    gains = []
    for alpha in (0.5, 1.0, 2.0, 8.0):
        update = descend(create("fairgrad", 5, alpha=alpha), jacobian)[0]
        gains.append(float((jacobian @ update / update.norm()).min()))
    assert gains == sorted(gains)


@quick
@given(count=st.integers(1, 10), seed=st.integers(0, 10_000), alpha=st.sampled_from(ALPHAS))
def test_in_conflict_with_no_task(count: int, seed: int, alpha: float) -> None:
    jacobian = random(seed, count)
    assert (jacobian @ descend(create("fairgrad", count, alpha=alpha), jacobian)[0]).min() > 0


def test_a_task_with_zero_gradient_has_no_part_in_it() -> None:
    """The known trap: its v is without bound, and in weights with a given sum nothing is left for the others."""
    jacobian = random(0, 4)
    jacobian[2] = 0.0
    weights = solve(create("fairgrad", 4), jacobian)
    torch.testing.assert_close(weights[[0, 1, 3]], solve(create("fairgrad", 3), jacobian[[0, 1, 3]]))
    assert float(weights[2]) == 1
    assert torch.equal(solve(create("fairgrad", 4), torch.zeros(4, 8).double()), torch.ones(4).double())


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_tasks_alike_have_weight_one(count: int, alpha: float) -> None:
    method = create("fairgrad", count, alpha=alpha)
    ones = torch.ones(count).double()
    torch.testing.assert_close(solve(method, random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(method, 3 * torch.eye(count).double()), ones)


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 20))
    order = data.draw(st.permutations(range(count)))
    jacobian, method = random(data.draw(st.integers(0, 1000)), count, size), create("fairgrad", count)
    torch.testing.assert_close(solve(method, jacobian[order]), solve(method, jacobian)[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("alpha", [1e-3, 0.1, 1.0, 2.0, 1e3])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite(count: int, scale: float, alpha: float) -> None:
    for kind, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        weights = create("fairgrad", count, alpha=alpha).weights(gramian, torch.ones(count).double(), range(count))
        assert weights.isfinite().all(), kind


def test_single_precision_gramians() -> None:
    """Where the device has no float64."""
    for count in (1, 2, 10):
        for kind, jacobian in every_kind(count):
            gramian = (jacobian @ jacobian.T).float()
            weights = create("fairgrad", count).weights(gramian, torch.ones(count), range(count))
            assert weights.dtype == torch.float32 and weights.isfinite().all(), kind


def test_an_absent_task_has_left_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = FairGrad(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("fairgrad", 3), jacobian))


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_never_waits_for_the_device(alpha: float) -> None:
    gramian = torch.ones(4, 4, device="meta", dtype=torch.float64)
    assert create("fairgrad", 4, alpha=alpha).to("meta").weights(gramian, gramian[0], range(4)).shape == (4,)
