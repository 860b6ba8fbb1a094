from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import IMTLGWeighting

from mtlcli.weighting.methods.imtl_g import IMTLG
from tests.oracles import alignment as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, of_rank, random, solve
from tests.weighting.methods import tasks

quick = settings(max_examples=15, deadline=None)


def well_posed(seed: int, count: int) -> Tensor:
    """Return a J with Σv not close to 0, where large weights would be sensitive to rounding."""
    jacobian = random(seed, count)
    jacobian[:, 0] += 2.0
    return jacobian


def test_weights_match_the_closed_form_of_the_paper() -> None:
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
        if independent:
            np.testing.assert_allclose(weights, oracle.imtl_g(jacobian.numpy()), rtol=1e-5, err_msg=name)
        elif name != "unequal norms":
            expected = oracle.imtl_g_of_dependent_gradients(jacobian.numpy())
            # zero entries of a vanishing combination are accurate to the root of the tolerance, 2e-6
            np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_torchjd(count: int, scale: float) -> None:
    """TorchJD's weights sum to 1; it gets the unscaled J, because its tolerance for a sum of 0 depends on the scale.

    For cancelling gradients it returns the least-squares solution.
    """
    theirs, ours = IMTLGWeighting(), create("imtl_g", count)
    for name, jacobian in every_kind(count):
        if name == "unequal norms":
            continue  # the smallest of these gradients count as 0 in TorchJD
        if scale > 0 and name != "one zero" and oracle.cancelling(jacobian.numpy()) is not None:
            continue
        expected = count * theirs(float(scale > 0) * jacobian @ jacobian.T)  # type: ignore[arg-type]
        weights = solve(ours, scale * jacobian)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@quick
@given(data=st.data())
def test_direction_is_invariant_to_the_scale_of_a_loss(data: st.DataObject) -> None:
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
def test_accurate_for_unequal_norms(count: int) -> None:
    """Solving with G itself would lose the smaller gradients in the rounding of the larger ones."""
    jacobian = well_posed(0, count)
    lengths = torch.logspace(-7, 7, count, dtype=torch.float64)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    weights = solve(create("imtl_g", count), lengths[:, None] * units)
    x = torch.linalg.solve(units @ units.T, torch.ones(count, dtype=torch.float64))
    torch.testing.assert_close(weights, count * (x / lengths) / (x / lengths).sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_two_tasks_in_closed_form(scale: float) -> None:
    """Weights are inversely proportional to the norms."""
    jacobian = scale * torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    weights = solve(create("imtl_g", 2), jacobian)
    torch.testing.assert_close(weights, torch.tensor([2 * 1 / 6, 2 * 5 / 6], dtype=torch.float64))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_identical_tasks_have_weight_one(count: int) -> None:
    ones = torch.ones(count, dtype=torch.float64)
    torch.testing.assert_close(solve(create("imtl_g", count), random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(create("imtl_g", count), torch.eye(count, dtype=torch.float64)), ones)


@pytest.mark.parametrize("ratio", [1e-3, 0.5, 0.99, 1.0, 1.01, 7.0, 1e4])
@pytest.mark.parametrize("exact", [True, False])
def test_two_opposed_gradients_cancel(ratio: float, exact: bool) -> None:
    """g₂ = −c g₁. Least squares gives weights of [200, −198] at c = 0.99, which increase the second loss."""
    gradient = random(0, 1, 1000)
    jacobian = torch.cat([gradient, -ratio * gradient])
    jacobian = jacobian if exact else jacobian.float().double()
    update, weights = descend(create("imtl_g", 2), jacobian)
    expected = 2 * torch.tensor([ratio, 1.0], dtype=torch.float64) / (1 + ratio)
    torch.testing.assert_close(weights, expected, rtol=1e-6, atol=0)
    np.testing.assert_allclose(weights.numpy(), oracle.imtl_g(jacobian.numpy()), rtol=1e-6)
    # the update is a difference of float32 rows
    assert float(update.norm()) <= (1e-14 if exact else 1e-7) * float((weights * jacobian.norm(dim=1)).sum())


@pytest.mark.parametrize("angle", [1e-9, 1e-7, 1e-6, 2e-6, 1e-5, 1e-3])
def test_nearly_opposed_gradients_have_the_same_weights(angle: float) -> None:
    """For two tasks, weights are inversely proportional to the norms at all angles, also if the rank is uncertain."""
    first, other = torch.linalg.qr(random(0, 2, 100).T)[0].T
    jacobian = torch.stack([first, -0.9 * first + 0.9 * angle * other])
    weights = solve(create("imtl_g", 2), jacobian)
    torch.testing.assert_close(weights, 2 * torch.tensor([0.9, 1.0], dtype=torch.float64) / 1.9, rtol=1e-6, atol=0)


@pytest.mark.parametrize("ratio", [0.5, 0.99, 3.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_third_task_has_no_weight_if_two_are_opposed(ratio: float, scale: float) -> None:
    jacobian = random(0, 3, 100)
    jacobian[1] = -ratio * jacobian[0]
    jacobian[2] *= scale
    update, weights = descend(create("imtl_g", 3), jacobian)
    torch.testing.assert_close(weights, 3 * torch.tensor([ratio, 1.0, 0.0], dtype=torch.float64) / (1 + ratio))
    np.testing.assert_allclose(
        weights.numpy(), oracle.imtl_g(jacobian.numpy()), rtol=1e-6, atol=1e-8 * max(1, 1 / scale)
    )
    assert float(update.norm()) < 1e-12


@pytest.mark.parametrize(
    "factors", [[1.0, -0.5, -0.49], [1.0, 1.0, -3.0], [2.0, -1.0, 3.0, -5.0], [1.0, 1.0, 1.0, 1.0, -0.2]], ids=str
)
def test_parallel_gradients_of_both_signs_cancel_with_positive_weights(factors: list[float]) -> None:
    jacobian = torch.tensor(factors, dtype=torch.float64)[:, None] * random(0, 1, 100)
    update, weights = descend(create("imtl_g", len(factors)), jacobian.float().double())
    assert weights.min() > 0 and float(weights.sum()) == pytest.approx(len(factors))
    assert float(update.norm()) <= 1e-6 * float((weights * jacobian.norm(dim=1)).sum())


def test_two_pairs_of_opposed_gradients_cancel() -> None:
    jacobian = random(0, 4, 100)
    jacobian[1], jacobian[3] = -0.9 * jacobian[0], -1.1 * jacobian[2]
    update, weights = descend(create("imtl_g", 4), jacobian)
    inverse = jacobian.norm(dim=1).reciprocal()
    torch.testing.assert_close(weights, 4 * inverse / inverse.sum(), rtol=1e-6, atol=0)
    assert float(update.norm()) < 1e-12


@pytest.mark.parametrize("ratio", [0.25, 1.0, 40.0])
def test_parallel_gradients_share_the_weight_of_one(ratio: float) -> None:
    """Equal directions with different norms; the update is that of the two directions."""
    jacobian = well_posed(0, 3)
    jacobian[2] = ratio * jacobian[1]
    projections = oracle.projections(descend(create("imtl_g", 3), jacobian)[0].numpy(), jacobian.numpy())
    np.testing.assert_allclose(projections, projections[0], rtol=1e-6)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.matrix) for seed in range(1, 5))])
def test_many_dependent_float32_gradients(seed: int) -> None:
    """40 tasks, rank 17: an eigenvalue due to rounding would reduce the update to 1e-4 of its size."""
    jacobian = of_rank(seed, 40, 17, 5000).float()
    update, _ = descend(create("imtl_g", 40), jacobian)
    expected = oracle.imtl_g_of_dependent_gradients(jacobian.double().numpy()) @ jacobian.double().numpy()
    assert np.linalg.norm(update.numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


def test_all_weights_are_zero_if_their_sum_vanishes() -> None:
    """Zero gradients, and independent ones with x = (1, 1, −1)/… and norms for which Σ x/‖g‖ = 0."""
    assert torch.equal(solve(create("imtl_g", 2), torch.zeros(2, 20).double()), torch.zeros(2, dtype=torch.float64))
    # the third unit gradient is between the first two and close to their plane
    units = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.6, 0.6, 0.28**0.5]], dtype=torch.float64)
    x = torch.linalg.solve(units @ units.T, torch.ones(3, dtype=torch.float64))
    assert x[0] > 0 > x[2]
    lengths = torch.tensor([1.0, 1.0, float(-x[2] / (x[0] + x[1]))], dtype=torch.float64)
    weights = solve(create("imtl_g", 3), lengths[:, None] * units)
    assert torch.equal(weights, torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_rounding_of_float32_gradients_does_not_increase_the_rank(rank: int) -> None:
    for seed in range(20):
        left = random(seed, 5, rank).abs()  # so that Σv is not close to 0
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


def test_absent_tasks_are_not_part_of_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = IMTLG(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("imtl_g", 3), jacobian))
