from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import MGDAWeighting

from mtlcli.weighting.methods.mgda import MGDA
from tests.oracles import min_norm as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, random, solve
from tests.weighting.methods import tasks

Normalization = Literal["none", "l2", "loss", "loss+"]
NORMALIZATIONS: list[Normalization] = ["none", "l2", "loss", "loss+"]
quick = settings(max_examples=15, deadline=None)


def test_two_tasks_in_closed_form() -> None:
    method = create("mgda", 2)
    for seed in range(500):
        jacobian = random(seed, 2, 2 + seed % 9) * torch.tensor([[1.0], [10.0 ** (seed % 5 - 2)]])
        expected = 2 * oracle.two_tasks(*jacobian.numpy())
        np.testing.assert_allclose(solve(method, jacobian).numpy(), expected, rtol=1e-7, atol=1e-9)


def test_weights_solve_the_quadratic_program() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count)
        expected = count * oracle.weights_of_the_shortest((jacobian @ jacobian.T).numpy())
        np.testing.assert_allclose(solve(create("mgda", count), jacobian).numpy(), expected, rtol=1e-7, atol=1e-8)


def test_optimal_for_all_ranks() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, 1 + seed % 13)
        update, weights = descend(create("mgda", count), jacobian)
        assert oracle.optimality((jacobian @ jacobian.T).numpy(), weights.numpy() / count) < 1e-10
        assert float(weights.sum()) == pytest.approx(count) and float(weights.min()) >= 0
        np.testing.assert_allclose(update.numpy() / count, oracle.shortest(jacobian.numpy()), atol=1e-5)


@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for kind, jacobian in every_kind(count):
        weights = solve(create("mgda", count), scale * jacobian)
        assert weights.isfinite().all() and float(weights.sum()) == pytest.approx(count), kind
        assert oracle.optimality((jacobian @ jacobian.T).numpy(), weights.numpy() / count) < 1e-10, kind


@pytest.mark.parametrize("count", [20, 40])
def test_optimal_for_many_and_badly_conditioned_gradients(count: int) -> None:
    for seed in range(15):
        basis = torch.linalg.qr(random(seed, count, count))[0]
        jacobian = basis * torch.logspace(-6, 0, count, dtype=torch.float64)
        weights = solve(create("mgda", count), jacobian)
        assert oracle.optimality((jacobian @ jacobian.T).numpy(), weights.numpy() / count) < 1e-10


def test_agrees_with_torchjd() -> None:
    """TorchJD's weights sum to 1. Its Frank-Wolfe iteration converges like 1/k, so only few tasks are compared."""
    theirs = MGDAWeighting(epsilon=1e-9, max_iters=3000)
    for seed in range(12):
        count = 2 + seed % 2
        jacobian = random(seed, count, 20)
        gramian = jacobian @ jacobian.T
        expected, weights = theirs(gramian), solve(create("mgda", count), jacobian)  # type: ignore[arg-type]
        torch.testing.assert_close(weights / count @ jacobian, expected @ jacobian, rtol=1e-2, atol=1e-3)
        ours, other = weights / count @ gramian @ weights / count, expected @ gramian @ expected
        assert float(ours) <= float(other) * (1 + 1e-12)
        assert float(other) == pytest.approx(float(ours), rel=1e-4)


@quick
@given(count=st.integers(2, 10), size=st.integers(1, 20), seed=st.integers(0, 10_000))
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_conflicts_with_no_task(normalization: Normalization, count: int, size: int, seed: int) -> None:
    """The official code combines the original gradients with the α of the normalized ones, which may conflict."""
    jacobian, losses = random(seed, count, size), torch.rand(count).double() * 10 + 0.01
    update, _ = descend(create("mgda", count, normalization=normalization), jacobian, losses)
    lengths = jacobian.norm(dim=1)
    assert (jacobian @ update / lengths / lengths.max()).min() > -1e-5


def normalizers(name: Normalization, jacobian: Tensor, losses: Tensor) -> Tensor:
    lengths = jacobian.norm(dim=1)
    return {"none": torch.ones_like(losses), "l2": lengths, "loss": losses, "loss+": losses * lengths}[name]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_normalization_equals_the_paper_with_normalized_losses(normalization: Normalization) -> None:
    for seed in range(50):
        count = 2 + seed % 6
        jacobian, losses = (
            random(seed, count),
            torch.rand(count, generator=torch.Generator().manual_seed(seed)).double(),
        )
        factors = normalizers(normalization, jacobian, losses)
        divided = jacobian / factors[:, None]
        alpha = torch.from_numpy(oracle.weights_of_the_shortest((divided @ divided.T).numpy()))
        update, weights = descend(create("mgda", count, normalization=normalization), jacobian, losses)
        direction = alpha @ divided
        torch.testing.assert_close(update / update.norm(), direction / direction.norm(), rtol=1e-7, atol=1e-8)
        torch.testing.assert_close(weights, count * (alpha / factors) / (alpha / factors).sum(), rtol=1e-6, atol=1e-8)


def test_l2_is_invariant_to_the_units_of_a_loss() -> None:
    jacobian, factors = random(0, 4), torch.tensor([1.0, 1e3, 1e-2, 7.0]).double()
    first = descend(create("mgda", 4, normalization="l2"), jacobian)[0]
    second = descend(create("mgda", 4, normalization="l2"), factors[:, None] * jacobian)[0]
    torch.testing.assert_close(first / first.norm(), second / second.norm())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_zero_gradient_stops_all_tasks(normalization: Normalization) -> None:
    jacobian = random(0, 4)
    jacobian[2] = 0.0
    update, weights = descend(create("mgda", 4, normalization=normalization), jacobian)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, 4.0, 0.0]).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(update, torch.zeros(8).double(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("losses", [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 2.0], [1e-30, 1.0, 1e30]])
def test_finite_for_all_losses(normalization: Normalization, losses: list[float]) -> None:
    for scale in SCALES:
        method = create("mgda", 3, normalization=normalization)
        weights = solve(method, scale * random(0, 3), torch.tensor(losses).double())
        assert weights.isfinite().all() and float(weights.sum()) == pytest.approx(3)


def test_the_update_is_zero_at_a_stationary_point() -> None:
    """20 Frank-Wolfe steps are far from it."""
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0], [3.0, 3.0]]).double()
    assert float(descend(create("mgda", 4), jacobian)[0].norm()) < 1e-8
    weights = solve(create("mgda", 3), jacobian[:3])
    torch.testing.assert_close(weights, torch.tensor([1.5, 0.75, 0.75]).double())


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_identical_tasks_have_weight_one(count: int) -> None:
    weights = solve(create("mgda", count), random(0, 1, 20).repeat(count, 1))
    torch.testing.assert_close(weights, torch.ones(count).double(), rtol=1e-5, atol=0)


def test_the_shortest_of_parallel_gradients_gets_all_the_weight() -> None:
    jacobian = torch.tensor([[4.0], [1.0], [2.0], [3.0]]).double() * random(0, 1, 20)
    torch.testing.assert_close(solve(create("mgda", 4), jacobian), torch.tensor([0.0, 4.0, 0.0, 0.0]).double())


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count, seed = data.draw(st.integers(1, 10)), data.draw(st.integers(0, 1000))
    order = data.draw(st.permutations(range(count)))
    jacobian = random(seed, count)
    torch.testing.assert_close(
        solve(create("mgda", count), jacobian[order]), solve(create("mgda", count), jacobian)[order]
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(count: int, scale: float) -> None:
    for _, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        assert create("mgda", count).weights(gramian, torch.ones(count).double(), range(count)).isfinite().all()


def test_single_precision_gramians() -> None:
    """Devices without float64 use them."""
    for count in (1, 2, 10):
        for kind, jacobian in every_kind(count):
            gramian = (jacobian @ jacobian.T).float()
            weights = create("mgda", count).weights(gramian, torch.ones(count), range(count))
            assert weights.dtype == torch.float32 and weights.isfinite().all(), kind
            assert oracle.optimality((jacobian @ jacobian.T).numpy(), weights.double().numpy() / count) < 1e-4, kind


def test_absent_tasks_are_not_part_of_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.tensor([1.0, 2.0, 3.0]).double()
    for normalization in NORMALIZATIONS:
        method = MGDA(tasks(5), normalization=normalization)
        weights = method.weights(jacobian @ jacobian.T, losses, [0, 2, 4])
        torch.testing.assert_close(weights, solve(create("mgda", 3, normalization=normalization), jacobian, losses))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_never_waits_for_the_device(normalization: Normalization) -> None:
    gramian = torch.ones(4, 4, device="meta", dtype=torch.float64)
    assert create("mgda", 4, normalization=normalization).to("meta").weights(gramian, gramian[0], range(4)).shape == (
        4,
    )
