from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd import aggregation

from mtlcli.weighting.methods.pcgrad import PCGrad
from tests.oracles import surgery as oracle
from tests.weighting.jacobians import SCALES, create, descend, every_kind, non_conflicting, random, solve
from tests.weighting.methods import tasks


def orders(weighting: PCGrad, present: list[int]) -> list[list[int]]:
    """Return the order in which each task meets the others in the current step."""
    orders: list[list[int]] = weighting.get_orders(present).T.tolist()
    return orders


def assert_near(update: Tensor, expected: np.ndarray, jacobian: Tensor, tolerance: float = 1e-9) -> None:
    """Assert equality relative to the longest gradient or the expected update, whichever is longer."""
    size = max(float(jacobian.norm(dim=1).max()), float(np.linalg.norm(expected)))
    assert float(np.linalg.norm(update.numpy() - expected)) <= tolerance * size


def test_update_matches_the_paper() -> None:
    for seed in range(500):
        jacobian = random(seed, 2 + seed % 9, size=4 + seed % 13)
        weighting = create("pcgrad", len(jacobian))
        update, _ = descend(weighting, jacobian)
        assert_near(update, oracle.pcgrad(jacobian.numpy(), orders(weighting, list(range(len(jacobian))))), jacobian)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 40])
def test_update_matches_the_paper_for_every_kind_of_jacobian(count: int, scale: float) -> None:
    for _, unscaled in every_kind(count):
        jacobian, weighting = scale * unscaled, create("pcgrad", count)
        update, weights = descend(weighting, jacobian)
        assert weights.isfinite().all() and (weights >= 1).all()
        if count <= 10:
            everyone = orders(weighting, list(range(count)))
            with np.errstate(invalid="ignore", divide="ignore"):
                assert_near(update, oracle.pcgrad(jacobian.numpy(), everyone), jacobian, 1e-6)


def test_agrees_with_torchjd_in_the_same_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both give the sum of the projected gradients. TorchJD's order contains the task itself, and skips it."""
    for seed in range(100):
        jacobian = random(seed, 2 + seed % 9, size=6)
        weighting = create("pcgrad", len(jacobian))
        update, weights = descend(weighting, jacobian)
        drawn: Iterator[list[int]] = iter(orders(weighting, list(range(len(jacobian)))))
        owner = itertools.count()
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", lambda n: torch.tensor([next(owner), *next(drawn)]))  # noqa: B023
            expected = aggregation.PCGrad()(jacobian)
        torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(weights @ jacobian, expected, rtol=1e-4, atol=1e-9)


def test_projections_use_the_original_gradients() -> None:
    """A common bug: projecting onto gradients that were projected before."""

    def wrong(gradients: np.ndarray, everyone: list[list[int]]) -> np.ndarray:
        projected = gradients.copy()
        for i, order in enumerate(everyone):
            for j in order:
                product = projected[i] @ projected[j]
                if product < 0:
                    projected[i] -= product / (projected[j] @ projected[j]) * projected[j]
        update: np.ndarray = projected.sum(0)
        return update

    jacobian = random(3, 6, size=5)
    weighting = create("pcgrad", 6)
    update, _ = descend(weighting, jacobian)
    mistaken = wrong(jacobian.numpy(), orders(weighting, list(range(6))))
    assert np.linalg.norm(update.numpy() - mistaken) > 0.1 * np.linalg.norm(mistaken)
    assert_near(update, oracle.pcgrad(jacobian.numpy(), orders(weighting, list(range(6)))), jacobian)


def test_two_tasks_in_closed_form() -> None:
    """g₁ = (1, 0), g₂ = (−1, 1): g₁' = g₁ + ½ g₂, g₂' = g₂ + g₁; their sum is 2 g₁ + 1.5 g₂."""
    weights = solve(create("pcgrad", 2), torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64))
    torch.testing.assert_close(weights, torch.tensor([2.0, 1.5], dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_two_tasks_never_conflict_with_the_update(seed: int) -> None:
    jacobian = random(seed, 2, size=3)
    update, _ = descend(create("pcgrad", 2), jacobian)
    assert (jacobian @ update >= -1e-12).all()


@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_without_conflict_the_update_is_the_sum(count: int) -> None:
    ones = torch.ones(count, dtype=torch.float64)
    assert torch.equal(solve(create("pcgrad", count), non_conflicting(0, count)), ones)
    assert torch.equal(solve(create("pcgrad", count), random(0, 1, 9).repeat(count, 1)), ones)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), power=st.integers(-15, 15))
def test_invariant_to_the_units_of_the_losses(seed: int, power: int) -> None:
    jacobian = random(seed, 5, size=4)
    torch.testing.assert_close(solve(create("pcgrad", 5), jacobian), solve(create("pcgrad", 5), 10.0**power * jacobian))


def test_each_task_draws_a_random_permutation_in_each_step() -> None:
    weighting = create("pcgrad", 5)
    seen = []
    for _ in range(600):
        weighting.start_step()
        step_orders = orders(weighting, list(range(5)))
        assert all(sorted([i, *order]) == list(range(5)) for i, order in enumerate(step_orders))
        seen.append(step_orders)
    assert len({tuple(step_orders[0]) for step_orders in seen}) == 24  # all orders occur
    firsts = np.array([[order[0] for order in step_orders] for step_orders in seen])
    for i in range(5):
        shares = np.bincount(firsts[:, i], minlength=5) / 600
        assert shares[i] == 0 and all(0.17 < share < 0.33 for j, share in enumerate(shares) if j != i)
    assert np.mean(firsts[:, 0] == firsts[:, 1]) < 0.35  # one order for all tasks would give about ¾


@settings(max_examples=15, deadline=None)
@given(present=st.sets(st.integers(0, 6), min_size=1).map(sorted), seed=st.integers(0, 1000))
def test_absent_tasks_are_not_part_of_the_problem(present: list[int], seed: int) -> None:
    """The other tasks keep their order among all tasks."""
    weighting = create("pcgrad", 7)
    weighting.seed(seed)
    weighting.start_step()
    everyone = orders(weighting, list(range(7)))
    induced = [[present.index(j) for j in everyone[i] if j in present] for i in present]
    assert orders(weighting, present) == induced
    jacobian = random(seed, len(present), size=5)
    weights = weighting.weights(jacobian @ jacobian.T, torch.ones(len(present), dtype=torch.float64), present)
    assert_near(weights @ jacobian, oracle.pcgrad(jacobian.numpy(), induced), jacobian)


def test_resumes_identically() -> None:
    jacobian, original = random(1, 6, size=5), create("pcgrad", 6)
    for _ in range(3):
        solve(original, jacobian)
    resumed = create("pcgrad", 6)
    resumed.seed(99)
    resumed.load_state_dict(original.state_dict())
    for _ in range(3):
        assert torch.equal(solve(original, jacobian), solve(resumed, jacobian))


def test_start_step_is_required() -> None:
    with pytest.raises(AssertionError, match="start_step"):
        PCGrad(tasks(2)).weights(torch.eye(2), torch.ones(2), [0, 1])


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2], [1]])
def test_never_waits_for_the_device(present: list[int]) -> None:
    weighting = create("pcgrad", 3).to("meta")
    weighting.start_step()
    count = len(present)
    weights = weighting.weights(torch.ones(count, count, device="meta"), torch.ones(count, device="meta"), present)
    assert weights.device.type == "meta" and weights.shape == (count,)
