from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import FairGradWeighting

from tests.oracles import bargaining as oracle
from tests.weighting.jacobians import create, descend, random, solve

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
def test_direction_maximizes_the_utility(alpha: float) -> None:
    for seed in range(10):
        count = 2 + seed % 9
        jacobian = random(seed, count, 20)
        update = descend(create("fairgrad", count, alpha=alpha), jacobian)[0].numpy()
        expected = oracle.direction(jacobian.numpy(), alpha)
        np.testing.assert_allclose(update / np.linalg.norm(update), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_agrees_with_torchjd(alpha: float) -> None:
    """Compares the directions, as the scales differ."""
    for seed in range(9):
        count = [2, 5, 10][seed % 3]
        jacobian = random(seed, count, 20)
        theirs = FairGradWeighting(alpha=alpha)(jacobian @ jacobian.T)  # type: ignore[arg-type]
        weights = solve(create("fairgrad", count, alpha=alpha), jacobian)
        torch.testing.assert_close(weights, theirs * (count / theirs.sum()), rtol=1e-4, atol=0)


def test_alpha_one_equals_nash_mtl() -> None:
    for seed in range(20):
        jacobian = random(seed, 5)
        nash = solve(create("nash_mtl", 5, max_norm=None), jacobian)
        torch.testing.assert_close(solve(create("fairgrad", 5, alpha=1.0), jacobian), nash)
        near = solve(create("fairgrad", 5, alpha=1.0 + 1e-9), jacobian)  # uses the general branch of the solver
        torch.testing.assert_close(near, nash, rtol=1e-6, atol=0)


def test_small_alpha_gives_the_sum_and_large_alpha_max_min_fairness() -> None:
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
def test_conflicts_with_no_task(count: int, seed: int, alpha: float) -> None:
    jacobian = random(seed, count)
    assert (jacobian @ descend(create("fairgrad", count, alpha=alpha), jacobian)[0]).min() > 0


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_never_waits_for_the_device(alpha: float) -> None:
    gramian = torch.ones(4, 4, device="meta", dtype=torch.float64)
    assert create("fairgrad", 4, alpha=alpha).to("meta").weights(gramian, gramian[0], range(4)).shape == (4,)
