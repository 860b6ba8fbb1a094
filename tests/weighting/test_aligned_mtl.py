from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.aggregation import AlignedMTLWeighting

from mtlcli.weighting.methods.aligned_mtl import AlignedMTL
from tests.oracles import alignment as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, of_rank, random, solve
from tests.weighting.methods import tasks

Scale = Literal["min", "median", "rmse"]
MODES: list[Scale] = ["min", "median", "rmse"]
quick = settings(max_examples=15, deadline=None)


@pytest.mark.parametrize("mode", MODES)
def test_the_update_is_the_sum_of_the_aligned_gradients(mode: Scale) -> None:
    """The oracle uses the singular value decomposition of J, the method the eigenvalues of G; 510 J in all."""
    for seed in range(170):
        count = 2 + seed % 9
        jacobian = random(seed, count, 2 + seed % 17)
        update, weights = descend(create("aligned_mtl", count, scale=mode), jacobian)
        np.testing.assert_allclose(weights.numpy(), oracle.aligned_mtl(jacobian.numpy(), mode), rtol=1e-6, atol=1e-8)
        aligned = oracle.aligned_jacobian(jacobian.numpy(), mode)[0]
        np.testing.assert_allclose(update.numpy(), aligned.sum(0), rtol=1e-6, atol=1e-8)


def test_aligned_gradients_of_the_oracle_have_equal_singular_values() -> None:
    for seed in range(50):
        jacobian = of_rank(seed, 6, 1 + seed % 6).numpy()
        aligned, matrix = oracle.aligned_jacobian(jacobian)
        values = np.linalg.svd(aligned, compute_uv=False)
        rank = np.linalg.matrix_rank(jacobian)
        np.testing.assert_allclose(values[:rank], np.linalg.svd(jacobian, compute_uv=False)[rank - 1])
        np.testing.assert_allclose(values[rank:], 0, atol=1e-12)
        np.testing.assert_allclose(matrix @ jacobian, aligned, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2, 5, 10, 40])
@pytest.mark.parametrize("scale", [scale for scale in SCALES if scale > 0])
def test_every_kind_of_jacobian(count: int, scale: float, mode: Scale) -> None:
    for name, jacobian in every_kind(count):
        expected = oracle.aligned_mtl(jacobian.numpy(), mode)
        weights = solve(create("aligned_mtl", count, scale=mode), scale * jacobian).numpy()
        # an eigenvalue of G near 1e-12 of the largest has four correct digits in float64
        np.testing.assert_allclose(
            weights, expected, rtol=1e-3, atol=1e-12 + 1e-4 * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2, 5, 10])
@pytest.mark.parametrize("scale", SCALES)
def test_agrees_with_torchjd(count: int, scale: float, mode: Scale) -> None:
    """TorchJD's weights are 1/T of these, for a mean instead of a sum, and its rank tolerance differs."""
    theirs, ours = AlignedMTLWeighting(scale_mode=mode), create("aligned_mtl", count, scale=mode)
    for name, jacobian in every_kind(count):
        if name == "unequal norms":
            continue  # eigenvalues between the two tolerances
        expected = count * theirs(scale * jacobian @ (scale * jacobian).T)  # type: ignore[arg-type]
        weights = solve(ours, scale * jacobian)
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_rounding_of_float32_gradients_does_not_increase_the_rank(rank: int) -> None:
    """With σ² from an eigenvalue that is due to rounding, the update would be 1e-7 of the correct one."""
    for seed in range(20):
        jacobian = of_rank(seed, 5, rank, 1000)
        expected = solve(create("aligned_mtl", 5), jacobian)
        rounded = solve(create("aligned_mtl", 5), jacobian.float().double())
        torch.testing.assert_close(rounded, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_many_dependent_float32_gradients(seed: int, mode: Scale) -> None:
    """40 tasks, rank 17."""
    jacobian = of_rank(seed, 40, 17, 5000).float()
    update, _ = descend(create("aligned_mtl", 40, scale=mode), jacobian)
    expected = oracle.aligned_mtl(jacobian.double().numpy(), mode) @ jacobian.double().numpy()
    assert np.linalg.norm(update.numpy() - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("mode", MODES)
def test_orthogonal_gradients_get_the_length_selected_by_scale(mode: Scale) -> None:
    lengths = torch.tensor([5.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    weights = solve(create("aligned_mtl", 4, scale=mode), torch.diag(lengths))
    length = {"min": 1.0, "median": 2.0, "rmse": (39 / 4) ** 0.5}[mode]
    torch.testing.assert_close(weights, length / lengths)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_identical_tasks_have_weight_one(count: int, mode: Scale) -> None:
    weighting = create("aligned_mtl", count, scale=mode)
    ones = torch.ones(count, dtype=torch.float64)
    torch.testing.assert_close(solve(weighting, random(0, 1, 20).repeat(count, 1)), ones)
    torch.testing.assert_close(solve(weighting, 3 * torch.eye(count, dtype=torch.float64)), ones)
    assert torch.equal(solve(weighting, torch.zeros(count, 20, dtype=torch.float64)), ones)


@quick
@given(data=st.data())
@pytest.mark.parametrize("mode", MODES)
def test_permuting_the_tasks_permutes_the_weights(mode: Scale, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 10))
    order = data.draw(st.permutations(range(count)))
    jacobian = random(data.draw(st.integers(0, 1000)), count)
    weighting = create("aligned_mtl", count, scale=mode)
    torch.testing.assert_close(solve(weighting, jacobian[order]), solve(weighting, jacobian)[order])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("count", [1, 2, 40])
def test_finite_for_tiny_and_huge_gramians(count: int, scale: float, mode: Scale) -> None:
    weighting = create("aligned_mtl", count, scale=mode)
    for _, jacobian in every_kind(count):
        gramian = scale * (jacobian @ jacobian.T)
        assert weighting.weights(gramian, torch.ones(count).double(), range(count)).isfinite().all()


def test_absent_tasks_are_not_part_of_the_problem() -> None:
    jacobian, losses = random(0, 3), torch.ones(3).double()
    weights = AlignedMTL(tasks(5)).weights(jacobian @ jacobian.T, losses, [0, 2, 4])
    torch.testing.assert_close(weights, solve(create("aligned_mtl", 3), jacobian))


@pytest.mark.parametrize("mode", MODES)
def test_never_waits_for_the_device(mode: Scale) -> None:
    weighting = create("aligned_mtl", 4, scale=mode).to("meta")
    gramian = torch.ones(4, 4, device="meta", dtype=torch.float64)
    assert weighting.weights(gramian, gramian[0], range(4)).shape == (4,)
