from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

from tests.oracles import surgery as oracle
from tests.weighting.jacobians import SCALES, conflicting, create, descend, every_kind, of_rank, random, solve


def assert_near(update: Tensor, expected: np.ndarray, tolerance: float) -> None:
    """Assert equality relative to the length of the expected update."""
    assert update.shape == expected.shape and update.isfinite().all()
    assert float(np.linalg.norm(update.double().numpy() - expected)) <= tolerance * float(np.linalg.norm(expected))


def test_update_matches_the_pseudoinverse() -> None:
    """The tolerance is due to the rounding of J to float32."""
    for seed in range(500):
        count = 2 + seed % 9
        jacobian = random(seed, count, size=count + 3 + seed % 13).float()
        update, weights = descend(create("conflict_free", count), jacobian)
        assert_near(update, oracle.config(jacobian.double().numpy()), 1e-6)
        assert_near(weights @ jacobian.double(), oracle.config(jacobian.double().numpy()), 1e-9)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for _, unscaled in every_kind(count):
        jacobian = (scale * unscaled).float()
        update, weights = descend(create("conflict_free", count), jacobian)
        assert weights.isfinite().all()
        assert_near(update, oracle.config(jacobian.double().numpy()), 1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_agrees_with_torchjd(count: int, scale: float) -> None:
    """On float64 matrices there; here they are rounded to float32 first. Both have the sum's scale.

    Where all gradients cancel it divides rounding errors by their length, and ours is 0.
    """
    for _, unscaled in every_kind(count):
        jacobian = scale * unscaled
        if oracle.config(jacobian.numpy()).any():
            expected = aggregation.ConFIG()(jacobian)
            assert_near(descend(create("conflict_free", count), jacobian)[0], expected.numpy(), 1e-4)


def test_nearly_opposed_tasks_with_many_parameters() -> None:
    """TorchJD sets singular values below max(t, P) ε to 0, which leaves no direction at 400,000 float32 parameters."""
    jacobian = torch.zeros(2, 400_000)
    jacobian[:, 0], jacobian[:, 1] = torch.tensor([1.0, -1.0]), 0.02
    update, _ = descend(create("conflict_free", 2), jacobian)
    assert_near(update, oracle.config(jacobian.double().numpy()), 1e-5)
    assert float(update[1]) == pytest.approx(0.04) and float(update[0]) == pytest.approx(0.0, abs=1e-8)
    assert float(aggregation.ConFIG()(jacobian)[1]) < 1e-4


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 10), hard=st.booleans())
def test_same_positive_cosine_with_every_task(seed: int, count: int, hard: bool) -> None:
    jacobian = conflicting(seed, count) if hard and count > 1 else random(seed, count, size=20)
    jacobian = jacobian.float().double()
    _, weights = descend(create("conflict_free", count), jacobian)
    update = weights @ jacobian
    cosines = (jacobian @ update) / (jacobian.norm(dim=1) * update.norm())
    assert (cosines > 0).all()
    torch.testing.assert_close(cosines, cosines.mean().expand(count), rtol=1e-4, atol=0)
    # length of the update: the sum of the projections onto the direction
    torch.testing.assert_close(update.norm(), (jacobian @ update).sum() / update.norm(), rtol=1e-6, atol=0)


def test_three_orthogonal_tasks_in_closed_form() -> None:
    """With lengths 1, 2 and 3, the direction is (1, 1, 1)/√3 and the length 6/√3."""
    jacobian = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    update, weights = descend(create("conflict_free", 3), jacobian)
    torch.testing.assert_close(update, torch.tensor([2.0, 2.0, 2.0]))
    torch.testing.assert_close(weights, torch.tensor([2.0, 1.0, 2 / 3], dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(5)), rank=st.integers(1, 5))
def test_permuting_the_tasks_permutes_the_weights(seed: int, order: list[int], rank: int) -> None:
    """Holds for dependent gradients too: the weights have the least norm among those with the same update."""
    jacobian = of_rank(seed, 5, rank).float()
    weights = solve(create("conflict_free", 5), jacobian)
    permuted = solve(create("conflict_free", 5), jacobian[order])
    torch.testing.assert_close(permuted, weights[order], rtol=1e-4, atol=1e-4 * float(weights.abs().max()))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), task=st.integers(0, 4), power=st.integers(-6, 6))
def test_direction_is_invariant_to_the_scale_of_one_loss(seed: int, task: int, power: int) -> None:
    jacobian, scales = random(seed, 5, size=20), torch.ones(5, 1, dtype=torch.float64)
    scales[task] = 10.0**power
    before, after = (descend(create("conflict_free", 5), rows)[0] for rows in (jacobian, scales * jacobian))
    torch.testing.assert_close(after / after.norm(), before / before.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_identical_tasks_give_their_sum(count: int) -> None:
    jacobian = random(0, 1, 20).repeat(count, 1)
    update, weights = descend(create("conflict_free", count), jacobian)
    assert_near(update, jacobian.sum(0).numpy(), 1e-6)
    torch.testing.assert_close(weights, torch.ones(count, dtype=torch.float64))


def test_the_update_is_zero_if_the_direction_is_undefined() -> None:
    jacobian = torch.cat([random(0, 1, 20), -random(0, 1, 20)])
    for rows in (jacobian, 0 * jacobian, jacobian[:, :0]):
        update, weights = descend(create("conflict_free", 2), rows)
        assert not update.any() and not weights.any()


def test_a_zero_gradient_does_not_affect_the_others() -> None:
    jacobian = random(0, 4, size=20)
    jacobian[2] = 0.0
    update, weights = descend(create("conflict_free", 4), jacobian)
    rest, _ = descend(create("conflict_free", 3), jacobian[[0, 1, 3]])
    torch.testing.assert_close(update, rest)
    assert float(weights[2]) == 0.0


@pytest.mark.parametrize(("count", "size"), [(2, 600_000), (40, 30_000)])
def test_many_parameters(count: int, size: int) -> None:
    """More columns than one block."""
    jacobian = random(0, count, size).float()
    jacobian[1] = jacobian[0] + 1e-3 * jacobian[1]
    update, weights = descend(create("conflict_free", count), jacobian)
    cosines = (jacobian.double() @ update.double()) / jacobian.double().norm(dim=1)
    torch.testing.assert_close(cosines, cosines.mean().expand(count), rtol=1e-4, atol=0)
    assert_near(update, (weights @ jacobian.double()).numpy(), 1e-6)


def test_unaffected_by_autocast() -> None:
    jacobian, gramian = random(0, 4, size=100).float(), torch.eye(4, dtype=torch.float64)
    expected = create("conflict_free", 4).update(jacobian, gramian, torch.ones(4), range(4))
    with torch.autocast("cpu", torch.bfloat16):
        got = create("conflict_free", 4).update(jacobian, gramian, torch.ones(4), range(4))
    assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
