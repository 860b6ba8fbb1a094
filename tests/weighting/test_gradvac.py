from __future__ import annotations

import io
import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

from mtlcli.weighting.methods.gradvac import GradVac
from tests.oracles import surgery as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, non_conflicting, random, solve


def orders(weighting: GradVac, present: list[int]) -> list[list[int]]:
    """Return the order in which each task meets the others in the current step."""
    orders: list[list[int]] = weighting.get_orders(present).T.tolist()
    return orders


def assert_near(update: Tensor, expected: np.ndarray, jacobian: Tensor, tolerance: float = 1e-6) -> None:
    """Assert equality relative to the longest gradient or the expected update, whichever is longer."""
    size = max(float(jacobian.norm(dim=1).max()), float(np.linalg.norm(expected)))
    assert float(np.linalg.norm(update.numpy() - expected)) <= tolerance * size


@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0])
def test_updates_and_targets_match_the_paper(beta: float) -> None:
    """Several steps, so that the targets leave 0; 510 Gramians in all."""
    for seed in range(17):
        count = 2 + seed % 9
        weighting, common = create("gradvac", count, beta=beta), random(1000 + seed, 1, 12)
        targets = np.zeros((count, count))
        for step in range(10):
            jacobian = random(100 * seed + step, count, 12) + common * (seed % 3)
            update, _ = descend(weighting, jacobian)
            expected, new = oracle.gradvac(jacobian.numpy(), targets, orders(weighting, list(range(count))), beta)
            assert_near(update, expected, jacobian, 1e-5)
            np.testing.assert_allclose(weighting.targets.numpy(), new, atol=1e-6)
            targets = weighting.targets.double().numpy()  # the state is float32; here its rounding does not accumulate


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_every_kind_of_jacobian(count: int, scale: float) -> None:
    for _, unscaled in every_kind(count):
        jacobian, weighting = scale * unscaled, create("gradvac", count, beta=0.3)
        for _ in range(3):
            before = weighting.targets.double().numpy()
            update, weights = descend(weighting, jacobian)
            assert weights.isfinite().all() and (weights >= 1).all() and weighting.targets.isfinite().all()
            if count <= 10:
                everyone = orders(weighting, list(range(count)))
                expected, new = oracle.gradvac(jacobian.numpy(), before, everyone, 0.3)
                assert_near(update, expected, jacobian)
                np.testing.assert_allclose(weighting.targets.numpy(), new, atol=1e-5)


def test_agrees_with_torchjd_in_the_same_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchJD's orders are positions in the list of the other tasks; the tolerance covers its ε of 1e-8."""
    for seed in range(20):
        count = 2 + seed % 9
        ours, theirs = create("gradvac", count, beta=0.5), aggregation.GradVac(beta=0.5)
        for step in range(5):
            jacobian = random(50 * seed + step, count, 12) + random(seed, 1, 12)
            update, _ = descend(ours, jacobian)
            drawn: Iterator[list[int]] = iter(orders(ours, list(range(count))))
            owner = itertools.count()

            def positions(n: int) -> Tensor:
                i = next(owner)  # noqa: B023
                return torch.tensor([j if j < i else j - 1 for j in next(drawn)])  # noqa: B023

            with monkeypatch.context() as patch:
                patch.setattr(torch, "randperm", positions)
                expected = theirs(jacobian)
            torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-5)


def test_constant_targets_of_zero_give_pcgrad() -> None:
    ours, theirs = create("gradvac", 6, beta=0.0), create("pcgrad", 6)
    for seed in range(20):
        jacobian = random(seed, 6, size=5)
        torch.testing.assert_close(solve(ours, jacobian), solve(theirs, jacobian))
    assert not ours.targets.any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), target=st.floats(-0.99, 0.99))
def test_a_cosine_below_its_target_is_raised_to_it(seed: int, target: float) -> None:
    """With two tasks each gradient meets one other, so that the weights determine its component of the update."""
    jacobian, weighting = random(seed, 2, size=3), create("gradvac", 2)
    weighting.targets.fill_(target)
    weights = solve(weighting, jacobian)
    cosine = float(torch.nn.functional.cosine_similarity(jacobian[0], jacobian[1], dim=0))
    for i, j in ((0, 1), (1, 0)):
        raised = jacobian[i] + (weights[j] - 1) * jacobian[j]  # without the other gradient itself, which counts once
        result = float(torch.nn.functional.cosine_similarity(raised, jacobian[j], dim=0))
        assert result == pytest.approx(max(cosine, target), abs=1e-5)


def test_targets_follow_cosines_above_them_too() -> None:
    """A common bug: updating the targets only if the gradient changes, so that no target ever increases."""
    jacobian = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)  # cosine 0.6
    weighting = create("gradvac", 2, beta=0.1)
    assert solve(weighting, jacobian).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(weighting.targets.numpy(), [[0, 0.06], [0.06, 0]], atol=1e-7)
    solve(weighting, jacobian)
    np.testing.assert_allclose(weighting.targets.numpy(), [[0, 0.114], [0.114, 0]], atol=1e-7)


def test_targets_follow_the_cosine_of_the_modified_gradient() -> None:
    """After g₁ is projected for one task, its cosine to another differs from the original one."""
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    weighting = create("gradvac", 3, beta=1.0)
    while True:
        weighting.start_step()
        if orders(weighting, [0, 1, 2])[0] == [1, 2]:
            break
    weighting.weights(jacobian @ jacobian.T, torch.ones(3, dtype=torch.float64), [0, 1, 2])
    np.testing.assert_allclose(weighting.targets[0].numpy(), [0, -np.sqrt(0.5), np.sqrt(0.5)], atol=1e-6)


@pytest.mark.parametrize("count", [2, 10, 40])
def test_identical_tasks_keep_weight_one_after_many_steps(count: int) -> None:
    """The targets approach 1, where the paper divides by zero."""
    weighting, jacobian = create("gradvac", count, beta=0.5), random(0, 1, 20).repeat(count, 1)
    for _ in range(100):
        torch.testing.assert_close(solve(weighting, jacobian), torch.ones(count, dtype=torch.float64))
    assert float(weighting.targets[0, 1]) == 1.0
    noisy = jacobian @ jacobian.T * (1 + 1e-6 * (2 * random(1, count, count).sigmoid() - 1))  # a float32 product
    weighting.start_step()
    weights = weighting.weights(noisy, torch.ones(count, dtype=torch.float64), range(count))
    torch.testing.assert_close(weights, torch.ones(count, dtype=torch.float64), rtol=1e-2, atol=0)
    for result in (-jacobian, random(1, count, 20), torch.cat([jacobian[:1], -jacobian[1:]]), 0 * jacobian):
        assert solve(weighting, result).isfinite().all()


def test_cosines_above_their_targets_give_the_sum() -> None:
    assert solve(create("gradvac", 10), non_conflicting(0, 10)).tolist() == [1.0] * 10


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), power=st.integers(-15, 15))
def test_invariant_to_the_units_of_the_losses(seed: int, power: int) -> None:
    ours, theirs = create("gradvac", 5), create("gradvac", 5)
    for step in range(3):
        jacobian = random(seed + step, 5, size=4)
        torch.testing.assert_close(solve(ours, jacobian), solve(theirs, 10.0**power * jacobian))


@settings(max_examples=15, deadline=None)
@given(present=st.sets(st.integers(0, 6), min_size=1).map(sorted), seed=st.integers(0, 1000))
def test_absent_tasks_are_not_part_of_the_problem(present: list[int], seed: int) -> None:
    weighting = create("gradvac", 7, beta=0.5)
    for step in range(2):
        solve(weighting, random(seed + step, 7, size=9))
    before = weighting.targets.double().numpy()
    jacobian = random(seed, len(present), size=5)
    weighting.start_step()
    weights = weighting.weights(jacobian @ jacobian.T, torch.ones(len(present), dtype=torch.float64), present)
    block = np.ix_(present, present)
    expected, new = oracle.gradvac(jacobian.numpy(), before[block], orders(weighting, present), 0.5)
    assert_near(weights @ jacobian, expected, jacobian)
    before[block] = new
    np.testing.assert_allclose(weighting.targets.numpy(), before, atol=1e-6)


def test_a_zero_gradient_keeps_its_targets() -> None:
    weighting = create("gradvac", 3, beta=0.5)
    solve(weighting, random(0, 3))
    before = weighting.targets.clone()
    jacobian = random(1, 3)
    jacobian[1] = 0.0
    assert solve(weighting, jacobian).isfinite().all()
    changed = weighting.targets != before
    assert changed.tolist() == [[False, False, True], [False, False, False], [True, False, False]]


def test_resumes_identically() -> None:
    original = create("gradvac", 6)
    for seed in range(3):
        solve(original, random(seed, 6, size=5))
    file = io.BytesIO()
    torch.save(original.state_dict(), file)
    file.seek(0)
    resumed = create("gradvac", 6)
    resumed.seed(99)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        jacobian = random(seed, 6, size=5)
        assert torch.equal(solve(original, jacobian), solve(resumed, jacobian))
        assert torch.equal(original.targets, resumed.targets)


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2], [1]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    weighting = create("gradvac", 3).to("meta")
    weighting.start_step()
    count = len(present)
    result = weighting.weights(torch.ones(count, count, device="meta"), torch.ones(count, device="meta"), present)
    assert result.device.type == "meta" and result.shape == (count,) and weighting.targets.shape == (3, 3)
