from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import IMTLGWeighting

from mtlcli.weighting.methods.imtl_g import ImpartialGradients
from tests.oracles import alignment as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, of_rank, random, solve
from tests.weighting.methods import tasks

quick = settings(max_examples=15, deadline=None)


def well_posed(seed: int, count: int) -> Tensor:
    """A J of which Σv isn't near 0, where the weights would be as sensitive to rounding as they are large."""
    jacobian = random(seed, count)
    jacobian[:, 0] += 2.0
    return jacobian


def test_weights_are_the_paper_s_closed_form() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, count + seed % 7)
        expected = oracle.imtl_g(jacobian.numpy())
        weights = solve(create("imtl_g", count), jacobian).numpy()
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


def test_the_update_projects_equally_on_all_unit_gradients() -> None:
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count)
        update, weights = descend(create("imtl_g", count), jacobian)
        projections = oracle.projections(update.numpy(), jacobian.numpy())
        np.testing.assert_allclose(projections, projections[0], rtol=1e-6)
        assert float(weights.sum()) == pytest.approx(count)


@pytest.mark.parametrize("count", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for name, jacobian in every_kind(count):
        weights = solve(create("imtl_g", count), scale * jacobian).numpy()
        units = torch.nn.functional.normalize(jacobian, dim=1)
        independent = torch.linalg.matrix_rank(units) == count
        if name == "opposed" and count == 2:
            np.testing.assert_array_equal(weights, 0)
        elif independent:
            np.testing.assert_allclose(weights, oracle.imtl_g(jacobian.numpy()), rtol=1e-5, err_msg=name)
        elif name != "unequal norms":
            expected = oracle.imtl_g_of_dependent_gradients(jacobian.numpy())
            np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_torchjd(count: int, scale: float) -> None:
    """TorchJD's weights sum to 1. It's given the unscaled J: what it takes for a sum of 0 depends on the scale."""
    theirs, ours = IMTLGWeighting(), create("imtl_g", count)
    for name, jacobian in every_kind(count):
        if name == "unequal norms":
            continue  # it takes the smallest gradients of these for 0
        expected = count * theirs(float(scale > 0) * jacobian @ jacobian.T)  # type: ignore[arg-type]
        weights = solve(ours, scale * jacobian)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@quick
@given(data=st.data())
def test_the_scale_of_a_loss_makes_no_difference_to_the_direction(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    scales = torch.tensor(
        data.draw(st.lists(st.floats(-6, 6), min_size=count, max_size=count)), dtype=torch.float64
    ).exp()
    jacobian = well_posed(data.draw(st.integers(0, 1000)), count)
    update = descend(create("imtl_g", count), jacobian)[0]
    rescaled = descend(create("imtl_g", count), scales[:, None] * jacobian)[0]
    cosine = (update @ rescaled) / (update.norm() * rescaled.norm())
    assert float(cosine.abs()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_exact_however_unequal_the_norms(count: int) -> None:
    """Solved with G itself, the smaller gradients would be lost in the rounding of the larger."""
    jacobian = well_posed(0, count)
    lengths = torch.logspace(-7, 7, count, dtype=torch.float64)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    weights = solve(create("imtl_g", count), lengths[:, None] * units)
    x = torch.linalg.solve(units @ units.T, torch.ones(count, dtype=torch.float64))
    torch.testing.assert_close(weights, count * (x / lengths) / (x / lengths).sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_two_tasks_by_hand(scale: float) -> None:
    """The weights are inverse to the norms."""
    jacobian = scale * torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    weights = solve(create("imtl_g", 2), jacobian)
    torch.testing.assert_close(weights, torch.tensor([2 * 1 / 6, 2 * 5 / 6], dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_tasks_alike_have_weight_one(count: int) -> None:
    ones = torch.ones(count, dtype=torch.float64)
    torch.testing.assert_close(solve(create("imtl_g", count), random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(create("imtl_g", count), torch.eye(count, dtype=torch.float64)), ones)


def test_where_the_sum_vanishes_all_weights_are_0() -> None:
    """Two opposed gradients, no gradients, and independent ones: x = (1, 1, −1)/… and norms that make Σ x/‖g‖ = 0."""
    opposed = torch.cat([random(0, 1, 20), -random(0, 1, 20)])
    assert torch.equal(solve(create("imtl_g", 2), opposed), torch.zeros(2, dtype=torch.float64))
    assert torch.equal(solve(create("imtl_g", 2), torch.zeros(2, 20).double()), torch.zeros(2, dtype=torch.float64))
    # the third unit gradient between the first two and near their plane
    units = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, 0.28**0.5]], dtype=torch.float64)
    x = torch.linalg.solve(units @ units.T, torch.ones(3, dtype=torch.float64))
    assert x[0] > 0 > x[2]
    lengths = torch.tensor([1.0, 1.0, float(-x[2] / (x[0] + x[1]))], dtype=torch.float64)
    weights = solve(create("imtl_g", 3), lengths[:, None] * units)
    assert torch.equal(weights, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_the_rounding_of_float32_gradients_adds_nothing_to_their_rank(rank: int) -> None:
    for seed in range(20):
        left = random(seed, 5, rank).abs()  # so that Σv isn't near 0
        jacobian = left @ random(seed + 1, rank, 1000)
        expected = solve(create("imtl_g", 5), jacobian)
        rounded = solve(create("imtl_g", 5), jacobian.float().double())
        torch.testing.assert_close(rounded, expected, rtol=1e-3, atol=1e-4)


@quick
@given(data=st.data())
def test_permuting_the_tasks_permutes_the_weights(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    order = data.draw(st.permutations(range(count)))
    jacobian = well_posed(data.draw(st.integers(0, 1000)), count)
    weighting = create("imtl_g", count)
    torch.testing.assert_close(solve(weighting, jacobian[order]), solve(weighting, jacobian)[order])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(count: int, scale: float) -> None:
    weighting = create("imtl_g", count)
    for _, jacobian in [*every_kind(count), ("low rank", of_rank(0, count, min(count, 2)))]:
        gramian = scale * (jacobian @ jacobian.T)
        assert weighting.weights(gramian, torch.ones(count).double(), range(count)).isfinite().all()


def test_an_absent_task_has_left_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = ImpartialGradients(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("imtl_g", 3), jacobian))
