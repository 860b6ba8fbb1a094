from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import CAGradWeighting

from mtlcli.weighting.methods.cagrad import CAGrad
from tests.oracles import min_norm as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, random, solve
from tests.weighting.methods import tasks

quick = settings(max_examples=15, deadline=None)


def gap(jacobian: Tensor, c: float) -> float:
    """Bound how far min_t g_t·d is from the maximum, relative to G's diagonal, by the dual bound with the method's ω.

    Also asserts that d is in the ball.
    """
    count = len(jacobian)
    update, weights = descend(create("cagrad", count, c=c), jacobian)
    direction, mean = update / count, jacobian.mean(0)
    assert float((direction - mean).norm()) <= c * float(mean.norm()) * (1 + 1e-6) + 1e-12 * float(jacobian.norm())
    worst = float((jacobian @ direction).min())
    extra = (weights - 1).clamp(min=0)
    bound = oracle.conflict_averse_bound(jacobian.numpy(), (extra / extra.sum().clamp(min=1e-300)).numpy(), c)
    if float(jacobian.norm(dim=1).min()) == 0:
        bound = min(bound, 0.0)  # a task with a zero gradient has no ω
    return (bound - worst) / float(jacobian.square().sum(1).mean())


def test_optimal_for_all_ranks() -> None:
    for seed in range(500):
        assert gap(random(seed, 2 + seed % 9, 1 + seed % 19), [0.1, 0.4, 0.8][seed % 3]) < 1e-8


@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_optimal_for_every_kind_of_jacobian(count: int) -> None:
    for kind, jacobian in every_kind(count):
        assert gap(jacobian, 0.4) < 1e-8, kind
        assert gap(jacobian, 0.99) < 1e-6, kind


@pytest.mark.parametrize("c", [0.0, 0.4, 0.9])
def test_matches_a_convex_solver(c: float) -> None:
    for seed in range(20):
        count = 2 + seed % 9
        jacobian = random(seed, count, 20)
        direction, worst = oracle.conflict_averse(jacobian.numpy(), c)
        update = descend(create("cagrad", count, c=c), jacobian)[0].numpy() / count
        np.testing.assert_allclose(update, direction, rtol=0, atol=1e-5 * np.linalg.norm(direction))
        assert float((jacobian.numpy() @ update).min()) == pytest.approx(worst, abs=1e-6)


def test_agrees_with_torchjd() -> None:
    """TorchJD's weights are 1/T of these, for a mean instead of a sum. Its tolerances assume that G has norm 1."""
    theirs = CAGradWeighting(c=0.4)
    for count in (2, 5, 10):
        for kind, jacobian in every_kind(count):
            if kind in {"unequal norms", "one zero", "opposed"}:
                continue  # a mean, or an ω, below the tolerance of TorchJD
            gramian = jacobian @ jacobian.T
            expected = count * (theirs(gramian) @ jacobian)  # type: ignore[arg-type]
            update = descend(create("cagrad", count), jacobian)[0]
            error = float((update - expected).norm() / expected.norm())
            assert error < (1e-2 if kind == "conflicting" else 1e-4), kind


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_invariant_to_the_scale_of_all_losses(count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        update = descend(create("cagrad", count), jacobian)[0]
        scaled = descend(create("cagrad", count), scale * jacobian)[0] / scale
        assert float((scaled - update).norm()) <= 1e-5 * float(jacobian.norm()), kind


@pytest.mark.parametrize("count", [1, 2, 6, 40])
def test_identical_tasks_give_one_plus_c_times_their_sum(count: int) -> None:
    jacobian = random(0, 1, 20).repeat(count, 1)
    expected = torch.full((count,), 1.4).double()
    torch.testing.assert_close(solve(create("cagrad", count), jacobian), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("rescale", "divisor"), [("none", 1.0), ("squared", 1.16), ("linear", 1.4)])
def test_rescale_divides(rescale: str, divisor: float) -> None:
    """A common bug: the official code divides by 1 + c², the paper does not."""
    expected = solve(create("cagrad", 5), random(0, 5)) / divisor
    torch.testing.assert_close(solve(create("cagrad", 5, rescale=rescale), random(0, 5)), expected)


def test_radius_zero_gives_the_sum() -> None:
    for _, jacobian in every_kind(5):
        torch.testing.assert_close(solve(create("cagrad", 5, c=0.0), jacobian), torch.ones(5).double())


@quick
@given(count=st.integers(2, 10), size=st.integers(1, 20), seed=st.integers(0, 10_000), c=st.floats(0, 0.99))
def test_the_mean_loss_decreases_and_the_worst_task_improves(count: int, size: int, seed: int, c: float) -> None:
    jacobian = random(seed, count, size)
    update = descend(create("cagrad", count, c=c), jacobian)[0]
    mean = jacobian.sum(0)
    assert float(mean @ update) >= (1 - c) * float(mean @ mean) * (1 - 1e-9)
    assert float((jacobian @ update).min()) >= float((jacobian @ mean).min()) - 1e-6


def test_a_zero_gradient_does_not_affect_the_others() -> None:
    """A common bug: the zero gradient takes all of ω, so that the ball is not used."""
    jacobian = random(3, 5)
    jacobian[1] = 0.0
    update, weights = descend(create("cagrad", 5), jacobian)
    others = [0, 2, 3, 4]
    mean = jacobian.mean(0)
    assert float(weights[1]) == 1
    assert float((update / 5 - mean).norm()) == pytest.approx(0.4 * float(mean.norm()), rel=1e-6)
    alone = descend(create("cagrad", 4), jacobian[others])[0]
    torch.testing.assert_close(update, alone, rtol=1e-6, atol=1e-8)  # the sum of the others, and 0.4 of its length


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, 10)), data.draw(st.integers(0, 1000))
    order = data.draw(st.permutations(range(count)))
    jacobian, method = random(seed, count), create("cagrad", count)
    torch.testing.assert_close(solve(method, jacobian[order]), solve(method, jacobian)[order], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("c", [0.0, 0.4, 1.0, 10.0])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gradients(count: int, scale: float, c: float) -> None:
    for kind, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        weights = create("cagrad", count, c=c).weights(gramian, torch.ones(count).double(), range(count))
        assert weights.isfinite().all(), kind


def test_single_precision_gramians() -> None:
    """Devices without float64 use them."""
    for count in (1, 2, 10):
        for kind, jacobian in every_kind(count):
            gramian = (jacobian @ jacobian.T).float()
            weights = create("cagrad", count).weights(gramian, torch.ones(count), range(count))
            assert weights.dtype == torch.float32 and weights.isfinite().all(), kind


def test_absent_tasks_are_not_part_of_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = CAGrad(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("cagrad", 3), jacobian))
